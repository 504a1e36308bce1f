"""What parity has proven: whether a verdict is complete and of this study, and what follows.

It is the gate before every comparison. Traces are of the programs that are timed, in float64,
float32 and the variant's own precision on one device, and in float64 on two where a study has runs
over several. Larger scales rest on the first losses of their runs (`lockstep.report.firststep`).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lockstep.parity import OVER_TWO, own
from lockstep.parity.compare import SCHEMA, failure
from lockstep.records.record_schema import VERDICT, unsound
from lockstep.records.record_validation import Unsound, read_json
from lockstep.study import Study
from lockstep.study.identity import trace_key

if TYPE_CHECKING:
    from lockstep.records.load import Records

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
"""What a proof consists of: a comparison in which one of them is missing proves nothing."""
REDUCED = (
    *("weights", "batches", "forward", "gradient", "loss", "update", "steps", "evaluation"),
    "restored",
)
"""The rungs of a variant's own precision, where that is a reduced one."""


def read(study: Study, workload: str) -> dict[str, Any] | None:
    """Return the parity verdict of a workload, None if there is none.

    Raises:
        Unsound: it proves nothing about this study.
    """
    verdict = read_json(study.verdict(workload))
    if verdict is None:
        return None
    found = verdict.get("schema") if isinstance(verdict, dict) else None
    if found != SCHEMA:
        raise Unsound(
            f"not a parity verdict that this version reads (its schema is {found!r}, expected is "
            f"{SCHEMA!r}); run the parity stage again"
        )
    if problem := next(_problems(study, workload, verdict), None):
        raise Unsound(problem)
    return dict(verdict)


def _problems(study: Study, workload: str, verdict: Mapping[str, Any]) -> Iterator[str]:
    """Yield why a verdict proves nothing about a study; the first one counts."""
    if verdict.get("workload") != workload:
        yield f"foreign: it is the verdict of workload {verdict.get('workload')!r}"
    if (field := unsound(verdict, VERDICT)) is not None:
        yield f"it has no sound field {field!r}"
    reference, about = verdict["reference"], verdict.get("about") or {}
    if reference not in study.traces():
        yield f"foreign: the study has no trace of its reference {reference!r}"
    yield from _traced(study, about)
    for variant, comparison in verdict["comparisons"].items():
        yield from _incomplete(variant, comparison, wanted(study, about, variant, reference))
    if verdict["passed"] != all(c["passed"] for c in verdict["comparisons"].values()):
        yield "contradictory: its conclusion is not that of its comparisons"


def wanted(study: Study, about: Mapping[str, Any], *variants: str) -> frozenset[tuple[str, str]]:
    """Return all rungs that a comparison of two variants must have, as precision and name.

    Args:
        about: what each variant's trace says of itself; it may say why a precision is absent, or
            the gradient of the input, which a model of integers has not.
    """
    result = RUNGS | (OVER_SEVERAL if study.traced_over_several else frozenset())
    found = {variant: (about.get(variant) or {}).get("absent") for variant in variants}
    absent = {v: told if isinstance(told, dict) else {} for v, told in found.items()}
    if all("input" in without for without in absent.values()):
        result -= {("float64", "input")}
    for variant, without in absent.items():
        known = study.config["variants"].get(variant)  # `_traced` refuses an unknown one
        precision = study.variant(variant)["precision"] if known else None
        if precision in own.BOUNDS and precision not in without:
            result |= {(precision, rung) for rung in REDUCED}
    return result


def _incomplete(
    variant: str, comparison: Mapping[str, Any], expected: frozenset[tuple[str, str]]
) -> Iterator[str]:
    """Yield where a comparison lacks a rung, or concludes something else than its rungs say."""
    found = Counter((rung["precision"], rung["name"]) for rung in comparison["rungs"])
    for precision, name in sorted(expected - found.keys()):
        yield f"{variant} was not compared on rung {precision} {name}"
    if max(found.values()) > 1:
        yield f"contradictory: {variant} has a rung twice"
    if comparison["passed"] != all(rung["passed"] for rung in comparison["rungs"]):
        yield f"contradictory: {variant}'s conclusion is not that of its rungs"
    for rung in comparison["rungs"]:
        where = f"{variant} on rung {rung['precision']} {rung['name']}"
        if not rung["passed"]:
            if rung.get("first") is None or rung.get("first_value") is None:
                yield f"contradictory: {where} fails, but nothing differs"
        elif rung["worst"] == "nothing":
            yield f"{where} passes, but nothing was compared"
        elif not number(rung["value"]) <= number(rung["tolerance"]) < np.inf:
            yield f"contradictory: {where} passes at a distance beyond its tolerance"


