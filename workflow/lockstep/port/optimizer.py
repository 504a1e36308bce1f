"""Some optimizer steps from one state with one gradient on both sides; and which setting differs.

PyTorch's optimizer and optax are given the same parameters and the same random gradients in
float64. Where they part, PyTorch's step is made again by NumPy with one setting changed at a time.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lockstep.datasets import keys
from lockstep.errors import UserError
from lockstep.parity.distances import distance
from lockstep.port import lines as maps
from lockstep.port.compare import FIRM, Comparison
from lockstep.port.explain import CLOSER, Cause
from lockstep.port.gradients import Compared
from lockstep.port.pair import cause_of

STEPS = 3  # a schedule that is off by one, and a bias correction, need more than one
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a step is made: Adam's (with second moments) or that of SGD with momentum.

    Attributes:
        adam: whether there are second moments.
        decoupled: whether decay leaves the gradient alone.
        decay_by_rate: whether decoupled decay is multiplied by the learning rate.
        inside: whether epsilon is added below the root.
        late: whether epsilon is added before the second moment's bias is corrected.
        clip, clip_eps: the largest norm, and what is added to a norm before it divides.
    """

    adam: bool
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    decay: float = 0.0
    decoupled: bool = False
    decay_by_rate: bool = True
    corrected: bool = True
    inside: bool = False
    late: bool = False
    momentum: float = 0.0
    nesterov: bool = False
    clip: float | None = None
    clip_eps: float = 1e-6


def compared(comparison: Comparison) -> tuple[list[Compared], list[Cause]]:
    """Return how far each parameter is after `STEPS` steps, and which settings explain it.

    Raises:
        UserError: an optimizer cannot be made, or cannot make a step.
    """
    buffers = set(comparison.torch.buffers)
    start = {n: v.astype(np.float64) for n, v in comparison.values.items() if n not in buffers}
    lines = [line for line in comparison.lines if line.torch in start and line.jax]
    start = {n: v for n, v in start.items() if n in {line.torch for line in lines}}
    grads = [
        {n: keys.normal(v.size, "gradient", k, n).reshape(v.shape) for n, v in start.items()}
        for k in range(STEPS)
    ]
    path = comparison.torch.pair.path
    try:
        ours, rates, rule = _torch_steps(comparison, start, grads)
    except Exception as error:
        raise UserError(f"{path}: torch_optimizer: {cause_of(error)}") from error
    jax_start = maps.to_jax(lines, start, comparison.shapes)
    jax_grads = [maps.to_jax(lines, g, comparison.shapes) for g in grads]
    try:
        theirs = _optax_steps(comparison, jax_start, jax_grads)
    except Exception as error:
        raise UserError(f"{path}: jax_optimizer: {cause_of(error)}") from error
    made = maps.to_jax(lines, ours, comparison.shapes)
    found = []
    for name, before in jax_start.items():
        moves = made[name] - before, theirs[name] - before
        found.append(
            (name, distance(moves[1], moves[0]), FIRM["float64"], made[name], theirs[name])
        )
    first = next((item for item in found if not item[1] <= item[2]), None)
    if first is None or rule is None:
        return found, []
    own = steps(rule, start, grads, rates)
    if max(distance(own[n] - start[n], ours[n] - start[n]) for n in start) > FIRM["float64"]:
        return found, []  # the optimizer does something that no rule here describes
    causes = []
    for kind, port, torch, remedy, other, late in variants(rule, rates):
        stepped = maps.to_jax(lines, steps(other, start, grads, late), comparison.shapes)
        after = max(
            distance(theirs[name] - before, stepped[name] - before)
            for name, before in jax_start.items()
        )
        if after <= FIRM["float64"] and after <= CLOSER * first[1]:
            causes.append(
                Cause(
                    kind=kind, port=port, torch=torch, remedy=remedy, before=first[1], after=after
                )
            )
    return found, causes


