"""Some optimizer steps from one state with one gradient on both sides; and which setting differs.

PyTorch's optimizer and optax are given the same parameters and the same random gradients in
float64. Where they part, PyTorch's step is made again by NumPy with one setting changed at a time.
"""

import math
from typing import Any

import numpy as np

from lockstep.datasets import keys
from lockstep.errors import UserError
from lockstep.parity.distances import distance
from lockstep.port import lines as maps
from lockstep.port.compare import Comparison
from lockstep.port.explain import CLOSER, Cause
from lockstep.port.gradients import Compared
from lockstep.port.pair import cause_of
from lockstep.port.update import Arrays, Rule, norm, steps, variants
from lockstep.port.value import FIRM

STEPS = 3  # a schedule that is off by one, and a bias correction, need more than one


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
        whole = norm(grads[len(rates)])
        told = norm({n: p.grad.numpy() for n, p in parameters.items() if p.grad is not None})
        clip = None if math.isclose(whole, told, rel_tol=1e-9) else told / whole * (whole + 1e-6)
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