def _traced(study: Study, about: Mapping[str, Any]) -> Iterator[str]:
    """Yield where a trace is not of the variant and the seed that the study now has."""
    for variant, traced in about.items():
        if variant not in study.config["variants"]:
            yield f"foreign: the study has no variant {variant!r}"
        try:
            key, seed = trace_key(traced["variant"]), traced["seed"]
        except (AttributeError, KeyError, TypeError) as error:
            yield f"it does not say what it traced as {variant} ({error!r})"
            return
        if key != trace_key(study.variant(variant)):
            yield f"made with other settings than {variant} now has; trace again"
        if seed != study.config["seeds"][0]:
            yield f"made with seed {seed}, the study's first is {study.config['seeds'][0]}"


def number(value: Any) -> float:
    """Return a distance of a verdict; JSON has no infinity."""
    return np.inf if value == "infinity" else float(value)


# What follows from it -------------------------------------------------------------------------


def parity_problem(records: "Records", workload: str, variant: str) -> str | None:
    """Return why a variant may not be compared as far as parity goes, None if it may."""
    verdict = records.parity.get(workload)
    if verdict is None:
        return f"parity of {workload} is not proven: there is no readable verdict"
    trace = records.study.traced[variant]
    if trace == verdict["reference"]:
        return None
    comparison = verdict["comparisons"].get(trace)
    if comparison is None:
        return f"parity of {variant} is not proven: the verdict does not name it"
    found = failure(comparison)
    return f"parity FAILS: {variant} is not {verdict['reference']}: {found}" if found else None


def other_device(records: "Records", workload: str, variant: str, scale: str) -> str | None:
    """Return why a proof is not of what a variant's runs computed on, None if it may be.

    The kernels of a GPU, and its TF32, are in no trace that a CPU has made.
    """
    about = (records.parity.get(workload) or {}).get("about") or {}
    proven = (about.get(records.study.traced[variant]) or {}).get("device")
    runs = records.by_side[workload, variant, scale].values()
    engines = [run.summary["contract"]["engine"] for run in runs if run.summary]
    found = sorted({str(engine.get("device", "cpu")) for engine in engines})
    others = [name for name in found if (name == "cpu") != (proven == "cpu")]
    if proven is None or not others:
        return None
    return (
        f"parity of {variant} was traced on {proven} and its runs computed on {listed(others)}: "
        "what that computes was not compared; run the parity stage where the runs are"
    )


def compared(records: "Records", workload: str) -> list[str]:
    """Return the variants whose traces were compared with the reference's, and passed."""
    comparisons = (records.parity.get(workload) or {"comparisons": {}})["comparisons"]
    return [variant for variant, comparison in comparisons.items() if comparison["passed"]]


def claim(records: "Records", workload: str) -> str:
    """Return in words what was proven of a workload, where all its variants pass."""
    verdict, study = records.parity[workload], records.study
    traced, parts = compared(records, workload), []
    if traced:
        parts.append(
            f"{how_traced(records, workload)}, {listed(traced)} "
            f"compute{'s' if len(traced) == 1 else ''} what {verdict['reference']} computes"
        )
    for trace in dict.fromkeys(study.traced.values()):
        others = [v for v, stands in study.traced.items() if stands == trace != v]
        if others:
            parts.append(
                f"no trace was made of {listed(others)}: the trace of {trace} stands for "
                f"{'it' if len(others) == 1 else 'them'}, as they differ in the source of the "
                "batches at most"
            )
    return "; ".join(parts)


def how_traced(records: "Records", workload: str) -> str:
    """Return in words how the traces of a workload were made."""
    comparisons, config = records.parity[workload]["comparisons"].values(), records.study.config
    several = any(rung["precision"] == OVER_TWO for c in comparisons for rung in c["rungs"])
    where = "on one device and, in float64, on two" if several else "on one device"
    return (
        f"traced {where} with the weights of seed {config['seeds'][0]}, over "
        f"{config['parity']['steps']} steps in float64 and {config['parity']['float32_steps']} in "
        "float32"
    )


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them: one, two and three."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def curves(records: "Records", workload: str) -> dict[str, np.ndarray]:
    """Return how far each step's loss may differ, by precision, as the parity stage found it.

    `float32_tolerance`, and for each reduced precision how far it moved the loss from float32's;
    of all comparisons of a workload the largest, ``(steps,)``.
    """
    comparisons = (records.parity.get(workload) or {"comparisons": {}})["comparisons"].values()
    found = {}
    for name in ("float32_tolerance", *own.BOUNDS):
        known = [np.array(c["curves"][name], float) for c in comparisons if c["curves"].get(name)]
        if known:
            length = min(map(len, known))
            found[name] = np.max([curve[:length] for curve in known], axis=0)
    return found