def _torch_steps(
    comparison: Comparison, start: Arrays, grads: list[Arrays]
) -> tuple[Arrays, list[float], Rule | None]:
    """Return parameters after some steps, each step's learning rate, and the rule."""
    import torch
    from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

    make = comparison.torch.pair.torch_optimizer
    assert make is not None
    parameters = {n: torch.nn.Parameter(torch.from_numpy(v.copy())) for n, v in start.items()}
    rates: list[float] = []
    rules: list[Rule | None] = []

    def look(optimizer: Optimizer, *_: Any) -> None:
        norm = _norm(grads[len(rates)])
        told = _norm({n: p.grad.numpy() for n, p in parameters.items() if p.grad is not None})
        clip = None if math.isclose(norm, told, rel_tol=1e-9) else told / norm * (norm + 1e-6)
        rates.append(float(optimizer.param_groups[0]["lr"]))
        rules.append(_rule(optimizer, clip))

    handle = register_optimizer_step_pre_hook(look)
    try:
        made = make(list(parameters.values()))
        for gradient in grads:
            for name, parameter in parameters.items():
                parameter.grad = torch.from_numpy(gradient[name].copy())
            made.step() if isinstance(made, Optimizer) else made()
    finally:
        handle.remove()
    ours = {name: parameter.detach().numpy() for name, parameter in parameters.items()}
    return ours, rates, rules[0] if rules else None


def _rule(optimizer: Any, clip: float | None) -> Rule | None:
    """Return the rule of a PyTorch optimizer; None if none here describes it."""
    group, kind = optimizer.param_groups[0], type(optimizer).__name__
    settings = {"decay": float(group.get("weight_decay", 0.0)), "clip": clip}
    if kind in ("Adam", "AdamW") and not group.get("amsgrad"):
        return Rule(
            adam=True,
            betas=tuple(map(float, group["betas"])),  # type: ignore[arg-type]
            eps=float(group["eps"]),
            decoupled=kind == "AdamW" or bool(group.get("decoupled_weight_decay")),
            **settings,  # type: ignore[arg-type]
        )
    if kind == "SGD" and not group["dampening"]:
        momentum, nesterov = float(group["momentum"]), bool(group["nesterov"])
        return Rule(adam=False, momentum=momentum, nesterov=nesterov, **settings)  # type: ignore[arg-type]
    return None


def _optax_steps(comparison: Comparison, start: Arrays, grads: list[Arrays]) -> Arrays:
    import jax
    import jax.numpy as jnp

    transformation = comparison.torch.pair.jax_optimizer
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    try:
        parameters = {n: jnp.asarray(v) for n, v in start.items()}
        state = transformation.init(parameters)
        for gradient in grads:
            told = {n: jnp.asarray(g) for n, g in gradient.items()}
            updates, state = transformation.update(told, state, parameters)
            parameters = {n: p + updates[n] for n, p in parameters.items()}
        return {n: np.asarray(p) for n, p in parameters.items()}
    finally:
        jax.config.update("jax_enable_x64", before)


def _norm(tensors: Mapping[str, np.ndarray]) -> float:
    return math.sqrt(sum(float(np.square(t).sum()) for t in tensors.values()))


def steps(rule: Rule, start: Arrays, grads: list[Arrays], rates: list[float]) -> Arrays:
    """Return the parameters after a rule's steps, float64.

    Kingma and Ba, Adam (2015); Loshchilov and Hutter, Decoupled weight decay (2019).

    Args:
        rates: the learning rate of each step.
    """
    p = {n: v.copy() for n, v in start.items()}
    first = {n: np.zeros_like(v) for n, v in start.items()}
    second = {n: np.zeros_like(v) for n, v in start.items()}
    for t, (gradient, rate) in enumerate(zip(grads, rates), 1):
        scale = 1.0
        if rule.clip is not None:
            scale = min(1.0, rule.clip / (_norm(gradient) + rule.clip_eps))
        for n in p:
            g = scale * gradient[n] + (0.0 if rule.decoupled else rule.decay * p[n])
            if rule.adam:
                update = _adam(rule, first, second, n, g, t)
            else:
                first[n] = rule.momentum * first[n] + g
                update = g + rule.momentum * first[n] if rule.nesterov else first[n]
            kept = p[n]
            if rule.decoupled:
                kept = kept - (rate if rule.decay_by_rate else 1.0) * rule.decay * p[n]
            p[n] = kept - rate * update
    return p


