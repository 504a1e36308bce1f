"""Strong scaling: the same global batch over more devices."""

import re

from lockstep.report import comparability
from lockstep.report.comparability import BLOCKS, FLAGGED, difference_text
from lockstep.report.dataframes import View, finished
from lockstep.report.load import FINISHED
from lockstep.report.run_facts import Facts, facts_of
from lockstep.report.tables import RUNS, WHO, Absent, Table, table

EXPECTED = re.compile(
    r"topology\.(devices|examples)|host\.node|gpu\.units|engine\.(devices|backend)|cache"
)
"""Facts that another scale has of necessity, or that touch compilation alone."""


def scaling(view: View) -> Table | None:
    """Return strong-scaling efficiency; None if there is one scale.

    efficiency = (throughput / throughput at the smallest scale) / (devices / devices there).
    """
    if len(view.records.study.config["scales"]) < 2:
        return None
    known: dict[tuple[str, str], dict[int, Facts]] = {}
    for run in view.records.runs:
        if run.workload == view.name and run.status == FINISHED and not run.begun_elsewhere:
            known.setdefault((run.variant, run.scale), {})[run.seed] = facts_of(run)
    rows = []
    timed = finished(view.runs).dropna(subset=["examples_per_second"])
    for variant, runs in timed.groupby("variant", sort=False):
        grouped = runs.groupby(["devices", "scale"])["examples_per_second"]
        points = [(key, len(rates), float(rates.median())) for key, rates in grouped]
        (few, base), _, slow = points[0]
        for (devices, scale), n, rate in points:
            forbidden, flags = _difference(known[variant, base], known[variant, scale])
            row = {"scale": scale, "variant": variant, "n": n, "devices": devices}
            row |= {"examples_per_second": rate, "against": base, "flags": flags}
            row["speedup"] = forbidden or rate / slow
            row["efficiency"] = forbidden or rate / slow / (devices / few)
            rows.append(row)
    return table(
        f"{view.name}-scaling",
        "Strong scaling: the same global batch over more devices",
        f"""{WHO}{RUNS}
        devices | Devices | | d
        examples_per_second | Throughput | examples/s | 0f
        speedup | Speed-up | × | 2f
        efficiency | Efficiency | % | 0f
        against | against scale
        flags | Flagged between the scales""",
        rows,
        "Medians over runs. Efficiency is absent where the scales ran on unequal resources.",
    )


def _difference(a: dict[int, Facts], b: dict[int, Facts]) -> tuple[Absent | None, str]:
    """Return why two scales of a variant must not be compared, if so, and what else differed."""
    pairs = [(a[s], b[s]) for s in a.keys() & b.keys()]
    if not pairs:  # then what depends on the seed is not looked at
        one, two = next(iter(a.values())), next(iter(b.values()))
        seedless = {name: two.get(name) for name in ("weights.initial", "batches")}
        pairs = [({**one, **seedless}, two)]
    found = [d for d in comparability.diff(pairs) if not EXPECTED.match(d.fact)]
    grave = [difference_text(d) for d in found if d.level == BLOCKS]
    flags = [difference_text(d) for d in found if d.level == FLAGGED]
    return (Absent(reason=grave[0]) if grave else None), "; ".join(flags)
