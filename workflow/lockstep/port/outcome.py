"""What a check of a pair found, as values and as JSON."""

import math
from dataclasses import dataclass, field
from typing import Any

from lockstep.port import explain
from lockstep.port.explain import Cause
from lockstep.port.jax_side import JaxSide
from lockstep.port.lines import Line
from lockstep.port.pair import Pair
from lockstep.port.torch_side import TorchSide
from lockstep.port.value import DIFFERS, Value


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Both sides and the map between them.

    Attributes:
        proposed: whether the map is still to be accepted.
    """

    pair: Pair
    torch: TorchSide
    jax: JaxSide
    lines: list[Line]
    orders: tuple[dict[str, int], dict[str, int]]
    proposed: bool


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one comparison found.

    Attributes:
        name: of it: "weights", "float64", "float32, training", "gradients, float64".
        values: compared ones.
        last_equal: the name of the last value before the first that differs.
        causes: changes of PyTorch that make the first differing value agree.
        rounded: whether what differs is what a constant rounded to float32 explains.
    """

    name: str
    values: list[Value]
    last_equal: str | None = None
    causes: list[Cause] = field(default_factory=list)
    rounded: bool = False

    @property
    def first(self) -> Value | None:
        """The first value that differs."""
        return next((value for value in self.values if value.status == DIFFERS), None)

    @property
    def passed(self) -> bool:
        """Whether nothing differs beyond what rounding explains."""
        return self.first is None or self.rounded

    @property
    def cause(self) -> Cause | None:
        """The one cause, None if there is none or more than one."""
        return explain.one(self.causes)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All findings about a pair."""

    prepared: Prepared
    findings: list[Finding]
    notes: list[str]

    @property
    def passed(self) -> bool:
        """Whether the port is the same model."""
        return all(finding.passed for finding in self.findings)


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as JSON has it: no infinities."""

    def number(value: float) -> float | str | None:
        if math.isnan(value):
            return None
        return value if math.isfinite(value) else "infinity"

    def shown(value: Value) -> dict[str, Any]:
        return {
            "name": value.name,
            "distance": number(value.distance),
            "tolerance": number(value.tolerance),
            "shapes": [list(shape) for shape in value.shapes],
            "dtypes": list(value.dtypes),
            "layout": value.layout,
            "status": value.status,
            "why": value.why,
        }

    return {
        "passed": outcome.passed,
        "parameters": len(outcome.prepared.lines),
        "notes": outcome.notes,
        "findings": [
            {
                "name": f.name,
                "passed": f.passed,
                "rounded": f.rounded,
                "first": shown(f.first) if f.first else None,
                "last_equal": f.last_equal,
                "cause": str(f.cause) if f.cause else None,
                "causes": [
                    {k: number(v) if isinstance(v, float) else v for k, v in vars(c).items()}
                    for c in f.causes
                ],
                "values": [shown(value) for value in f.values],
            }
            for f in outcome.findings
        ],
    }
