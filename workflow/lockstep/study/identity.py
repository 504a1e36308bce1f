"""What determines what stages make: the code that they execute, and a dataset's source.

A run, a trace and a dataset are made again when the hash of what determines them has changed.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lockstep import code, files
from lockstep.datasets import sources

LOADING = ("input", "workers")
"""Settings of a variant that decide where its batches come from, not what it computes of them."""


def settle(config: Mapping[str, Any]) -> None:
    """Make the workloads and sources known that lie outside of this package.

    Where such a folder is not there any more, as in an archive, it lies in this package.
    """
    for entry in config.get("workloads", {}).values():
        if entry.get("folder") and Path(entry["folder"]).is_dir():
            code.place(f"lockstep.workloads.{entry['workload']}", Path(entry["folder"]))
    for entry in config.get("datasets", {}).values():
        sources.settle(entry)


def trace_key(variant: Mapping[str, Any]) -> tuple:
    """Return the part of a variant that decides what its parity trace computes."""
    return tuple(value for key, value in sorted(variant.items()) if key not in LOADING)


@functools.cache
def run_code(framework: str, workload: str, package: Path | None = None) -> str:
    """Hash of the code that a run of this framework and workload executes.

    Args:
        package: another package's folder, whose code is meant.
    """
    modules = framework_modules(framework, workload)
    return code.digest("lockstep.training.worker", *modules, package=package)


@functools.cache
def trace_code(framework: str, workload: str) -> str:
    """Hash of the code that makes a parity trace."""
    return code.digest("lockstep.parity.trace", *framework_modules(framework, workload))


@functools.cache
def deploy_code(frameworks: tuple[str, ...], workload: str) -> str:
    """Hash of the code that deploys a workload's final states."""
    kinds = ["reference", "make", "measure", "compressing", "compressed", "onnx_runtime"]
    modules: list[str] = []
    for framework in frameworks:
        kinds += [f"{framework}_routes", f"{framework}_layers"]
        modules += framework_modules(framework, workload)
    return code.digest("lockstep.deploy.stage", *(f"lockstep.deploy.{k}" for k in kinds), *modules)


def dataset_identity(entry: Mapping[str, Any], package: Path | None = None) -> str:
    """Hash of what determines a preprocessed dataset: source, options and code.

    The raw files are not part of it: a source knows their checksums, or hashes them into
    the shards. Where it knows none, their folder is: two such datasets may have one name.
    Its whole path, as two checkouts may share their data; links in it are not followed, which
    lead elsewhere in a container and on another node.

    Args:
        entry: the dataset's complete entry in a config.
        package: another package's folder, whose code is meant.
    """
    source = entry["source"]
    determined_by = [source, entry["options"], dataset_code(source, package)]
    if entry["raw"] and not sources.downloads(source, package):
        determined_by.append(str(Path(entry["raw"]).absolute()))
    return files.digest(determined_by)


@functools.cache
def dataset_code(source: str, package: Path | None = None) -> str:
    """Hash of the code that preprocesses a source."""
    modules = ("lockstep.datasets.prepare", f"lockstep.datasets.sources.{source}")
    return code.digest(*modules, package=package)


@functools.cache
def stage_code(*modules: str) -> str:
    """Hash of the code of a stage without frameworks."""
    return code.digest(*modules)


def framework_modules(framework: str, workload: str) -> tuple[str, ...]:
    """Return the modules that are imported by name, which a closure cannot see."""
    model = {"torch": "torch_model", "jax": "flax_model"}[framework]
    return (
        f"lockstep.engines.{framework}_engine",
        f"lockstep.engines.{framework}_input",
        f"lockstep.workloads.{workload}.{model}",
        f"lockstep.workloads.{workload}.spec",
    )
