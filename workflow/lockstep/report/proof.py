"""Whether parity is proven, for a variant of a workload: the gate before every verdict.

And what that proof is of: traces of the programs that are timed, in float64, float32 and the
variant's own precision on one device, and in float64 on two where a study has runs over several.
Scales rest on the first losses of their runs besides (`lockstep.report.firststep`).
"""

from collections.abc import Sequence

from lockstep.parity import OVER_TWO, own
from lockstep.parity.compare import failure
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
    found = failure(comparison)
    return f"parity FAILS: {variant} is not {verdict['reference']}: {found}" if found else None


def parity_word(records: Records, workload: str, variant: str) -> str:
    """Return PASS, FAIL or NOT PROVEN for a variant."""
    problem = parity_problem(records, workload, variant)
    return "PASS" if problem is None else "FAIL" if "FAILS" in problem else "NOT PROVEN"


def compared(records: Records, workload: str) -> list[str]:
    """Return the variants whose traces were compared with the reference's, and passed."""
    verdict = records.parity.get(workload)
    known = verdict["comparisons"] if verdict else {}
    return [v for v, comparison in known.items() if comparison["passed"]]


def claim(records: Records, workload: str) -> str:
    """Return in words what was proven of a workload, where all its variants pass."""
    verdict, study = records.parity[workload], records.study
    traced, parity = compared(records, workload), study.config["parity"]
    parts = []
    if traced:
        parts.append(
            f"traced {processes(records, workload)} with the weights of seed "
            f"{study.config['seeds'][0]}, over {parity['steps']} steps in float64 and "
            f"{parity['float32_steps']} in float32, {_listed(traced)} "
            f"compute{'s' if len(traced) == 1 else ''} what {verdict['reference']} computes"
        )
    for stands, others in _without_trace(records).items():
        one = len(others) == 1
        parts.append(
            f"{_listed(others)} {'has no trace of its' if one else 'have no traces of their'} own: "
            f"{'it differs' if one else 'they differ'} from {stands}, whose trace stands for "
            f"{'it' if one else 'them'}, in where their batches come from alone"
        )
    return "; ".join(parts)


def processes(records: Records, workload: str) -> str:
    """Return in words on how many processes the traces of a workload were made."""
    comparisons = records.parity[workload]["comparisons"].values()
    several = any(rung["precision"] == OVER_TWO for c in comparisons for rung in c["rungs"])
    return "on one device and, in float64, on two" if several else "on one device"


def _without_trace(records: Records) -> dict[str, list[str]]:
    """Return the variants that another's trace stands for, by that other one."""
    result: dict[str, list[str]] = {}
    for variant, trace in records.study.traced.items():
        if variant != trace:
            result.setdefault(trace, []).append(variant)
    return result


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def curves(records: Records, workload: str) -> dict[str, list[float]]:
    """Return how far each step's loss may differ, by precision, as the parity stage found it.

    `float32_tolerance`, and for each reduced precision how far it moved the loss from float32's;
    of all comparisons of a workload the largest.
    """
    verdict = records.parity.get(workload)
    found: dict[str, list[float]] = {}
    for comparison in (verdict["comparisons"] if verdict else {}).values():
        for name in ("float32_tolerance", *own.BOUNDS):
            curve = comparison["curves"].get(name)
            if curve:
                known = found.get(name, curve)
                found[name] = [max(pair) for pair in zip(known, curve)]
    return found
