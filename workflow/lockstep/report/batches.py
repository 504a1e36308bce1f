"""Whether all runs of a workload and a seed read the same batches, at whatever scale.

The shared input is a pure function of seed, epoch, step and global batch. A fault in it that hits
both sides of a comparison alike shows only between scales.
"""

from collections import defaultdict

from lockstep.report.load import FINISHED, Record, Records


def problems(records: Records) -> dict[str, str]:
    """Return what is wrong, by workload; nothing of those whose runs all read the same."""
    groups: dict[tuple[str, int, int], dict[str, Record]] = defaultdict(dict)
    for run in records.runs:
        shared = records.study.variant(run.variant)["input"] == "shared"
        if run.status == FINISHED and shared:
            group = groups[run.workload, run.seed, run.summary["steps"]]
            group.setdefault(run.summary["batches"], run)
    found: dict[str, str] = {}
    for (workload, seed, _), others in groups.items():
        if len(others) > 1 and workload not in found:
            one, other, *_ = others.values()
            found[workload] = (
                f"runs of seed {seed} did not all read the same batches: {one.variant} at "
                f"{one.scale} and {other.variant} at {other.scale} read others"
            )
    return found
