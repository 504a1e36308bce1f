"""`lockstep.engines.touched` in PyTorch.

A model's own tables stay where they are; while it trains, it has in their place parameters of the
rows that were taken, which DistributedDataParallel and the optimizer know alone.
"""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from lockstep.engines import torch_setup
from lockstep.engines.contract import Job
from lockstep.engines.touched import PLACES, lookups
from lockstep.workloads import optimizers
from lockstep.workloads.naming import Names


class Tables:
    """The tables of a model whose update is `touched_rows`.

    Attributes:
        parts: what the model trains instead of each, ``(room, …)``, by neutral name.
        slots: what an optimizer keeps of each whole table, by slot and neutral name.
    """

    def __init__(
        self,
        job: Job,
        module: nn.Module,
        names: Names,
        parameters: Mapping[str, Tensor],
    ) -> None:
        """Put parts in the place of tables.

        Args:
            names: of the module's tensors.
            parameters: by neutral name.
        """
        self.lookups, self._rank = lookups(job), job.topology.rank
        self.parts: dict[str, nn.Parameter] = {}
        self._whole: dict[str, Tensor] = {}
        self._owners: dict[str, tuple[nn.Module, str]] = {}
        self._found: dict[str, tuple[Tensor, Tensor]] = {}
        for look in self.lookups:
            for name, room in zip(look.tables, look.room):
                path, _, attribute = names[name][0].rpartition(".")
                whole = parameters[name]
                self._owners[name] = module.get_submodule(path), attribute
                self._whole[name] = whole
                self.parts[name] = nn.Parameter(whole.new_zeros(room, *whole.shape[1:]))
        described = [p for p in job.workload.trained(job.recipe["model"]) if p.name in self.parts]
        self.slots = {
            slot: {name: self._whole[name].new_zeros(shape) for name, shape in own.items()}
            for slot, own in optimizers.kept(job.recipe["optimizer"], described).items()
        }
        self._show(self.parts)

    def _show(self, tensors: Mapping[str, Tensor]) -> None:
        for name, (owner, attribute) in self._owners.items():
            setattr(owner, attribute, tensors[name])

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Show the model its whole tables, to which ids are rows."""
        self._show(self._whole)
        try:
            yield
        finally:
            self._show(self.parts)

    @torch.no_grad()
    def take(
        self, batch: Mapping[str, Tensor], slots: Mapping[str, Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Take the rows that a batch over all ranks looks up.

        Args:
            batch: of this rank.
            slots: of the optimizer, into which those of the rows are copied.

        Returns:
            The batch with the places of its rows, which `touched.shown` makes its ids.
        """
        result = dict(batch)
        for look in self.lookups:
            every = torch_setup.gathered(batch[look.ids]).long()  # (ranks, B, …)
            ids = every.reshape(-1, 1) if look.columns is None else every.flatten(0, 1)
            columns = [0] if look.columns is None else list(look.columns)
            rows, places, count = _distinct(ids[:, columns])
            for k, (name, room) in enumerate(zip(look.tables, look.room)):
                column = 0 if look.columns is None else k
                own = rows[:room, column].contiguous()
                place = torch.arange(room, device=own.device)
                # Behind the last row its first one again: written back, it is what that has become.
                self._found[name] = own, torch.where(place < count[column], place, 0)
                torch.index_select(self._whole[name], 0, own, out=self.parts[name].data)
                for slot, kept in self.slots.items():
                    if name in kept:
                        torch.index_select(kept[name], 0, own, out=slots[slot][name])
            if look.columns is None:
                places = places.reshape(every.shape)[self._rank]
            else:
                ids[:, columns] = places
                places = ids.reshape(every.shape)[self._rank]
            result[PLACES + look.ids] = places
        return result

    @torch.no_grad()
    def put(self, slots: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Write the rows back that were taken, and what the optimizer keeps of them."""
        for name, (rows, place) in self._found.items():
            self._whole[name].index_copy_(0, rows, self.parts[name][place])
            for slot, kept in self.slots.items():
                if name in kept:
                    kept[name].index_copy_(0, rows, slots[slot][name][place])

    def whole_slots(
        self, slots: Mapping[str, Mapping[str, Tensor]]
    ) -> dict[str, dict[str, Tensor]]:
        """Return what an optimizer keeps, of whole tables."""
        return {slot: {**own, **self.slots.get(slot, {})} for slot, own in slots.items()}

    def gradients(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return gradients by parameter, those of rows as of whole tables."""
        result = dict(gradients)
        for name, (rows, _) in self._found.items():
            whole = torch.zeros_like(self._whole[name])
            result[name] = whole.index_add_(0, rows, gradients[name])  # zero behind the last row
        return result


def _distinct(ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each column's values, once each and sorted, the first again behind them.

    Args:
        ids: int64 ``(n, columns)``.

    Returns:
        They, ``(n, columns)``; the place of each id among them; how many there are, ``(columns,)``.
    """
    ordered, order = torch.sort(ids, dim=0)
    new = torch.cat([torch.ones_like(ids[:1], dtype=torch.bool), ordered[1:] != ordered[:-1]])
    number = torch.cumsum(new, dim=0) - 1
    places = torch.empty_like(number).scatter_(0, order, number)
    rows = ordered[:1].repeat(len(ids), 1).scatter_(0, number, ordered)
    return rows, places, number[-1] + 1
