"""Which fields the report reads of a record, and of what kind each must be: one table a file.

A name that ends in ``?`` may be missing or null; what lies below it is then not looked for.
Checked by hand, not by JSON Schema: ten thousand summaries are to be read within seconds.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Kind = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _time(value: Any) -> bool:
    return _number(value) and value >= 0


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _count(value: Any) -> bool:
    return _whole(value) and value >= 0


def _some(value: Any) -> bool:
    return _whole(value) and value > 0


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(map(_object, value))


def _nodes(value: Any) -> bool:
    return _objects(value) and all(_gpus(node.get("gpus") or []) for node in value)


def _gpus(value: Any) -> bool:
    return _objects(value) and all(_text(said) for gpu in value for said in gpu.values())


def _distance(value: Any) -> bool:
    return value == "infinity" or _time(value)


def _curve(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(map(_time, value))


SUMMARY: Mapping[str, Kind] = {
    **dict.fromkeys(("study", "workload", "variant", "scale"), _text),
    "seed": _whole,
    "identity": _text,
    "status": _text,
    "reason?": _text,
    "steps": _count,
    "total_steps": _count,
    "seconds": _object,
    "cache": _text,
    "attempts?": _some,
    "steady": _object,
    "steady.windows?": _count,
    "steady.step_seconds?": _object,
    **dict.fromkeys((f"steady.step_seconds?.{q}" for q in ("median", "q1", "q3", "p95")), _number),
    "steady.examples_per_second?": _time,
    "steady.data_wait_fraction?": _number,
    "flops?": _object,
    "memory": _object,
    "memory.device?": _object,
    "memory.planned?": _object,
    "metrics": _object,
    "target": _object,
    "target.metric": _text,
    "target.value": _number,
    "target.step?": _count,
    "target.training_seconds?": _time,
    "batches": _text,
    "dataset": _object,
    "dataset.content": _text,
    "weights": _object,
    "weights.initial": _text,
    "resumed_from?": _object,
    "resumed_from?.identity": _text,
    "resumed_from?.step": _count,
    "contract": _object,
    **dict.fromkeys((f"contract.{part}" for part in ("variant", "recipe", "engine")), _object),
    "contract.determined_by": _object,
    "contract.determined_by.environment?": _object,
    "contract.topology": _object,
    "contract.topology.world_size": _some,
    "contract.topology.devices?": _some,
    "contract.topology.local_batch": _positive,
    "contract.host": _object,
    "contract.host.job?": _object,
    "contract.host.gpus?": _gpus,
    "contract.host.nodes?": _nodes,
    "contract.host.image?": _object,
}
"""``summary.json``, as far as it is read."""

VERDICT: Mapping[str, Kind] = {
    "reference": _text,
    "passed": _flag,
    "comparisons": _object,
    "about?": _object,
}
"""``verdict.json`` of a workload's parity."""

COMPARISON: Mapping[str, Kind] = {
    "passed": _flag,
    "rungs": _objects,
    "curves": _object,
    "curves.float64?": _curve,
    "curves.float32?": _curve,
    "curves.float32_tolerance?": _curve,
}
"""One of its comparisons."""

RUNG: Mapping[str, Kind] = {
    "precision": _text,
    "name": _text,
    "value": _distance,
    "tolerance": _distance,
    "worst": _text,
    "passed": _flag,
    "first?": _text,
    "first_value?": _distance,
    "first_tolerance?": _distance,
}
"""One rung of a comparison's ladder."""


def unsound(value: Mapping[str, Any], table: Mapping[str, Kind]) -> str | None:
    """Return the first field of `table` that `value` does not have as it should, None if none."""
    return next(_unsound(value, table), None)


def _unsound(value: Mapping[str, Any], table: Mapping[str, Kind]) -> Iterator[str]:
    for path, kind in table.items():
        at: Any = value
        for name in path.split("."):
            optional, name = name.endswith("?"), name.removesuffix("?")
            at = at.get(name)
            if at is None and optional:
                break
        else:
            if not kind(at):
                yield path.replace("?", "")
