"""PyTorch itself: how it is set up for a job, how processes join, what it tells of the machine."""

import datetime
import inspect
import logging
import os
from typing import Any

import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from lockstep.engines import environment, rendezvous, torch_random
from lockstep.engines.contract import Job, Topology, denormals, types

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
FIXED_WORKSPACES = (":4096:8", ":16:8")  # without one of them deterministic products are refused


def configure(job: Job) -> None:
    """Set up PyTorch for a job, before anything is computed."""
    precision = job.variant["precision"]
    tf32 = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = tf32
    torch.backends.cudnn.conv.fp32_precision = tf32  # type: ignore[attr-defined]
    if job.variant["deterministic"] and os.environ.get(WORKSPACE) not in FIXED_WORKSPACES:
        os.environ[WORKSPACE] = FIXED_WORKSPACES[0]
    # On a CPU sums have a fixed order, but for those of looked-up rows' gradients that inductor has
    # several threads add up at once: what is interrupted would not end with equal bits.
    on_cpu = job.variant["mode"] == "compile" and not torch.cuda.is_available()
    torch.use_deterministic_algorithms(job.variant["deterministic"] or on_cpu)
    torch.utils.deterministic.fill_uninitialized_memory = job.variant["deterministic"]  # type: ignore[attr-defined]
    # As XLA does by itself: convolutions are tried out before one is chosen.
    torch.backends.cudnn.benchmark = not job.variant["deterministic"]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    # As XLA does on a CPU: momentum of what has no gradient any more ends below 1e-38 and stays
    # there, and some CPUs take longer over it. Threads that exist already keep theirs.
    torch.set_flush_denormal(True)
    torch_random.seed(job.topology.rank)
    if job.variant["mode"] == "compile":  # eager runs need not import the compiler for it
        # Or an earlier engine's programs count towards the limit of this one's.
        torch.compiler.reset()
    if job.caches is not None:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(job.caches / "inductor")
        os.environ["TRITON_CACHE_DIR"] = str(job.caches / "triton")
    if not torch.cuda.is_available():
        # It warns of a CUDA toolkit without a GPU, which is what a login node has.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


def device(topology: Topology) -> torch.device:
    """Return this process's device."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # The launcher shows each process its own GPU alone, unless there are fewer.
    return torch.device("cuda", topology.local_rank % max(1, torch.cuda.device_count()))


def join(topology: Topology, own: torch.device) -> None:
    """Form the process group: NCCL between GPUs, gloo between CPUs."""
    if topology.world_size == 1 or torch.distributed.is_initialized():
        return
    if topology.rank == 0:
        store = torch.distributed.TCPStore(
            topology.host, 0, topology.world_size, is_master=True, wait_for_workers=False
        )
        rendezvous.publish(topology, store.port)
    else:
        host, port = rendezvous.find(topology)
        store = torch.distributed.TCPStore(host, port, topology.world_size, is_master=False)
    torch.distributed.init_process_group(
        "nccl" if own.type == "cuda" else "gloo",
        store=store,
        timeout=datetime.timedelta(seconds=topology.timeout),
        rank=topology.rank,
        world_size=topology.world_size,
    )


def distributed(module: torch.nn.Module) -> DistributedDataParallel:
    """Return a module whose gradients are averaged; buffers are shared when they are asked for."""
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    settings: dict[str, Any] = {name: False}
    return DistributedDataParallel(module, **settings)


def gathered(own: torch.Tensor) -> torch.Tensor:
    """Return a tensor of all ranks, ``(ranks, …)``."""
    if not torch.distributed.is_initialized():
        return own[None]
    parts = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, own)
    return torch.stack(parts)


def facts(job: Job, own: torch.device) -> dict[str, Any]:
    """Return versions, device and settings as PyTorch has resolved them."""
    cuda = own.type == "cuda"
    return {
        "torch": torch.__version__,
        "settings": environment.recorded(),
        "cuda": torch.version.cuda if cuda else None,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if cuda else None,
        "device": torch.cuda.get_device_name(own) if cuda else "cpu",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **types(job.variant["precision"]),
        "matmul_float32": torch.backends.cuda.matmul.fp32_precision,
        "convolution_float32": torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
        "autotuned": torch.backends.cudnn.benchmark if cuda else None,
        "deterministic": job.variant["deterministic"],  # as asked for
        "threads": torch.get_num_threads(),
        "denormals": denormals(lambda small: (torch.from_numpy(small).to(own) * 0.5).any().item()),
        "compiled": "loss and gradient" if job.variant["mode"] == "compile" else "nothing",
        "graph_breaks": graph_breaks() if job.variant["mode"] == "compile" else None,
        "evaluation": "eager",
        "backend": torch.distributed.get_backend() if job.topology.world_size > 1 else None,
    }


def graph_breaks() -> int:
    """Return how often `torch.compile` has cut a graph in this process."""
    return sum(torch._dynamo.utils.counters["graph_break"].values())


def memory(own: torch.device) -> dict[str, int]:
    """Return peak device memory in bytes, where the device counts it."""
    if own.type != "cuda":
        return {}
    return {
        "allocated": torch.cuda.max_memory_allocated(own),
        "reserved": torch.cuda.max_memory_reserved(own),
    }
