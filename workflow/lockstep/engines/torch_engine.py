"""PyTorch behind the contract: eager or torch.compile, one process or DistributedDataParallel."""

import contextlib
import importlib
import inspect
import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from lockstep.datasets import checksum
from lockstep.engines import environment, rendezvous, torch_optimizer, torch_probe
from lockstep.engines.contract import (
    COMPUTE_DTYPE,
    PARAMETER_DTYPE,
    Job,
    Preparation,
    Topology,
    Window,
    types,
)
from lockstep.engines.torch_probe import numpy
from lockstep.errors import UserError
from lockstep.workloads import augmentation_torch, naming, taps, weights
from lockstep.workloads.weights import State

Pending = list[tuple[Tensor, Tensor]]

SETTLING_STEPS = 2  # DistributedDataParallel rebuilds its buckets after the first backward pass
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
FIXED_WORKSPACES = (":4096:8", ":16:8")  # without one of them deterministic products are refused
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def start(job: Job) -> "TorchEngine":
    """Configure PyTorch for a job and return its engine."""
    precision = job.variant["precision"]
    tf32 = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = tf32
    torch.backends.cudnn.conv.fp32_precision = tf32  # type: ignore[attr-defined]
    if job.variant["deterministic"] and os.environ.get(WORKSPACE) not in FIXED_WORKSPACES:
        os.environ[WORKSPACE] = FIXED_WORKSPACES[0]
    torch.use_deterministic_algorithms(job.variant["deterministic"])
    # As XLA does by itself: convolutions are tried out before one is chosen.
    torch.backends.cudnn.benchmark = not job.variant["deterministic"]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if job.variant["mode"] == "compile":  # eager runs need not import the compiler for it
        # Or an earlier engine's programs count towards the limit of this one's.
        torch.compiler.reset()
    if job.caches is not None:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(job.caches / "inductor")
        os.environ["TRITON_CACHE_DIR"] = str(job.caches / "triton")
    if not torch.cuda.is_available():
        # It warns of a CUDA toolkit without a GPU, which is what a login node has.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    return TorchEngine(job)


