"""What was found on one rung of the ladder."""

import math
from dataclasses import dataclass

from lockstep.parity.distances import Item


@dataclass(frozen=True, kw_only=True)
class Rung:
    """What was found on one rung.

    Attributes:
        precision: float64, float64x2 (over two devices), float32, or a reduced one.
        name: of the rung.
        value: the largest distance over its tensors (or steps).
        tolerance: that it was held to, at that tensor.
        worst: the tensor (or step) with the largest share of its tolerance.
        first: the first tensor (or step) beyond its tolerance, None if there is none.
        first_value: its distance.
        first_tolerance: that it was held to.
    """

    precision: str
    name: str
    value: float
    tolerance: float
    worst: str
    first: str | None
    first_value: float | None
    first_tolerance: float | None

    @property
    def passed(self) -> bool:
        """Whether nothing was beyond its tolerance."""
        return self.first is None


def judge(precision: str, rung: str, found: list[Item], kind: str) -> Rung:
    """Return what was found; of nothing that could be compared, that there is nothing."""
    found = found or [(f"number of {kind}", math.inf, 0.0)]
    beyond = [item for item in found if not (math.isfinite(item[1]) and item[1] <= item[2])]
    worst = max(found, key=lambda item: item[1] / max(item[2], 1e-300))
    first = beyond[0] if beyond else (None, None, None)
    return Rung(
        precision=precision,
        name=rung,
        value=worst[1],
        tolerance=worst[2],
        worst=worst[0],
        first=first[0],
        first_value=first[1],
        first_tolerance=first[2],
    )
