"""What a stage's job was: when, where, with which packages and variables, and how it ended.

Each stage leaves `logs/STAGE/NAME.json` beside its log, the newest attempt's. Variables are named
here one by one: an environment also holds what nobody else should read.
"""

import datetime
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lockstep import files, machine
from lockstep.cluster import notices, slurm
from lockstep.errors import UserError

SCHEMA = "lockstep-job/1"
REFUSED = 2  # exit status of what ends by a person's mistake

VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "GLIBC_TUNABLES",
    "GLOO_SOCKET_IFNAME",
    "GOMP_SPINCOUNT",
    "JAX_PLATFORMS",
    "LANG",
    "LC_ALL",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "MKL_NUM_THREADS",
    "NCCL_DEBUG",
    "NCCL_IB_DISABLE",
    "NCCL_P2P_DISABLE",
    "NCCL_SOCKET_IFNAME",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "OMP_WAIT_POLICY",
    "OPENBLAS_NUM_THREADS",
    "PYTHONHASHSEED",
    "SLURM_CPUS_PER_TASK",
    "SLURM_JOB_ID",
    "SLURM_JOB_NUM_NODES",
    "SLURM_JOB_PARTITION",
    "SLURM_NTASKS",
    "TF32_OVERRIDE",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING",
    "XLA_FLAGS",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
)
"""The variables that may be written down: what can change a result or a speed."""

PACKAGES = (
    "flax", "grain", "h5py", "jax", "jaxlib", "jinja2", "matplotlib", "numpy", "optax", "pandas",
    "safetensors", "scikit-learn", "scipy", "seaborn", "snakemake", "torch",
    "torchvision",
)  # fmt: skip


def recorded(
    command: Callable[[Any], int], options: Any, *, stage: str, name: str, root: Path
) -> int:
    """Run a stage and write down what its job was; returns its exit status."""
    started = now()
    status: int | None = None
    try:
        status = command(options)
        return status
    except UserError as error:
        status = REFUSED
        notices.say(f"{stage} {name}: {error}")
        raise
    finally:
        files.write_json(
            root / "logs" / stage / f"{name}.json",
            {
                "schema": SCHEMA,
                "stage": stage,
                "name": name,
                "started": started,
                "ended": now(),
                "status": status,
                **facts(),
            },
        )


def facts() -> dict[str, Any]:
    """Return what this process runs on and with."""
    job = slurm.this_job()
    if job:
        job["energy"] = slurm.energy(job["id"])
    return {
        "host": machine.facts() | {"job": job},
        "image": os.environ.get("LOCKSTEP_INSIDE") or None,
        "python": sys.version.split()[0],
        "packages": packages(),
        "environment": variables(os.environ),
    }


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what may be written down of an environment."""
    return {name: environment[name] for name in VARIABLES if name in environment}


def packages() -> dict[str, str]:
    """Return the versions of the packages that stages use, as far as they are installed."""
    return machine.versions(PACKAGES)


def now() -> str:
    """Return the time in UTC, to the second, as RO-Crates write it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
