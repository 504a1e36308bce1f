"""Whether a parity verdict can be taken at its word: whole, of all rungs, and this study's."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from lockstep.parity import OVER_TWO, own
from lockstep.report import record_schema as shape
from lockstep.report.record_validation import Unsound, parsed
from lockstep.study import Study
from lockstep.study.identity import trace_key

SCHEMA = "lockstep-parity/4"

SHARED = (
    *("weights", "batches", "forward", "loss", "gradient", "step", "update", "steps", "final"),
    *("evaluation", "restored"),
)
EXACT = (*SHARED, "edge", "after", "general")
OVER_SEVERAL = frozenset((OVER_TWO, rung) for rung in EXACT)
RUNGS = frozenset(
    [("float64", rung) for rung in (*EXACT, "input", "canary")]
    + [("float32", rung) for rung in (*SHARED, "canary")]
)
"""What a proof consists of: a comparison that lacks one of them proves nothing."""
REDUCED = ("weights", "batches", "forward", "gradient", "loss", "update", "steps", "restored")
"""The rungs of a variant's own precision, where that is a reduced one."""


def read(study: Study, workload: str) -> dict[str, Any] | None:
    """Return the parity verdict of a workload, None if there is none.

    Raises:
        Unsound: it proves nothing about this study.
    """
    path = study.verdict(workload)
    if not path.is_file():
        return None
    try:
        verdict = parsed(path.read_bytes())
    except OSError as error:
        raise Unsound(f"not readable ({error.strerror})") from error
    if not isinstance(verdict, dict) or verdict.get("schema") != SCHEMA:
        found = verdict.get("schema") if isinstance(verdict, dict) else None
        raise Unsound(
            f"not a parity verdict that this version reads (its schema is {found!r}, expected is "
            f"{SCHEMA!r}); run the parity stage again"
        )
    if verdict.get("workload") != workload:
        raise Unsound(f"foreign: it is the verdict of workload {verdict.get('workload')!r}")
    if not isinstance(verdict.get("comparisons"), dict) or "reference" not in verdict:
        raise Unsound("it holds no comparisons")
    _shaped(verdict)
    if verdict["reference"] not in study.traces():
        raise Unsound(f"foreign: the study has no trace of its reference {verdict['reference']!r}")
    about = verdict.get("about") or {}
    _mine(study, about)
    for variant, comparison in verdict["comparisons"].items():
        _complete(variant, comparison, wanted(study, about, variant, verdict["reference"]))
    if verdict["passed"] != all(c["passed"] for c in verdict["comparisons"].values()):
        raise Unsound("contradictory: its conclusion is not that of its comparisons")
    return verdict


def wanted(study: Study, about: Mapping[str, Any], *variants: str) -> frozenset[tuple[str, str]]:
    """Return all rungs that a comparison of two variants must have, as precision and name.

    Args:
        about: what each variant's trace says of itself.
    """
    several = OVER_SEVERAL if study.traced_over_several else frozenset()
    return RUNGS.union(several, *(_reduced(study, about, variant) for variant in variants))


def _reduced(study: Study, about: Mapping[str, Any], variant: str) -> frozenset[tuple[str, str]]:
    """Return the rungs of a variant's own precision, unless its trace says why it has none."""
    if variant not in study.config["variants"]:
        return frozenset()  # `_mine` refuses it
    precision = study.variant(variant)["precision"]
    absent = (about.get(variant) or {}).get("absent")
    if precision not in own.BOUNDS or (isinstance(absent, dict) and precision in absent):
        return frozenset()
    return frozenset((precision, rung) for rung in REDUCED)


def _shaped(verdict: Mapping[str, Any]) -> None:
    parts: list[tuple[str, Any, str]] = [("it", verdict, shape.VERDICT)]
    for variant, comparison in verdict["comparisons"].items():
        parts.append((f"its comparison of {variant}", comparison, shape.COMPARISON))
        rungs = comparison.get("rungs") if isinstance(comparison, dict) else None
        rungs = rungs if isinstance(rungs, list) else []
        parts += [(f"a rung of {variant}", rung, shape.RUNG) for rung in rungs]
    for what, value, table in parts:
        if not isinstance(value, dict):
            raise Unsound(f"{what} is no object")
        field = shape.unsound(value, table)
        if field:
            raise Unsound(f"{what} has no sound field {field!r}")


def _complete(
    variant: str, comparison: Mapping[str, Any], wanted: frozenset[tuple[str, str]]
) -> None:
    """Check that a comparison climbed the whole ladder and says what its rungs say."""
    found = Counter((rung["precision"], rung["name"]) for rung in comparison["rungs"])
    lacking = sorted(wanted - found.keys())
    if lacking:
        raise Unsound(f"{variant} was not compared on rung {' '.join(lacking[0])}")
    if max(found.values()) > 1:
        raise Unsound(f"contradictory: {variant} has a rung twice")
    if comparison["passed"] != all(rung["passed"] for rung in comparison["rungs"]):
        raise Unsound(f"contradictory: {variant}'s conclusion is not that of its rungs")
    for rung in comparison["rungs"]:
        where = f"{variant} on rung {rung['precision']} {rung['name']}"
        if not rung["passed"]:
            if rung.get("first") is None or rung.get("first_value") is None:
                raise Unsound(f"contradictory: {where} fails, but nothing differs")
            continue
        if rung["worst"] == "nothing":
            raise Unsound(f"{where} passes, but nothing was compared")
        numbers = (rung["value"], rung["tolerance"])
        if "infinity" in numbers or not rung["value"] <= rung["tolerance"]:
            raise Unsound(f"contradictory: {where} passes at a distance beyond its tolerance")


def _mine(study: Study, about: Mapping[str, Any]) -> None:
    """Check that the traces are of the variants and the seed that the study now has."""
    for variant, told in about.items():
        if variant not in study.config["variants"]:
            raise Unsound(f"foreign: the study has no variant {variant!r}")
        try:
            key, seed = trace_key(told["variant"]), told["seed"]
        except (AttributeError, KeyError, TypeError) as error:
            raise Unsound(f"it does not say what it traced as {variant} ({error!r})") from error
        if key != trace_key(study.variant(variant)):
            raise Unsound(f"made with other settings than {variant} now has; trace again")
        if seed != study.config["seeds"][0]:
            raise Unsound(f"made with seed {seed}, the study's first is {study.config['seeds'][0]}")