class TorchEngine:
    """See `lockstep.engines.contract.Engine`."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.topology = job.topology
        cuda = torch.cuda.is_available()
        # The launcher shows each process its own GPU alone, unless there are fewer.
        index = job.topology.local_rank % max(1, torch.cuda.device_count())
        self.device = torch.device("cuda", index) if cuda else torch.device("cpu")
        self.param_dtype = getattr(torch, PARAMETER_DTYPE[job.variant["precision"]])
        self.compute_dtype = getattr(torch, COMPUTE_DTYPE[job.variant["precision"]])
        self.format = FORMATS[job.variant["memory_format"]]
        name = f"lockstep.workloads.{job.workload.name}.torch_model"
        self.functions = importlib.import_module(name)
        if self.topology.world_size > 1 and not torch.distributed.is_initialized():
            _join(self.topology, self.device)
        self._build()

    def _build(self) -> None:
        module = self.functions.build(self.job.recipe["model"])
        module.to(self.device, self.param_dtype, memory_format=self.format).train()
        self.module = module
        self.tensors = dict(module.named_parameters()) | dict(module.named_buffers())
        self.names = self.functions.names(self.job.recipe["model"])
        parameters = self.job.workload.parameters(self.job.recipe["model"])
        buffers = self.job.workload.buffers(self.job.recipe["model"])
        shapes = {p.name: p.shape for p in parameters} | {b.name: b.shape for b in buffers}
        naming.check(self.names, shapes, {n: tuple(t.shape) for n, t in self.tensors.items()})
        self.parameters = {p.name: self.tensors[self.names[p.name][0]] for p in parameters}
        self.buffers = {b.name: self.tensors[self.names[b.name][0]] for b in buffers}
        model = self.job.recipe["model"]
        self.layers = taps.layers(self.functions, model, self.names, parameters, ".")
        self.optimizer = torch_optimizer.make(self.job, self.parameters)
        self.model = module
        if self.topology.world_size > 1:
            self.model = _distributed(module)
        self._step_loss = self._loss
        if self.job.variant["mode"] == "compile":
            self._step_loss = torch.compile(self._loss, dynamic=False)
        self.kind = self.job.kind
        pixels = int(np.prod(self.job.example_shape))
        first = self.topology.rank * self.job.local_batch
        slots = checksum.slot_coefficients(self.job.recipe["global_batch"])
        self.slots = self._put(slots[first : first + self.job.local_batch].astype(np.int64))
        self.words = self._put(checksum.word_coefficients(pixels).view(np.int32))
        self.filling = checksum.padding(pixels)

    # One step --------------------------------------------------------------------------------

    def seen(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a batch with its images as the model is shown them."""
        images = augmentation_torch.apply(batch["images"], batch.get("crops"), self.kind)
        return {**batch, "images": images}

    def inputs(self, batch: Mapping[str, Tensor]) -> Tensor:
        images = self.functions.inputs(batch, self.param_dtype)
        return images.contiguous(memory_format=self.format)

    def _logits(self, model: torch.nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        images = self.inputs(batch)
        with self.autocast():
            return model(images)

    def autocast(self) -> contextlib.AbstractContextManager:
        if self.compute_dtype is self.param_dtype:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.compute_dtype)

    def _loss(self, batch: Mapping[str, Tensor], count: Tensor) -> tuple[Tensor, Tensor]:
        """Return this rank's share of the global mean loss, and of the batch's checksum."""
        batch = self.seen(batch)
        return self.mean_loss(self._logits(self.model, batch), batch, count), self._checksum(batch)

    def mean_loss(self, logits: Tensor, batch: Mapping[str, Tensor], count: Tensor) -> Tensor:
        losses = self.functions.losses(logits, batch, self.job.recipe)
        return (losses * batch["mask"]).sum() / count

    def _checksum(self, batch: Mapping[str, Tensor]) -> Tensor:
        # Products wrap around in 32 bits, sums in 64: the lower 32 bits are right, `fetch` takes
        # them.
        flat = batch["images"].flatten(1)
        if self.filling:
            flat = functional.pad(flat, (0, self.filling))
        rows = (flat.view(torch.int32) * self.words).sum(1)
        rows = rows + batch["labels"].long() * checksum.LABEL + checksum.ONE
        return (rows * self.slots * batch["mask"].long()).sum()

    def _backward(self, batch: Mapping[str, Tensor], count: Tensor) -> tuple[Tensor, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        loss, check = self._step_loss(batch, count)
        # DistributedDataParallel averages over ranks; the loss is already divided globally.
        (loss * self.topology.world_size if self.topology.world_size > 1 else loss).backward()
        return loss.detach(), check

    def train(self, window: Window) -> Pending:
        batch = {name: self._put(array) for name, array in window.batch.items()}
        counts = self._put(window.counts).to(self.param_dtype)
        pending = []
        for k in range(window.steps):
            for group in self.optimizer.param_groups:
                group["lr"] = float(window.learning_rates[k])
            row = {name: tensor[k] for name, tensor in batch.items()}
            pending.append(self._backward(row, counts[k]))
            self.optimizer.step()
        return pending

    def fetch(self, pending: Pending) -> tuple[np.ndarray, np.ndarray]:
        losses = self._sum(torch.stack([loss for loss, _ in pending]).double())
        checks = self._sum(torch.stack([check for _, check in pending]))
        return losses.cpu().numpy(), checks.cpu().numpy().astype(np.uint32)

    def evaluate(self, batches: Iterable[Mapping[str, np.ndarray]]) -> dict[str, float]:
        totals: dict[str, Tensor] = {}
        self._share_buffers()
        self.module.eval()
        with torch.no_grad():
            for arrays in batches:
                batch = self.seen({name: self._put(array) for name, array in arrays.items()})
                logits = self._logits(self.module, batch)
                values = self.functions.metrics(logits, batch)
                values["loss"] = self.functions.losses(logits, batch, self.job.recipe)
                values["examples"] = torch.ones_like(batch["mask"])
                for name, value in values.items():
                    part = (value.double() * batch["mask"]).sum()
                    totals[name] = totals[name] + part if name in totals else part
        self.module.train()
        names = sorted(totals)
        sums = self._sum(torch.stack([totals[name] for name in names]))
        return dict(zip(names, sums.tolist()))

    def probe(self, window: Window) -> dict[str, np.ndarray]:
        row = {name: self._put(array[0]) for name, array in window.batch.items()}
        count = torch.tensor(window.counts[0], dtype=self.param_dtype, device=self.device)
        buffers = [buffer.clone() for buffer in self.buffers.values()]
        found = torch_probe.look(self, row, count)
        loss, check = self._backward(row, count)
        # None is a parameter that the loss does not reach; the ladder shall name it.
        gradients = {
            name: numpy(torch.zeros_like(p) if p.grad is None else p.grad)
            for name, p in self.parameters.items()
        }
        neutral = self._to_neutral(gradients)
        with torch.no_grad():
            for buffer, before in zip(self.buffers.values(), buffers):
                buffer.copy_(before)
        self.optimizer.zero_grad(set_to_none=True)
        return {
            **found,
            "checksum": numpy(self._sum(check)).astype(np.uint32),
            "loss": numpy(self._sum(loss.double())),
            **{f"grad/{name}": value for name, value in neutral.items()},
        }

    # Preparation and state -------------------------------------------------------------------

    def prepare(self) -> Preparation:
        begin = time.perf_counter()
        for _ in range(SETTLING_STEPS):
            self.fetch(self.train(Window.blank(self.job)))
        seconds = time.perf_counter() - begin
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

    def load(self, state: State) -> None:
        weights.check(state, self.job.workload, self.job.recipe["model"])
        parameters = self._to_native(state, "param", self.parameters)
        momenta = self._to_native(state, "momentum", self.parameters)
        buffers = self._to_native(state, "buffer", self.buffers)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(parameters[name])
                if self.job.recipe["optimizer"]["momentum"]:
                    # Zeros are what an absent buffer means: 0 * momentum + gradient.
                    slot = self.optimizer.state[parameter]
                    slot["momentum_buffer"] = torch.empty_like(parameter).copy_(momenta[name])
            for name, buffer in self.buffers.items():
                buffer.copy_(buffers[name])

    def _share_buffers(self) -> None:
        """Give every rank rank 0's buffers: there is one set of running statistics."""
        if self.topology.world_size > 1:
            for buffer in self.buffers.values():
                torch.distributed.broadcast(buffer, 0)

    def state(self) -> dict[str, np.ndarray]:
        self._share_buffers()
        parameters = {n: numpy(p) for n, p in self.parameters.items()}
        momenta = {}
        for name, parameter in self.parameters.items():
            buffer = self.optimizer.state[parameter].get("momentum_buffer")
            momenta[name] = np.zeros_like(parameters[name]) if buffer is None else numpy(buffer)
        buffers = {n: numpy(b) for n, b in self.buffers.items()}
        roles = {"param": parameters, "momentum": momenta, "buffer": buffers}
        return {
            f"{role}/{name}": value
            for role, tensors in roles.items()
            for name, value in self._to_neutral(tensors).items()
        }

    def _to_native(self, state: State, role: str, wanted: Iterable[str]) -> dict[str, Tensor]:
        """Return a role's tensors in PyTorch's layouts, by neutral name."""
        names = {name: (name, self.names[name][1]) for name in wanted}
        arrays = naming.to_native({name: state[f"{role}/{name}"] for name in names}, names)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _to_neutral(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return naming.to_neutral(tensors, {n: (n, self.names[n][1]) for n in tensors})

    # The rest --------------------------------------------------------------------------------

    def _put(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)

    def _sum(self, tensor: Tensor) -> Tensor:
        if self.topology.world_size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def agree(self, values: Sequence[int]) -> list[int]:
        if self.topology.world_size == 1:
            return list(values)
        tensor = torch.tensor(values, device=self.device)
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)
        return [int(value) for value in tensor.tolist()]

    def facts(self) -> dict[str, Any]:
        cuda = self.device.type == "cuda"
        return {
            "torch": torch.__version__,
            "settings": environment.recorded(),
            "cuda": torch.version.cuda if cuda else None,
            "cudnn": torch.backends.cudnn.version() if cuda else None,
            "nccl": ".".join(map(str, torch.cuda.nccl.version())) if cuda else None,
            "device": torch.cuda.get_device_name(self.device) if cuda else "cpu",
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            **types(self.job.variant["precision"]),
            "matmul_float32": torch.backends.cuda.matmul.fp32_precision,
            "convolution_float32": torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
            "autotuned": torch.backends.cudnn.benchmark if cuda else None,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "threads": torch.get_num_threads(),
            "compiled": "loss and gradient" if self.job.variant["mode"] == "compile" else "nothing",
            "evaluation": "eager",
            "backend": torch.distributed.get_backend() if self.topology.world_size > 1 else None,
        }

    def memory(self) -> dict[str, int]:
        if self.device.type != "cuda":
            return {}
        return {
            "allocated": torch.cuda.max_memory_allocated(self.device),
            "reserved": torch.cuda.max_memory_reserved(self.device),
        }

    def close(self) -> None:
        if self.topology.world_size > 1:
            torch.distributed.destroy_process_group()


def _distributed(module: torch.nn.Module) -> DistributedDataParallel:
    """Return a module whose gradients are averaged; buffers are shared when they are asked for."""
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    settings: dict[str, Any] = {name: False}
    return DistributedDataParallel(module, **settings)


def _join(topology: Topology, device: torch.device) -> None:
    """Form the process group: NCCL between GPUs, gloo between CPUs."""
    if topology.rank == 0:
        store = torch.distributed.TCPStore(
            topology.host, 0, topology.world_size, is_master=True, wait_for_workers=False
        )
        rendezvous.publish(topology, store.port)
    else:
        host, port = rendezvous.find(topology)
        store = torch.distributed.TCPStore(host, port, topology.world_size, is_master=False)
    torch.distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=topology.rank,
        world_size=topology.world_size,
    )
