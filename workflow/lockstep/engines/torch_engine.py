"""PyTorch behind the contract: eager or torch.compile, one process or DistributedDataParallel."""

import contextlib
import functools
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from lockstep.engines import collecting, torch_probe, torch_setup
from lockstep.engines.contract import (
    COMPUTE_DTYPE,
    PARAMETER_DTYPE,
    Evaluation,
    Job,
    Preparation,
    Window,
)
from lockstep.engines.torch_checksum import Checksum
from lockstep.engines.torch_optimizer import Optimizer
from lockstep.engines.torch_probe import numpy
from lockstep.engines.torch_random import Random
from lockstep.engines.torch_tables import Tables
from lockstep.engines.touched import shown
from lockstep.errors import UserError
from lockstep.workloads import naming, taps, weights
from lockstep.workloads.weights import State

Batch = Mapping[str, Tensor]
Row = tuple[Batch, Tensor, Tensor]
"""A step's batch with its numbers, its global weight, and the slots of its checksum."""
Pending = list[tuple[Tensor, Tensor]]

SETTLING_STEPS = 2  # DistributedDataParallel rebuilds its buckets after the first backward pass
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def start(job: Job) -> "TorchEngine":
    """Configure PyTorch for a job and return its engine."""
    torch_setup.configure(job)
    return TorchEngine(job)


