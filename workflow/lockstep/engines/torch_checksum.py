"""`lockstep.datasets.checksum` in PyTorch, of one rank's part of a batch."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lockstep.datasets import checksum
from lockstep.engines.contract import Job

Put = Callable[[np.ndarray], Tensor]

ONE = checksum.ONE - 2**32  # the same 32 bits


class Checksum:
    """A rank's share of a batch's checksum; its bits are those of the uint32."""

    def __init__(self, job: Job, put: Put) -> None:
        """Prepare the coefficients.

        Args:
            put: brings an array onto the device.
        """
        kinds = [checksum.places(job.shown(length)) for length in job.lengths]
        self.kinds = {checksum.elements(places): places for places in kinds}
        self.words = {
            kind: {name: put(place.words.view(np.int32)) for name, place in places.items()}
            for kind, places in self.kinds.items()
        }
        self.names = list(kinds[0])
        first = job.topology.rank * job.local_batch
        slots = checksum.slot_coefficients(job.recipe["global_batch"]).view(np.int32)
        self._slots = put(slots[first : first + job.local_batch])

    def slots(self, real: Tensor) -> Tensor:
        """Return the coefficients of this rank's examples, int32 like `real`, 0 where it is 0.

        Args:
            real: 1 for an example, 0 for padding, ``(…, B)``.
        """
        return self._slots * real.to(torch.int32)

    def __call__(self, batch: Mapping[str, Tensor], slots: Tensor) -> Tensor:
        """Return the share, int32 ``()``; all arithmetic wraps around in 32 bits.

        Args:
            batch: as the model is shown it.
            slots: coefficients of its examples, int32 ``(B,)``.
        """
        kind = sum(batch[name].numel() for name in self.names) // len(slots)
        rows: Tensor | int = ONE
        for name, place in self.kinds[kind].items():
            flat = batch[name].reshape(len(slots), -1)
            if place.filling:
                flat = functional.pad(flat.view(torch.uint8), (0, place.filling))
            products = flat.view(torch.int32) * self.words[kind][name]
            rows = rows + products.sum(1, dtype=torch.int32)
        return (rows * slots).sum(dtype=torch.int32)
