"""`lockstep.datasets.checksum` in PyTorch, of one rank's part of a batch."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lockstep.datasets import checksum
from lockstep.engines.contract import Job

Put = Callable[[np.ndarray], Tensor]


class Checksum:
    """A rank's share of a batch's checksum; its lower 32 bits count."""

    def __init__(self, job: Job, put: Put) -> None:
        """Prepare the coefficients.

        Args:
            put: brings an array onto the device.
        """
        kinds = [checksum.places(job.shown(length)) for length in job.lengths]
        self.kinds = {checksum.elements(places): places for places in kinds}
        # Products wrap around in 32 bits, sums in 64: the lower 32 bits are right.
        self.words = {
            kind: {name: put(place.words.view(np.int32)) for name, place in places.items()}
            for kind, places in self.kinds.items()
        }
        self.names = list(kinds[0])
        first = job.topology.rank * job.local_batch
        slots = checksum.slot_coefficients(job.recipe["global_batch"])
        self.slots = put(slots[first : first + job.local_batch].astype(np.int64))

    def __call__(self, batch: Mapping[str, Tensor], slots: Tensor) -> Tensor:
        """Return the share, int64 ``()``.

        Args:
            batch: as the model is shown it.
            slots: coefficients of its examples, int64 ``(B,)``.
        """
        rows = torch.full_like(slots, checksum.ONE)
        kind = sum(batch[name].numel() for name in self.names) // len(rows)
        for name, place in self.kinds[kind].items():
            flat = batch[name].reshape(len(rows), -1)
            if place.filling:
                flat = functional.pad(flat.view(torch.uint8), (0, place.filling))
            rows = rows + (flat.view(torch.int32) * self.words[kind][name]).sum(1)
        return (rows * slots * batch["real"].long()).sum()
