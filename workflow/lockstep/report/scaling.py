"""Scaling over devices: the same batch over more of them, or the same batch on every one."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from lockstep.report import comparability
from lockstep.report.comparability import BLOCKS, FLAGGED, difference_text
from lockstep.report.dataframes import finished
from lockstep.report.load import FINISHED, Records
from lockstep.report.run_facts import Facts, facts_of
from lockstep.report.tables import RUNS, WHO, Absent, Table, table

STRONG = re.compile(
    r"topology\.(devices|examples)|host\.node|gpu\.units|engine\.(devices|backend)|cache"
)
"""Facts that another scale has of necessity, or that touch compilation alone."""

WEAK = re.compile(
    rf"{STRONG.pattern}|recipe\.(global_batch|optimizer|epochs)|weights\.initial|batches|steps"
)
"""The same where the global batch grows with the scale."""

Place = tuple[str, str, str]
"""Workload, variant and scale."""


def facts(records: Records) -> dict[Place, dict[int, Facts]]:
    """Return the facts of finished runs by place and seed."""
    found: dict[Place, dict[int, Facts]] = {}
    for run in records.runs:
        if run.status == FINISHED and not run.begun_elsewhere:
            place = (run.workload, run.variant, run.scale)
            found.setdefault(place, {})[run.seed] = facts_of(run)
    return found


def _difference(
    known: Mapping[Place, Mapping[int, Facts]], base: Place, other: Place, needed: re.Pattern[str]
) -> tuple[Absent | None, str]:
    """Return why two scales of a variant must not be compared, if so, and what else differed."""
    a, b = known[base], known[other]
    pairs = [(a[s], b[s]) for s in a.keys() & b.keys()]
    if not pairs:  # then what depends on the seed is not looked at
        one, two = next(iter(a.values())), next(iter(b.values()))
        seedless = {name: two.get(name) for name in ("weights.initial", "batches")}
        pairs = [({**one, **seedless}, two)]
    found = [d for d in comparability.diff(pairs) if not needed.match(d.fact)]
    grave = [difference_text(d) for d in found if d.level == BLOCKS]
    flags = [difference_text(d) for d in found if d.level == FLAGGED]
    return (Absent(reason=grave[0]) if grave else None), "; ".join(flags)


def scaling(records: Records, workload: str, frame: pd.DataFrame) -> Table | None:
    """Return strong-scaling efficiency: the global batch is the same at every scale.

    efficiency = (throughput / throughput at the smallest scale) / (devices / devices there).
    """
    if len(records.study.config["scales"]) < 2:
        return None
    known, rows = facts(records), []
    timed = finished(frame).dropna(subset=["examples_per_second"])
    for variant in records.study.config["variants"]:
        points = _points(timed[timed["variant"] == variant], "examples_per_second")
        for (_, scale, devices), n, speed in points:
            (_, base, few), _, slow = points[0]
            here, there = ((workload, variant, s) for s in (scale, base))
            forbidden, flags = _difference(known, there, here, STRONG)
            rows.append(
                {
                    **{"scale": scale, "variant": variant, "n": n, "devices": devices},
                    "examples_per_second": speed,
                    "speedup": forbidden or speed / slow,
                    "efficiency": forbidden or speed / slow / (devices / few),
                    "against": base,
                    "flags": flags,
                }
            )
    return table(
        f"{workload}-scaling",
        "Strong scaling: the same global batch over more devices",
        f"""{WHO}{RUNS}
        devices | Devices | | d
        examples_per_second | Throughput | examples/s | 0f
        speedup | Speed-up | × | 2f
        efficiency | Efficiency | % | 0f
        against | against scale
        flags | Flagged between the scales""",
        rows,
        "Medians over runs. Efficiency is absent where the scales ran by other means.",
    )


def _points(frame: pd.DataFrame, column: str) -> list[tuple[Any, int, float]]:
    """Return workload, scale and devices, the number of runs and their median, by devices."""
    grouped = frame.groupby(["workload", "scale", "devices"], sort=False)[column]
    points = [(key, len(values), float(values.median())) for key, values in grouped]
    return sorted(points, key=lambda point: point[0][2])


def weak_scaling(records: Records, frame: pd.DataFrame) -> Table | None:
    """Return weak-scaling efficiency over workload entries that differ in global batch alone.

    efficiency = step time at the smallest scale / step time, at equal examples per device.
    """
    rows = list(_weak_rows(records, frame))
    if not rows:
        return None
    return table(
        "weak-scaling",
        "Weak scaling: the same batch on every device",
        f"""workload | Workload
        {WHO}{RUNS}
        devices | Devices | | d
        local_batch | Examples per device | | 0f
        step_median | Step | ms | 4g
        efficiency | Efficiency | % | 0f
        flags | Flagged between the scales""",
        rows,
        "Against the smallest scale of the same variant; medians over runs. Efficiency is absent "
        "where the scales ran by other means.",
    )


def _weak_rows(records: Records, frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    families: dict[str, list[str]] = {}
    for name, recipe in records.study.config["workloads"].items():
        same = {k: v for k, v in recipe.items() if k not in ("global_batch", "optimizer", "epochs")}
        families.setdefault(repr(sorted(same.items())), []).append(name)
    done, known = finished(frame).dropna(subset=["step_median"]), facts(records)
    for names in (names for names in families.values() if len(names) > 1):
        members = done[done["workload"].isin(names)]
        local = members["global_batch"] / members["devices"]
        for (variant, batch), part in members.groupby([members["variant"], local], sort=False):
            points = _points(part, "step_median")
            if len({devices for (_, _, devices), _, _ in points}) < 2:
                continue
            (first, base, _), _, fast = points[0]
            for (workload, scale, devices), n, seconds in points:
                there, here = (first, variant, base), (workload, variant, scale)
                forbidden, flags = _difference(known, there, here, WEAK)
                yield {
                    **{"workload": workload, "scale": scale, "variant": variant, "n": n},
                    "devices": int(devices),
                    "local_batch": float(batch),
                    "step_median": seconds,
                    "efficiency": forbidden or fast / seconds,
                    "flags": flags,
                }
