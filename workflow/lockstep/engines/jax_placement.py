"""Where arrays lie: a mesh over all devices, batches split along it, everything else on each."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lockstep.engines.contract import Topology
from lockstep.workloads.contract import AXIS


class Placement:
    """Puts arrays of the host onto the devices of a run, and brings them back.

    Attributes:
        mesh: of all devices, along `AXIS`.
        replicated: the sharding of what each device has all of.
    """

    def __init__(self, topology: Topology) -> None:
        self.single = topology.world_size == 1
        self.mesh = Mesh(np.array(jax.devices()[: topology.devices]), (AXIS,))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())

    def split(self, axis: int) -> NamedSharding:
        """Return the sharding of what is split along an axis."""
        return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, AXIS))

    def put(self, arrays: Mapping[str, np.ndarray], axis: int, numbers: Any) -> tuple[Any, Any]:
        """Return a batch, split along an axis, and numbers, on each device.

        Args:
            arrays: this process's part of the batch.
            numbers: arrays in any containers.
        """
        if self.single:
            # All at once: each call into JAX takes as long as a small copy.
            places = (self.split(axis), self.replicated)
            return jax.device_put((dict(arrays), numbers), places)
        make = jax.make_array_from_process_local_data
        parts = {name: make(self.split(axis), array) for name, array in arrays.items()}
        return parts, jax.tree.map(self.replicate, numbers)

    def replicate(self, array: np.ndarray) -> Array:
        """Return a copy of an array on each device."""
        if self.single:
            # `jax.numpy.array` would copy it twice.
            return jax.device_put(array, self.replicated, may_alias=False)
        return multihost_utils.host_local_array_to_global_array(
            np.array(array), self.mesh, PartitionSpec()
        )

    def gathered(self, array: np.ndarray) -> np.ndarray:
        """Return the arrays of all processes, ``(processes, …)``."""
        return array[None] if self.single else np.asarray(multihost_utils.process_allgather(array))


def local(array: Array) -> np.ndarray:
    """Return this process's part of an array; all of it where it is replicated.

    On a CPU what is replicated is a view, as tables may have gigabytes. A program that is given the
    array to keep copies it first if there still is a view.
    """
    if not isinstance(array, Array):
        return np.array(array)
    if array.is_fully_replicated:
        return np.asarray(array.addressable_data(0))
    parts = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.array(part.data) for part in parts])
