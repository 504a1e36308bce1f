"""What an evaluation keeps on the host: columns of examples, or integers tallied of them."""

from collections.abc import Callable, Mapping

import numpy as np

from lockstep.workloads.contract import Workload

Gather = Callable[[np.ndarray], np.ndarray]
"""From a rank's array to those of all ranks, ``(ranks, …)``."""


class Columns:
    """Columns of an evaluation's real examples, over batches and ranks."""

    def __init__(self, workload: Workload, ranks: int = 1) -> None:
        self._tally = workload.tally
        self._room = workload.keep // ranks  # of examples of this rank; the others have as many
        self._totals: dict[str, np.ndarray] = {}
        self._kept: list[dict[str, np.ndarray]] = []

    def add(self, columns: Mapping[str, np.ndarray], real: np.ndarray) -> None:
        """Add a batch of this rank: columns ``(B, …)``, and which examples are real."""
        self._kept.append({**columns, "real": real})
        self._room -= len(real)
        if self._tally is None or self._room >= 0:
            return
        for batch in self._kept:
            own = {name: array[batch["real"] > 0] for name, array in batch.items()}
            del own["real"]
            for name, integers in self._tally(own).items():
                self._totals[name] = self._totals.get(name, 0) + integers.astype(np.int64)
        self._kept = []

    def gathered(self, gather: Gather) -> dict[str, np.ndarray]:
        """Return all ranks' columns, in the order of the examples, or what they tallied."""
        if self._totals:
            return {name: gather(total).sum(axis=0) for name, total in self._totals.items()}
        if not self._kept or len(self._kept[0]) == 1:  # no column but `real`
            return {}
        stacked = {n: np.stack([batch[n] for batch in self._kept]) for n in self._kept[0]}
        # (ranks, batches, B, …) to the order of the examples: batch by batch, rank by rank.
        every = {n: np.moveaxis(gather(array), 0, 1) for n, array in stacked.items()}
        flat = {n: a.reshape(-1, *a.shape[3:]) for n, a in every.items()}
        real = flat.pop("real") > 0
        return {name: array[real] for name, array in flat.items()}


def as_bytes(gather: Gather) -> Gather:
    """Return a gathering of any array by one that gathers uint8 ``(n,)``: 64 bits stay 64."""

    def whole(array: np.ndarray) -> np.ndarray:
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        parts = np.ascontiguousarray(gather(flat))
        return parts.view(array.dtype).reshape(len(parts), *array.shape)

    return whole
