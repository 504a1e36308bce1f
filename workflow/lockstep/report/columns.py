"""What the tables of a workload share: their first columns and their rows' groups."""

import itertools
from collections.abc import Callable, Iterator

import pandas as pd

from lockstep.report import frames
from lockstep.report.load import Records
from lockstep.report.tables import Column

WHO = (Column(key="scale", label="Scale"), Column(key="variant", label="Variant"))
Choice = Callable[[pd.DataFrame], pd.DataFrame]
N = Column(key="n", label="Runs", unit="count")


def groups(
    records: Records, runs: pd.DataFrame, chosen: Choice = frames.finished
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield scale, variant and finished runs, in the config's order; groups without runs too."""
    grouped = dict(iter(chosen(runs).groupby(["scale", "variant"], sort=False)))
    config = records.study.config
    for scale, variant in itertools.product(config["scales"], config["variants"]):
        yield scale, variant, grouped.get((scale, variant), runs.iloc[:0])
