"""The whole check of a pair: map, weights, forward, statistics, gradients, one step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lockstep.datasets import keys
from lockstep.errors import UserError
from lockstep.parity.distances import distance
from lockstep.port import explain, gradients, optimizer, propose
from lockstep.port import lines as maps
from lockstep.port.compare import Comparison, Run
from lockstep.port.explain import Cause
from lockstep.port.jax_side import JaxSide
from lockstep.port.outcome import Finding, Outcome, Prepared
from lockstep.port.pair import Pair
from lockstep.port.seen import OUT, Place
from lockstep.port.torch_side import TorchSide
from lockstep.port.value import DIFFERS, EQUAL, FIRM, ROUNDED, Value


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is to be compared."""

    precisions: Sequence[str] = ("float64", "float32")
    train: bool = False
    gradients: bool = False


def prepare(pair: Pair, *, accept: bool = False) -> Prepared:
    """Build both sides and the map: the file's own, an accepted one, or a proposed one.

    Args:
        accept: accept a proposed map, and write it beside the pair's file.

    Raises:
        UserError: a side cannot be called; or the map is not a bijection.
    """
    torch, jax = TorchSide(pair), JaxSide(pair)
    orders = torch.order(), jax.order()
    shapes = [{n: v.shape for n, v in side.values().items()} for side in (torch, jax)]
    kinds = {**torch.kinds, **dict.fromkeys(torch.buffers, "buffer")}
    proposed = False
    if pair.parameters is not None:
        lines = maps.given(pair.parameters, shapes[0], shapes[1], torch.kinds)
    elif pair.map_file.is_file():
        lines = maps.load(pair.map_file)
    else:
        proposed = not accept
        both = pair.ported or (pair.torch_checkpoint and pair.jax_checkpoint)
        values = [side.values() if both else None for side in (torch, jax)]
        known = [
            propose.Known(shapes=s, order=o, values=v) for s, o, v in zip(shapes, orders, values)
        ]
        lines = propose.propose(known[0], known[1], kinds)
    try:
        maps.check(lines, shapes[0], shapes[1], pair.unused)
    except UserError as error:
        where = pair.map_file if pair.map_file.is_file() and not pair.parameters else pair.path
        raise UserError(f"{where}: {error}") from error
    if accept and pair.parameters is None and not pair.map_file.is_file():
        maps.save(pair.map_file, lines)
    return Prepared(pair=pair, torch=torch, jax=jax, lines=lines, orders=orders, proposed=proposed)


def check(prepared: Prepared, options: Options) -> Outcome:
    """Compare a pair in every precision and mode that is asked for.

    Raises:
        UserError: a side cannot be called, or outputs have another structure.
    """
    pair, torch, jax = prepared.pair, prepared.torch, prepared.jax
    findings: list[Finding] = []
    if pair.ported or (pair.torch_checkpoint and pair.jax_checkpoint):
        findings.append(_weights(prepared))
    comparison = Comparison(torch, jax, prepared.lines, _start(prepared), prepared.orders)
    for train in (False, True)[: 1 + options.train]:
        for precision in options.precisions:
            run = comparison.run(precision, train=train)
            found = _finding(comparison, run)
            findings.append(found)
            if found.first and (found.causes or found.first.distance > ROUNDED):
                break  # what differs in the sharper precision is looked at there alone
    if options.gradients:
        for precision in options.precisions:
            if precision != "bfloat16":
                listed = gradients.compared(comparison, precision, train=options.train)
                findings.append(_listed(f"gradients, {precision}", listed))
    if pair.torch_optimizer is not None:
        listed, causes = optimizer.compared(comparison)
        name = f"{optimizer.STEPS} optimizer steps, float64"
        findings.append(replace(_listed(name, listed), causes=causes))
    notes = [note for note in (torch.note, jax.note) if note]
    findings = _settled(findings)
    return Outcome(prepared=prepared, findings=findings, notes=notes)


