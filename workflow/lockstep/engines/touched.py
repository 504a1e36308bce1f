"""Tables of which a step changes only the rows that its batch looks up: what both engines share.

Before a step the rows that the global batch looks up are taken, each of them once, and what the
model is shown as a table consists of them alone; its ids are their places. So a gradient has those
rows, with duplicates summed, and nothing of a table's size is computed or exchanged; the optimizer
changes them, and they are written back. Shapes do not depend on the batch: there is room for one
row for each look-up, or for the whole table if it is smaller.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lockstep.engines.contract import Job
from lockstep.workloads import optimizers

PLACES = "places/"  # before the name of the ids whose places an array of a batch holds


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """An array of ids and the tables that it looks rows up in.

    Attributes:
        ids: name of the array.
        columns: of it, one for each table; all for every table if None.
        tables: names of the parameters.
        room: rows that each table is shown with.
    """

    ids: str
    columns: tuple[int, ...] | None
    tables: tuple[str, ...]
    room: tuple[int, ...]


def lookups(job: Job) -> tuple[Lookup, ...]:
    """Return a job's tables whose update is `touched_rows`, by the array of their ids.

    Raises:
        ValueError: some tables read one column of an array and others all of them.
    """
    settings = job.recipe["optimizer"]
    trained = job.workload.trained(job.recipe["model"])
    shapes = {array.name: array.shape for array in job.arrays()}
    tables = [p for p in trained if optimizers.touched(settings, p)]
    found = []
    for ids in dict.fromkeys(p.ids for p in tables):
        own = [p for p in tables if p.ids == ids]
        columns = [p.column for p in own if p.column is not None]
        if columns and len(columns) < len(own):
            raise ValueError(f"{job.workload.name}: {ids} has tables of one column and of all")
        each = 1 if columns else math.prod(shapes[ids])
        count = job.recipe["global_batch"] * each
        found.append(
            Lookup(
                ids=ids,
                columns=tuple(columns) or None,
                tables=tuple(p.name for p in own),
                room=tuple(min(count, p.shape[0]) for p in own),
            )
        )
    return tuple(found)


def shown(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch as a model with parts of tables is shown it: with places, if any, as ids."""
    places = {n.removeprefix(PLACES): x for n, x in batch.items() if n.startswith(PLACES)}
    return {**batch, **places}
