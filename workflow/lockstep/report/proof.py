"""Whether parity is proven, for a variant of a workload: the gate before every verdict."""

from typing import Any

from lockstep.report.load import Records


def parity_problem(records: Records, workload: str, variant: str) -> str | None:
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
    for rung in comparison["rungs"]:
        if not rung["passed"]:
            return (
                f"parity FAILS: {variant} is not {verdict['reference']} at {rung['precision']} "
                f"{rung['name']}, where {rung['first']} differs by {_short(rung['first_value'])} "
                f"(allowed {_short(rung.get('first_tolerance', rung['tolerance']))})"
            )
    return None


def _short(value: Any) -> str:
    return f"{value:.1e}" if isinstance(value, float) else str(value)


def parity_word(records: Records, workload: str, variant: str) -> str:
    """Return PASS, FAIL or NOT PROVEN for a variant."""
    problem = parity_problem(records, workload, variant)
    return "PASS" if problem is None else "FAIL" if "FAILS" in problem else "NOT PROVEN"
