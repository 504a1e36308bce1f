"""Why a study's ladder fails: PyTorch's calls are altered beside what JAX's trace has.

The two frameworks climb apart, each in its own image. But what is altered is PyTorch alone
(`lockstep.port.explain`); of JAX a cause needs no more than what its layers gave for the first
batch, and that is in its trace. So it is found where PyTorch is.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.errors import UserError
from lockstep.parity import compare
from lockstep.parity.cause import STATE, told
from lockstep.parity.distances import TOLERANCE, Arrays, distance, from_twin, tolerance_from_twin
from lockstep.parity.pair import TorchHalf, torch_half
from lockstep.parity.route import Route
from lockstep.port import explain
from lockstep.port.compare import Run
from lockstep.port.explain import Intercept
from lockstep.port.lines import Line
from lockstep.port.pair import Pair
from lockstep.port.seen import OUT, Called, Kept, Place
from lockstep.port.torch_side import TorchSide
from lockstep.port.value import BUFFER, DIFFERS, EQUAL, OUTPUT, Value

SAME = 0.1  # by which a difference that was traced may be another here: devices round differently


class Traced:
    """A workload's PyTorch model beside a trace of JAX's (`lockstep.port.explain.Compared`).

    Args:
        half: the model and the first batch.
        theirs: JAX's trace.
    """

    def __init__(self, half: TorchHalf, theirs: Arrays) -> None:
        model = Pair(
            path=Path(f"{half.job.workload.name}/torch_model.py"),
            torch_model=half.module,
            jax_model=None,
            batch=half.batch,
        )
        # Layers are looked at with inputs off their ties, outputs and statistics are not.
        self._sides = {
            moved: TorchSide(replace(model, torch_call=half.call(moved=moved)), half.sample)
            for moved in (False, True)
        }
        self.torch = self._sides[True]
        self.values = self.torch.values()
        self.lines = [
            Line(torch=name, jax=neutral)
            for neutral, (name, layout) in half.names.items()
            if name in self.torch.buffers and layout is None
        ]
        self.theirs, self._layers = theirs, half.layers
        self.wanted = (set(self._layers.values()), set[str]())

    def load(self, precision: str) -> None:
        """Load the initial weights."""
        self.torch.load(self.values, precision)

    def run(self, failed: Mapping[str, Any]) -> Run:
        """Return what both sides compute up to the value that the ladder has found to differ.

        Args:
            failed: the first rung of the ladder that failed.

        Raises:
            UserError: PyTorch's model gives no such value here.
        """
        rung, first = failed["name"], failed["first"]
        run = self._run(failed["precision"])
        found = {value.name: value for value in run.values}
        target = found.get(self._named(rung, first))
        if target is None:
            raise UserError(f"{self.torch.pair.path}: gives no value {first} ({rung}) when called")
        names = list(self._layers)
        names = names[: names.index(first)] if rung == "layers" else names
        values = [found[name] for name in names if name in found]
        values.append(replace(target, status=DIFFERS, tolerance=float(compare.held_to(failed))))
        self.torch = self._sides[rung == "layers"]
        return replace(run, values=values)

    def _named(self, rung: str, first: str) -> str:
        if rung == "layers":
            return first
        if rung == "forward":
            return f"{OUTPUT}{first}"
        known = {line.jax: line.torch for line in self.lines}
        return f"{BUFFER}{known.get(first.removeprefix('buffer/'))}"

    def again(self, run: Run, altered: Intercept) -> Run:
        """Return a run with PyTorch altered; of the layers too that follow the first."""
        changed = self._run(run.precision, altered)
        values = [
            replace(v, status=EQUAL if v.distance <= v.tolerance else DIFFERS)
            for v in changed.values
        ]
        return replace(changed, values=values)

    def _run(self, precision: str, altered: Intercept | None = None) -> Run:
        """Return what both sides compute, with the tolerances of the ladder."""
        self.load(precision)
        recorder = self._sides[True].recorder(self.wanted[0])
        self._sides[True].forward(precision, recorder, train=True, altered=altered)
        self.load(precision)  # a call in training has changed the statistics
        plain = self._sides[False]
        altered = altered.afresh() if altered else None
        ours = plain.forward(precision, plain.recorder(()), train=True, altered=altered)
        last = {place.path: place for place in recorder.kept if place.moment == OUT}
        jax, together, values = Kept(), {}, []
        for name, path in self._layers.items():
            theirs = self.theirs.get(f"{precision}/layers/{name}")
            if path in last and theirs is not None:
                together[last[path]] = other = Place(name, OUT, 0)
                jax.put(other, theirs, str(theirs.dtype))
                twin = f"layers/{name}" if precision == "float32" else None
                own = recorder.kept[last[path]]
                values.append(self._value(name, last[path], own, theirs, twin))
        given = Called(self._part(f"{precision}/forward/"), self._part(f"{precision}/{STATE}"))
        for name, own in ours.outputs.items():
            if name in given.outputs:
                place = Place(f"{OUTPUT}{name}", OUT, 0)
                values.append(self._value(place.path, place, own, given.outputs[name]))
        for line in self.lines:
            if line.jax in given.buffers:
                place, own = Place(f"{BUFFER}{line.torch}", OUT, 0), ours.buffers[line.torch]
                theirs = given.buffers[line.jax]
                values.append(self._value(place.path, place, line.to_jax(own), theirs))
        return Run(
            precision=precision,
            train=True,
            together=together,
            torch=recorder.kept,
            jax=jax,
            outputs=(ours, given),
            values=values,
        )

    def _part(self, prefix: str) -> dict[str, np.ndarray]:
        found = {n.removeprefix(prefix): a for n, a in self.theirs.items() if n.startswith(prefix)}
        return {name: a for name, a in found.items() if np.issubdtype(a.dtype, np.floating)}

    def _value(
        self, name: str, place: Place, own: np.ndarray, theirs: np.ndarray, twin: str | None = None
    ) -> Value:
        allowed = TOLERANCE["float64" if theirs.dtype == np.float64 else "float32"]
        if twin:
            allowed = tolerance_from_twin(from_twin(self.theirs, twin))
        return Value(
            name=name,
            place=place,
            distance=distance(theirs, own),
            tolerance=allowed,
            layout="",
            shapes=(own.shape, theirs.shape),
            dtypes=(str(own.dtype), str(theirs.dtype)),
        )


def cause(
    comparison: Mapping[str, Any], route: Route, torch_trace: Path, jax_trace: Path
) -> dict[str, Any]:
    """Look for what explains the first rung of a comparison that failed; returns a verdict's words.

    Args:
        comparison: whose cause can be looked for (`lockstep.parity.cause`).
        route: of the PyTorch variant.
    """
    failed, ours = compare.failed_rung(comparison), compare.load(torch_trace)
    assert failed is not None
    traced = Traced(torch_half(route), compare.load(jax_trace))
    run = traced.run(failed)
    first = run.first
    assert first is not None
    key = f"{failed['precision']}/{failed['name']}/{failed['first']}"
    was = distance(traced.theirs.get(key), ours.get(key))
    if not math.isclose(first.distance, was, rel_tol=SAME):
        how = f"op by op on a CPU PyTorch's model is {first.distance:.1e} away, not {was:.1e}"
        return told(f"its cause is not known: {how}")
    found = explain.explain(traced, run)
    one = explain.one(found)
    if one:
        further = [f"equally: {other.port}" for other in found[1:]]
        text = "; ".join([f"cause: {one.kind}. {one.said('JAX')}", *further])
    elif found:
        kinds = "; ".join(f"{other.kind} ({other.port})" for other in found)
        text = f"several known causes would explain it, so none is claimed: {kinds}"
    else:
        text = "no known cause alone explains it"
    names = ("kind", "port", "torch", "remedy", "also")
    causes = [{name: getattr(other, name) for name in names} for other in found]
    return told(text, one.kind if one else None, causes)
