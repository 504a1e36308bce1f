"""Are a route's logits those of training's own evaluation?"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

TOLERANCE = {"float32": 1e-5, "float64": 1e-11}
"""Largest difference over the largest logit, by precision."""


@dataclass(frozen=True, kw_only=True)
class Equality:
    """How far a route's logits are from the reference.

    Attributes:
        examples: that were compared: the whole test split.
        largest: difference of two logits.
        scale: the largest logit's size.
        decided_otherwise: examples of which another class, or another sign, is the answer.
        first: the first example that differs, None if none does.
    """

    precision: str
    examples: int
    largest: float
    scale: float
    decided_otherwise: int
    first: int | None

    @property
    def passed(self) -> bool:
        """Whether no example differs."""
        return self.first is None

    @property
    def why_not(self) -> str:
        """What to say of a route that differs."""
        return (
            f"its logits are not those of training's evaluation: they differ by "
            f"{self.largest / self.scale:.1e} of the largest logit (allowed: "
            f"{TOLERANCE[self.precision]:.0e}), {self.decided_otherwise} of {self.examples} "
            f"answers are others; the first example that differs is {self.first}"
        )

    def told(self) -> dict[str, Any]:
        """Return it for a record."""
        return {**asdict(self), "tolerance": TOLERANCE[self.precision], "passed": self.passed}


def compare(precision: str, reference: np.ndarray, logits: np.ndarray) -> Equality:
    """Compare logits ``(examples, …)`` with those of the reference.

    An example differs if a logit does by more than `TOLERANCE` of the largest logit of all, or if
    it is decided otherwise. NaN differs from everything.
    """
    axes = tuple(range(1, reference.ndim))
    if logits.shape != reference.shape:
        raise ValueError(f"logits {logits.shape} were expected to be {reference.shape}")
    scale = float(np.abs(reference).max()) or 1.0
    apart = np.abs(logits.astype(np.float64) - reference).max(axis=axes)
    decisions = decided(logits) != decided(reference)
    others = decisions.any(axis=tuple(range(1, decisions.ndim)))
    differ = np.flatnonzero(~(apart <= TOLERANCE[precision] * scale) | others)
    return Equality(
        precision=precision,
        examples=len(reference),
        largest=float(np.nan_to_num(apart, nan=np.finfo(np.float64).max).max()),
        scale=scale,
        decided_otherwise=int(others.sum()),
        first=int(differ[0]) if len(differ) else None,
    )


def decided(logits: np.ndarray) -> np.ndarray:
    """Return the class of the largest logit; of one logit an example, whether it is positive."""
    return logits.argmax(axis=-1) if logits.ndim > 1 else logits > 0