class TorchEngine:
    """See `lockstep.engines.contract.Engine`."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.topology = job.topology
        self.device = torch_setup.device(job.topology)
        self.param_dtype = getattr(torch, PARAMETER_DTYPE[job.variant["precision"]])
        self.compute_dtype = getattr(torch, COMPUTE_DTYPE[job.variant["precision"]])
        self.format = FORMATS[job.variant["memory_format"]]
        self.native = job.variant["randomness"] == "native"
        self.functions = job.workload.functions("torch")
        torch_setup.join(self.topology, self.device)
        self._build()

    def _build(self) -> None:
        model = self.job.recipe["model"]
        self.module = self.functions.build(model, self.job.settings)
        self.module.to(self.device, self.param_dtype, memory_format=self.format).train()
        tensors = dict(self.module.named_parameters()) | dict(self.module.named_buffers())
        self.names = self.functions.names(model)
        parameters = self.job.workload.parameters(model)
        buffers = self.job.workload.buffers(model)
        shapes = {p.name: p.shape for p in parameters} | {b.name: b.shape for b in buffers}
        naming.check(self.names, shapes, {n: tuple(t.shape) for n, t in tensors.items()})
        self.parameters = {p.name: tensors[self.names[p.name][0]] for p in parameters}
        self.buffers = {b.name: tensors[self.names[b.name][0]] for b in buffers}
        for p in parameters:
            self.parameters[p.name].requires_grad_(p.trained)
        self.layers = taps.layers(self.functions, model, self.names, parameters, ".")
        trained = self.job.workload.trained(model)
        self.tables = Tables(self.job, self.module, self.names, self.parameters)
        own = {**self.parameters, **self.tables.parts}
        self.optimizer = Optimizer(self.job.recipe["optimizer"], trained, own)
        self.model = self.module
        if self.topology.world_size > 1:
            self.model = torch_setup.distributed(self.module)
        self._step_loss = self._loss
        if self.job.variant["mode"] == "compile":
            self._step_loss = torch.compile(self._loss, dynamic=False)
        self.checksum = Checksum(self.job, self._put)

    # One step --------------------------------------------------------------------------------

    def seen(self, batch: Batch) -> Batch:
        """Return a batch as the model is shown it."""
        if not hasattr(self.functions, "augment"):
            return batch
        return self.functions.augment(batch, self.job.recipe, self.job.data)

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return a batch as the model computes with it."""
        if not hasattr(self.functions, "inputs"):
            return dict(batch)
        batch = self.functions.inputs(batch, self.param_dtype)
        images = {name: array for name, array in batch.items() if array.dim() == 4}
        formatted = {n: x.contiguous(memory_format=self.format) for n, x in images.items()}
        return {**batch, **formatted}

    def outputs(self, model: torch.nn.Module, batch: Batch, train: bool) -> dict[str, Tensor]:
        """Return what the model gives for what `inputs` gave."""
        random = Random(batch, train=train, native=self.native)
        with self.autocast():
            return self.functions.forward(model, batch, random, train)

    def autocast(self) -> contextlib.AbstractContextManager:
        if self.compute_dtype is self.param_dtype:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.compute_dtype)

    def _loss(self, batch: Batch, weight: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Return this rank's share of the global mean loss, and of the batch's checksum."""
        batch = self.seen(batch)
        outputs = self.outputs(self.model, self.inputs(shown(batch)), train=True)
        terms = self.terms(outputs, batch, weight)
        return functools.reduce(torch.add, terms.values()), self.checksum(batch, slots)

    def terms(self, outputs: Batch, batch: Batch, weight: Tensor) -> dict[str, Tensor]:
        """Return the named terms of this rank's share of the global mean loss."""
        terms = self.functions.loss(outputs, batch, self.job.recipe)
        return {name: (term * batch["real"]).sum() / weight for name, term in terms.items()}

    def _backward(self, row: Row) -> tuple[Tensor, Tensor]:
        batch, weight, slots = row
        self.optimizer.clear()
        batch = self.tables.take(batch, self.optimizer.slots)
        results, world = [], self.topology.world_size
        for k, (part, own) in enumerate(self._micro(batch, slots), 1):
            last = k == self.job.recipe["accumulation"]
            with contextlib.nullcontext() if last or world == 1 else self.model.no_sync():
                loss, check = self._step_loss(part, weight, own)
                # DistributedDataParallel averages over ranks; the loss is divided globally.
                (loss * world if world > 1 else loss).backward()
            results.append((loss.detach(), check))
        if len(results) == 1:
            return results[0]
        losses, checks = zip(*results)
        return torch.stack(losses).sum(), torch.stack(checks).sum()

    def _micro(self, batch: Batch, slots: Tensor) -> Iterator[tuple[Batch, Tensor]]:
        """Yield the micro-batches of a step, and their slots."""
        count = self.job.recipe["accumulation"]
        if count == 1:  # a slice of each array takes its time
            yield batch, slots
            return
        size = self.job.local_batch // count
        for k in range(count):
            part = slice(k * size, (k + 1) * size)
            examples = {n: array[part] if array.dim() else array for n, array in batch.items()}
            yield examples, slots[part]

    def _rows(self, window: Window) -> Iterator[Row]:
        """Yield each row of a window."""
        batch = {name: self._put(array) for name, array in window.batch.items()}
        slots = self.checksum.slots(batch["real"])
        numbers = {"weight": window.weights, **window.numbers}
        own = {n: self._put(np.asarray(a)).to(self.param_dtype) for n, a in numbers.items()}
        arrays = batch | own
        steps = zip(*(tensor.unbind() for tensor in (*arrays.values(), slots)), strict=True)
        for *values, own_slots in itertools.islice(steps, window.steps):
            row = dict(zip(arrays, values))
            yield row, row.pop("weight"), own_slots

    def stage(self, window: Window) -> Window:
        return window  # its thread would only take turns with the one that calls the kernels

    def train(self, window: Window) -> Pending:
        pending = []
        for k, row in enumerate(self._rows(window)):
            pending.append(self._backward(row))
            self.optimizer.step({name: float(a[k]) for name, a in window.scalars.items()})
            self.tables.put(self.optimizer.slots)
        return pending

    def fetch(self, pending: Pending) -> tuple[np.ndarray, np.ndarray]:
        losses = self._sum(torch.stack([loss for loss, _ in pending]).double())
        checks = self._sum(torch.stack([check for _, check in pending]))
        return losses.cpu().numpy(), checks.cpu().numpy().astype(np.uint32)

    def evaluate(self, batches: Iterable[Mapping[str, np.ndarray]]) -> Evaluation:
        totals: dict[str, Tensor] = {}
        columns = collecting.Columns(self.job.workload, self.topology.world_size)
        self._share_buffers()
        self.module.eval()
        with torch.no_grad(), self.tables.whole():
            for arrays in batches:
                batch = self.seen({name: self._put(array) for name, array in arrays.items()})
                outputs = self.outputs(self.module, self.inputs(batch), train=False)
                terms = self.functions.loss(outputs, batch, self.job.recipe)
                sums, kept = self.functions.metrics(outputs, batch, self.job.recipe)
                sums |= {"loss": torch.stack([t.double() for t in terms.values()]).sum(0)}
                sums |= {"examples": torch.ones_like(batch["real"]), "weight": batch["weight"]}
                for name, value in sums.items():
                    part = (value.double() * batch["real"]).sum()
                    totals[name] = totals[name] + part if name in totals else part
                columns.add({name: numpy(column) for name, column in kept.items()}, arrays["real"])
        self.module.train()
        names = sorted(totals)
        whole = self._sum(torch.stack([totals[name] for name in names]))
        gathered = columns.gathered(collecting.as_bytes(self._gathered))
        return Evaluation(sums=dict(zip(names, whole.tolist())), columns=gathered)

    def probe(self, window: Window) -> dict[str, np.ndarray]:
        row = next(self._rows(window))
        buffers = [buffer.clone() for buffer in self.buffers.values()]
        with self.tables.whole():
            found = torch_probe.look(self, *row[:2])
        loss, check = self._backward(row)
        gradients = self.tables.gradients(self.optimizer.gradients())
        neutral = self._to_neutral({name: numpy(g) for name, g in gradients.items()})
        with torch.no_grad():
            for buffer, before in zip(self.buffers.values(), buffers):
                buffer.copy_(before)
        self.optimizer.clear()
        terms = {n: numpy(self._sum(a)) for n, a in found.items() if n.startswith("term/")}
        return {
            **{name: numpy(array) for name, array in found.items()},
            **terms,
            "checksum": numpy(self._sum(check)).astype(np.uint32),
            "loss": numpy(self._sum(loss.double())),
            **{f"grad/{name}": value for name, value in neutral.items()},
        }

    # Preparation and state -------------------------------------------------------------------

    def prepare(self) -> Preparation:
        state, begin = self.state(), time.perf_counter()
        for length in self.job.lengths * SETTLING_STEPS:
            self.fetch(self.train(Window.blank(self.job, length)))
        seconds = time.perf_counter() - begin
        self.load(state)
        cache = "none"
        if self.job.variant["mode"] == "compile":
            counters = torch._dynamo.utils.counters
            if not counters["stats"]["unique_graphs"]:
                raise UserError(
                    "mode: compile, but torch.compile compiled nothing and runs op by op; what it "
                    "said stands above, or a variable such as TORCH_COMPILE_DISABLE is set"
                )
            cache = "cold" if counters["inductor"]["fxgraph_cache_miss"] else "warm"
        return Preparation(trace_seconds=0.0, compile_seconds=seconds, cache=cache)

    def _roles(self) -> dict[str, dict[str, Tensor]]:
        slots = self.tables.whole_slots(self.optimizer.slots)
        return {"param": self.parameters, **slots, "buffer": self.buffers}

    def load(self, state: State) -> None:
        state = weights.complete(state, self.job.workload, self.job.recipe)
        with torch.no_grad():
            for role, tensors in self._roles().items():
                names = {name: (name, self.names[name][1]) for name in tensors}
                own = {name: state[f"{role}/{name}"] for name in tensors}
                for name, array in naming.to_native(own, names).items():
                    tensors[name].copy_(torch.from_numpy(array))

    def _share_buffers(self) -> None:
        """Give every rank rank 0's buffers: there is one set of running statistics."""
        if self.topology.world_size > 1:
            for buffer in self.buffers.values():
                torch.distributed.broadcast(buffer, 0)

    def state(self) -> dict[str, np.ndarray]:
        self._share_buffers()
        return {
            f"{role}/{name}": value
            for role, tensors in self._roles().items()
            for name, value in self._to_neutral({n: numpy(t) for n, t in tensors.items()}).items()
        }

    def _to_neutral(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return naming.to_neutral(tensors, {n: (n, self.names[n][1]) for n in tensors})

    # The rest --------------------------------------------------------------------------------

    def _put(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)

    def _sum(self, tensor: Tensor) -> Tensor:
        if self.topology.world_size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def _gathered(self, array: np.ndarray) -> np.ndarray:
        """Return all ranks' bytes, uint8 ``(ranks, n)``."""
        return numpy(torch_setup.gathered(self._put(array)))

    def agree(self, values: Sequence[int]) -> list[int]:
        if self.topology.world_size == 1:
            return list(values)
        tensor = torch.tensor(values, device=self.device)
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)
        return [int(value) for value in tensor.tolist()]

    def facts(self) -> dict[str, Any]:
        return torch_setup.facts(self.job, self.device)

    def memory(self) -> dict[str, int]:
        return torch_setup.memory(self.device)

    def close(self) -> None:
        if self.topology.world_size > 1:
            torch.distributed.destroy_process_group()
