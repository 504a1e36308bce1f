"""JAX itself: how it is set up for a job, how processes join, what it tells of its programs."""

import math
import os
import time
from collections.abc import Mapping
from typing import Any

import flax
import jax
import numpy as np
import optax
from jax.experimental import multihost_utils

from lockstep.engines import environment, rendezvous, wheels
from lockstep.engines.contract import COMPUTE_DTYPE, Job, Preparation, Topology, denormals, types
from lockstep.errors import UserError

Key = tuple[int, int]  # what a program's batches are padded to, and how many steps it makes

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
MATMUL = {"float64": "highest", "float32": "highest", "tf32": "tensorfloat32", "bfloat16": None}


def configure(job: Job) -> None:
    """Set up JAX for a job, before anything is computed.

    Raises:
        UserError: there are not the devices that the job asks for.
    """
    jax.config.update("jax_enable_x64", job.variant["precision"] == "float64")
    jax.config.update("jax_default_matmul_precision", MATMUL[job.variant["precision"]])
    if job.variant["deterministic"]:
        _add_flag(DETERMINISTIC)
    if job.caches is not None:
        jax.config.update("jax_compilation_cache_dir", str(job.caches / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    if job.topology.local_devices > 1:
        jax.config.update("jax_num_cpu_devices", job.topology.local_devices)
    if job.topology.world_size > 1 and not jax.distributed.is_initialized():
        _join(job.topology)
    # A single process takes its share; several must not see each other's.
    spare = jax.device_count() - job.topology.devices
    if spare < 0 or (spare and job.topology.world_size > 1):
        raise UserError(
            f"the run asks for {job.topology.devices} devices over {job.topology.world_size} "
            f"processes, JAX sees {jax.device_count()}"
        )


def _add_flag(flag: str) -> None:
    """Give XLA a flag; it reads them when it first looks for devices."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    if flag not in flags:
        os.environ["XLA_FLAGS"] = " ".join([*flags, flag])


def _join(topology: Topology) -> None:
    """Start the distributed runtime: NCCL between GPUs, gloo between CPUs."""
    if topology.rank == 0:
        host, port = topology.host, rendezvous.free_port(topology.host)
        rendezvous.publish(topology, port)
    else:
        host, port = rendezvous.find(topology)
    if hasattr(jax.config, "jax_enable_preemption_service"):
        # It would take SIGTERM from the run, which then neither saves nor ends (JAX before 0.9 has
        # no switch for it).
        jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        f"{host}:{port}",
        topology.world_size,
        topology.rank,
        # Or JAX asks SLURM, which knows of one task a node, ours: it would take one GPU of each.
        local_device_ids=range(topology.local_devices),
        heartbeat_timeout_seconds=math.ceil(topology.timeout),
    )
    # Between CPUs the first sum meets within 30 s or fails: not after a compilation, which may
    # take one rank that much longer.
    multihost_utils.process_allgather(np.int32(topology.rank))


def facts(job: Job, devices: int) -> dict[str, Any]:
    """Return versions, devices and settings as JAX has resolved them.

    Args:
        devices: over all processes.
    """
    compiled, precision = job.variant["mode"] == "jit", job.variant["precision"]
    kinds = types(precision)
    if devices > 1 and not compiled:
        kinds["gradient_communication_dtype"] = COMPUTE_DTYPE[precision]  # see `jax_gradient`
    device = jax.devices()[0]
    cuda = device.platform == "gpu"
    return {
        "jax": jax.__version__,
        "jaxlib": jax.lib.__version__,
        "flax": flax.__version__,
        "optax": optax.__version__,
        "platform_version": device.client.platform_version if cuda else None,
        "cudnn": wheels.version("cudnn") if cuda else None,
        "nccl": wheels.version("nccl") if cuda else None,
        "device": device.device_kind,
        "matmul_precision": jax.config.jax_default_matmul_precision,  # type: ignore[attr-defined]
        "x64": jax.config.jax_enable_x64,  # type: ignore[attr-defined]
        "deterministic": DETERMINISTIC in os.environ.get("XLA_FLAGS", "").split(),
        "settings": environment.recorded(),
        "denormals": denormals(lambda small: _halved(small).any()),
        "devices": devices,
        **kinds,
        "compiled": "step" if compiled else "nothing",
        "evaluation": job.variant["mode"],
    }


@jax.jit
def _halved(x: jax.Array) -> jax.Array:
    return x * 0.5


def memory() -> dict[str, int]:
    """Return peak device memory in bytes, where the device counts it."""
    statistics = jax.local_devices()[0].memory_stats()
    if not statistics:
        return {}
    return {
        "allocated": statistics["peak_bytes_in_use"],
        "reserved": statistics.get("peak_pool_bytes", statistics["peak_bytes_in_use"]),
    }


def planned_memory(program: Any) -> dict[str, int]:
    """Return what a compiled program will need, in bytes, where XLA tells."""
    analysis = program.memory_analysis()
    if analysis is None:
        return {}
    return {
        "arguments": analysis.argument_size_in_bytes,
        "outputs": analysis.output_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
    }


def compiled(
    programs: Mapping[Key, Any], arguments: Mapping[Key, tuple[Any, ...]]
) -> tuple[dict[Key, Any], Preparation]:
    """Return programs compiled for their arguments, and what that took."""
    hits = 0

    def listen(event: str, **_: Any) -> None:
        nonlocal hits
        hits += event == "/jax/compilation_cache/cache_hits"

    jax.monitoring.register_event_listener(listen)
    done, memory = {}, dict[str, int]()
    trace = compilation = 0.0
    for key, program in programs.items():
        begin = time.perf_counter()
        lowered = program.lower(*arguments[key])
        middle = time.perf_counter()
        done[key] = lowered.compile()
        trace += middle - begin
        compilation += time.perf_counter() - middle
        memory = planned_memory(done[key])
    cache = "warm" if hits >= len(programs) else "cold"
    return done, Preparation(
        trace_seconds=trace, compile_seconds=compilation, cache=cache, memory=memory
    )
