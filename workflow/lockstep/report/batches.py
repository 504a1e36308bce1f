"""Whether a variant's runs of a seed read the same batches at every scale.

The shared input is a pure function of seed, epoch, step and global batch. A fault in it that hits
both sides of a comparison alike shows only between scales; one that hits one side alone is a
difference of contracts (`lockstep.report.contract`).
"""

from collections import defaultdict

from lockstep.report.load import FINISHED, Record, Records


def problems(records: Records) -> dict[tuple[str, str], str]:
    """Return what is wrong, by workload and variant; nothing of those whose runs agree."""
    groups: dict[tuple[str, str, int, int], dict[str, Record]] = defaultdict(dict)
    for run in records.runs:
        shared = records.study.variant(run.variant)["input"] == "shared"
        if run.status == FINISHED and shared:
            group = groups[run.workload, run.variant, run.seed, run.summary["steps"]]
            group.setdefault(run.summary["batches"], run)
    found: dict[tuple[str, str], str] = {}
    for (workload, variant, seed, _), others in groups.items():
        if len({run.scale for run in others.values()}) > 1:
            one, other, *_ = others.values()
            found[workload, variant] = (
                f"{variant} did not read the same batches at every scale: those of seed {seed} "
                f"differ between {one.scale} and {other.scale}"
            )
    return found