def _finding(comparison: Comparison, run: Run) -> Finding:
    name = f"{run.precision}, training" if run.train else run.precision
    before = run.before()
    finding = Finding(name=name, values=run.values, last_equal=before.name if before else None)
    if run.first is None:
        return finding
    drawn = _drawn(comparison, run)
    return replace(finding, causes=[drawn] if drawn else explain.explain(comparison, run))


def _drawn(comparison: Comparison, run: Run) -> Cause | None:
    """Return that JAX draws random numbers where the first layer differs, None if it does not."""
    first = run.first
    if first is None or first.place not in run.together:
        return None
    other = run.together[first.place]
    comparison.load(run.precision)
    recorder = comparison.jax.recorder({other.path})
    comparison.jax.forward(run.precision, recorder, train=run.train, stream=1)
    apart = distance(recorder.kept[other], run.jax[other]) if other in recorder.kept else 0.0
    if apart <= first.tolerance:
        return None
    return Cause(
        kind="dropout",
        port="draws random numbers here (two calls differ)",
        torch="draws none",
        remedy="deterministic=True",
        before=first.distance,
        after=math.nan,
    )


def _settled(findings: list[Finding]) -> list[Finding]:
    """Excuse in float64 what a constant rounded to float32 explains, if float32 is equal."""
    by_name = {finding.name: finding for finding in findings}
    settled = []
    for finding in findings:
        precision, _, rest = finding.name.partition(",")
        other = by_name.get(f"float32,{rest}" if rest else "float32")
        first = finding.first
        small = first is not None and first.distance <= ROUNDED and not finding.causes
        if precision == "float64" and small and (other is None or other.passed):
            largest = max(v.distance for v in finding.values)
            finding = replace(finding, rounded=largest <= FIRM["float32"])
        settled.append(finding)
    return settled


def _weights(prepared: Prepared) -> Finding:
    """Compare the weights that both sides hold already."""
    ours, theirs = prepared.torch.values(), prepared.jax.values()
    found = []
    for line in prepared.lines:
        if line.jax is not None:
            a = line.to_jax(maps.part_of(ours[line.torch], line.torch_part))
            b = maps.part_of(theirs[line.jax], line.jax_part)
            found.append((line.torch, distance(b, a, name=line.torch), FIRM["float32"], a, b))
    return _listed("weights", found)


def _listed(name: str, found: Sequence[tuple]) -> Finding:
    """Return a finding about tensors by name: (name, distance, tolerance, ours, theirs)."""
    values, last, beyond = [], None, False
    for tensor, apart, allowed, a, b in found:
        differs = not apart <= allowed
        status = EQUAL if not differs else "follows" if beyond else DIFFERS
        if not beyond and not differs:
            last = tensor
        beyond = beyond or differs
        values.append(
            Value(
                name=tensor,
                place=Place(tensor, OUT, 0),
                distance=apart,
                tolerance=allowed,
                layout="",
                shapes=(tuple(a.shape), tuple(b.shape)),
                dtypes=(str(a.dtype), str(b.dtype)),
                status=status,
            )
        )
    return Finding(name=name, values=values, last_equal=last)


def _start(prepared: Prepared) -> dict[str, np.ndarray]:
    """Return PyTorch's tensors to start from: a checkpoint's, or those it has, made general.

    Zero biases and unit scales would hide a wrong map or a scale that is left out: without a
    checkpoint they are moved at random.
    """
    pair, torch, jax = prepared.pair, prepared.torch, prepared.jax
    values = torch.values()
    if pair.torch_checkpoint or pair.ported:
        return values
    if pair.jax_checkpoint:
        shapes = {name: value.shape for name, value in values.items()}
        return {**values, **maps.to_torch(prepared.lines, jax.values(), shapes)}
    for name, value in values.items():
        if value.size and np.ptp(value) == 0:
            drawn = keys.normal(value.size, "port", name).reshape(value.shape)
            positive = name in torch.buffers and value.min() > 0
            moved = value * np.exp(0.3 * drawn) if positive else value + 0.1 * drawn
            values[name] = moved.astype(np.float32)
    return values