def _adam(rule: Rule, first: Arrays, second: Arrays, n: str, g: np.ndarray, t: int) -> np.ndarray:
    a, b = rule.betas
    first[n] = a * first[n] + (1 - a) * g
    second[n] = b * second[n] + (1 - b) * g * g
    c1, c2 = (1 - a**t, 1 - b**t) if rule.corrected else (1.0, 1.0)
    if rule.inside:
        return first[n] / c1 / np.sqrt(second[n] / c2 + rule.eps)
    if rule.late:
        return first[n] / c1 / ((np.sqrt(second[n]) + rule.eps) / math.sqrt(c2))
    return first[n] / c1 / (np.sqrt(second[n] / c2) + rule.eps)


Variant = tuple[str, str, str, str, Rule, list[float]]
"""A kind, what the port does, what PyTorch does, the remedy, the rule, and the learning rates."""


def variants(rule: Rule, rates: list[float]) -> Iterator[Variant]:
    """Yield what a port may do otherwise, one setting at a time."""

    def other(kind: str, port: str, torch: str, remedy: str, **changed: Any) -> Variant:
        return kind, port, torch, remedy, replace(rule, **changed), rates

    for value in (0.0, 1e-4, 1e-3, 1e-2, 5e-4, 5e-2, 0.1):
        if not math.isclose(value, rule.decay):
            said = f"weight_decay={rule.decay:g}"
            yield other("weight decay", f"decays by {value:g}", said, said, decay=value)
    if rule.decay:
        text = ("decay added to the gradient", "decay apart from the gradient")
        yield other(
            "kind of weight decay",
            text[rule.decoupled],
            text[not rule.decoupled],
            "optax.adamw" if rule.decoupled else "optax.add_decayed_weights before the optimizer",
            decoupled=not rule.decoupled,
        )
    if rule.decay and rule.decoupled:
        yield other(
            "decay scaled by the rate",
            "decay is not multiplied by the learning rate",
            "multiplies it",
            "add_decayed_weights before scale_by_learning_rate",
            decay_by_rate=False,
        )
    if rule.adam:
        for value in (1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3):
            if not math.isclose(value, rule.eps):
                said = f"eps={rule.eps:g}"
                yield other("epsilon", f"epsilon {value:g}", said, said, eps=value)
        for value in dict.fromkeys((rule.eps, 1e-8, 1e-6)):
            yield other(
                "epsilon below the root",
                f"sqrt(v + {value:g})",
                f"sqrt(v) + {rule.eps:g}",
                f"eps={rule.eps:g}, eps_root=0",
                inside=True,
                eps=value,
            )
        yield other(
            "epsilon before bias correction",
            "adds epsilon before the bias is corrected",
            "adds it afterwards",
            "optax.scale_by_adam",
            late=True,
        )
        yield other(
            "bias correction", "corrects no bias", "corrects it", "optax.scale_by_adam",
            corrected=False,
        )  # fmt: skip
        for k, values in enumerate(((0.8, 0.85, 0.95), (0.95, 0.98, 0.99, 0.9999))):
            for value in values:
                betas = tuple(value if k == j else b for j, b in enumerate(rule.betas))
                said = f"b{k + 1}={rule.betas[k]:g}"
                yield other("betas", f"b{k + 1}={value:g}", said, said, betas=betas)
    else:
        for value in (0.0, 0.5, 0.9, 0.95, 0.99):
            if not math.isclose(value, rule.momentum):
                said = f"momentum={rule.momentum:g}"
                yield other("momentum", f"momentum={value:g}", said, said, momentum=value)
        if rule.momentum:
            said = f"nesterov={rule.nesterov}"
            port = f"nesterov={not rule.nesterov}"
            yield other("Nesterov", port, said, said, nesterov=not rule.nesterov)
    if rule.clip is not None:
        yield other(
            "clipping",
            "clips by norm",
            "clips by norm + 1e-6",
            "g * jnp.minimum(1, c / (optax.global_norm(g) + 1e-6))",
            clip_eps=0.0,
        )
        yield other("clipping", "does not clip", "clips", "optax.clip_by_global_norm", clip=None)
    if len(set(rates)) > 1:
        step = rates[-1] - rates[-2]
        for word, shifted in (
            ("one step early", [*rates[1:], rates[-1] + step]),
            ("one step late", [rates[0], *rates[:-1]]),
            ("one step late", [2 * rates[0] - rates[1], *rates[:-1]]),
        ):
            yield (
                "schedule",
                f"the schedule comes {word}",
                f"rates {', '.join(f'{r:g}' for r in rates)}",
                "shift the schedule's step by one",
                rule,
                shifted,
            )
