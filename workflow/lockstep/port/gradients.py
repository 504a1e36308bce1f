"""Gradients of a scalar of the outputs: the pair's own loss, or a fixed random projection."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lockstep.datasets import keys
from lockstep.parity.distances import distance, tolerance_from_twin
from lockstep.port import align, seen
from lockstep.port import lines as maps
from lockstep.port.compare import Comparison, Run
from lockstep.port.value import FIRM, OUTPUT

SMALL = 1e-4  # share of the whole gradient that a tensor's counts as, at least

Compared = tuple[str, float, float, np.ndarray, np.ndarray]
"""A tensor's name, its distance and tolerance, and both sides' arrays."""


def compared(comparison: Comparison, precision: str, *, train: bool = False) -> list[Compared]:
    """Return how far each parameter's gradient differs, that of the last layer first.

    A tensor whose gradient is less than a ten-thousandth of the whole, such as that of a key's
    bias, which is rounding alone, is held to its share.
    """
    run = comparison.run(precision, train=train)
    ours, theirs = _scalars(comparison, run)

    def both() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        a = comparison.torch.gradients(precision, ours, train=train)
        b = comparison.jax.gradients(precision, theirs, train=train)
        return maps.to_jax(comparison.lines, a, comparison.shapes), b

    comparison.load(precision)
    a, b = both()
    moved: dict[str, float] = {}
    if precision != "float64":
        comparison.load(precision, twin=True)
        twins = both()
        moved = {n: min(distance(t[n], g[n]) for t, g in zip(twins, (a, b))) for n in a if n in b}
    whole = np.sqrt(sum(float(np.square(g.astype(np.float64)).sum()) for g in b.values()))
    found = []
    order = {line.jax: k for k, line in enumerate(comparison.lines)}
    for name in sorted(a, key=lambda name: -order[name]):
        if name not in b:
            continue
        size = max(np.linalg.norm(a[name]), np.linalg.norm(b[name]))
        share = min(1.0, float(size) / max(SMALL * float(whole), 1e-300))
        firm = FIRM[precision]
        allowed = tolerance_from_twin(moved[name]) if moved else firm
        found.append((name, distance(b[name], a[name]) * share, allowed, a[name], b[name]))
    return found


def _scalars(
    comparison: Comparison, run: Run
) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]:
    """Return the scalar of each framework, of outputs and batch."""
    pair = comparison.torch.pair
    if pair.torch_loss and pair.jax_loss:
        return pair.torch_loss, pair.jax_loss
    layouts = {
        v.place.path.removeprefix(OUTPUT): v.layout
        for v in run.values
        if v.place.path.startswith(OUTPUT)
    }
    names, others = list(run.outputs[0].outputs), run.outputs[1].outputs
    if set(names) == set(others):
        others = {name: others[name] for name in names}
    ours, theirs = {}, {}
    for name, (other, output) in zip(names, others.items()):
        own = run.outputs[0].outputs[name]
        weights = keys.normal(own.size, "projection", name).reshape(own.shape)
        ours[name] = weights
        theirs[other] = dict(align.candidates(weights, tuple(output.shape)))[layouts[name]]

    def in_torch(outputs: Any, batch: Any) -> Any:
        import torch

        return _projected(outputs, ours, lambda w, x: torch.from_numpy(w.copy()).to(x.dtype))

    def in_jax(outputs: Any, batch: Any) -> Any:
        import jax.numpy as jnp

        return _projected(outputs, theirs, lambda w, x: jnp.asarray(w, x.dtype))

    return in_torch, in_jax


def _projected(outputs: Any, weights: Mapping[str, np.ndarray], convert: Callable) -> Any:
    found = {name: x for name, x in seen.leaves(outputs) if name in weights}
    return sum((x * convert(weights[name], x)).sum() / len(found) for name, x in found.items())
