"""Steps of Adam and of SGD by NumPy, and what a port may do otherwise in them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

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


def norm(tensors: Mapping[str, np.ndarray]) -> float:
    """Return the L2 norm over several tensors."""
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
            scale = min(1.0, rule.clip / (norm(gradient) + rule.clip_eps))
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
