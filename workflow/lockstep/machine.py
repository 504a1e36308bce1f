"""What a node is, for the contract of a record. Standard library only."""

import hashlib
import importlib.metadata
import itertools
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def facts() -> dict[str, Any]:
    """Return facts about this node; what is not there is left out."""
    model, flags = _cpu()
    return {
        "node": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cpu": model,
        "instruction_set": instruction_set(flags),
        "cores": len(os.sched_getaffinity(0)),
        "gpus": _gpus(),
    }


def instruction_set(flags: str | None = None) -> str:
    """Return a short hash of the CPU's features: compiled programs and bits depend on them."""
    flags = _cpu()[1] if flags is None else flags
    return hashlib.sha256(" ".join(sorted(flags.split())).encode()).hexdigest()[:12]


def _cpu() -> tuple[str, str]:
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    return fields.get("model name", platform.processor()), fields.get("flags", platform.machine())


def gpu_count() -> int:
    """Return how many GPUs `nvidia-smi` sees."""
    return len(_gpus())


def _gpus() -> list[dict[str, str]]:
    """Return name, UUID and driver of each GPU that `nvidia-smi` sees."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,uuid,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (subprocess.SubprocessError, OSError):
        return []
    rows = (line.split(", ") for line in answer.stdout.splitlines() if line)
    return [{"name": name, "uuid": uuid, "driver": driver} for name, uuid, driver in rows]


def visible_gpus() -> list[str]:
    """Return the GPUs that processes started here may use, as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        # As CUDA reads it: what follows a negative number is out of sight, too.
        seen = itertools.takewhile(lambda name: not name.startswith("-"), chosen.split(","))
        return [name for name in seen if name and name != "NoDevFiles"]
    devices = [p.name for p in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", p.name)]
    return [str(index) for index in range(len(devices))]


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
