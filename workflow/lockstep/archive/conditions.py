"""What a record says of its run's conditions: versions and machine, against what says so too."""

from collections.abc import Iterator, Mapping
from typing import Any

NEEDED = (
    "contract.host.cpu",
    "contract.host.instruction_set",
    "contract.topology.threads",
    "weights.final",
)
"""What running it again is compared by, as `reproduced` does."""

SAME_MACHINE = ("cpu", "instruction_set", "system")
"""Of a node, whoever asks it, within an image or not: cores and GPUs are those of a SLURM step."""


def check(summary: Mapping[str, Any], job: Any) -> Iterator[str]:
    """Yield where a record contradicts itself, or the record of the job that trained it.

    Args:
        job: of the run's block, newest attempt; None if there is no record of it.
    """
    for path in NEEDED:
        if _at(summary, path) is None:
            yield f"summary.json: has no {path}, which running it again is compared by"
    yield from _settings(summary["contract"])
    yield from _versions(summary["contract"])
    yield from _machine(summary, job)


def _at(summary: Mapping[str, Any], path: str) -> Any:
    value: Any = summary
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _settings(contract: Mapping[str, Any]) -> Iterator[str]:
    """Yield where a run's contract is not of the settings that its identity is made of."""
    settings, topology = contract["determined_by"]["settings"], contract["topology"]
    pairs = {
        "recipe": (contract["recipe"], settings["workload"]),
        "variant": (contract["variant"], settings["variant"]),
    }
    for name in ("threads", "window_steps"):
        if name in topology:
            pairs[f"topology.{name}"] = topology[name], settings[name]
    for name, (said, determined) in pairs.items():
        if said != determined:
            yield f"summary.json: contract.{name} is not that of determined_by"


def _versions(contract: Mapping[str, Any]) -> Iterator[str]:
    """Yield packages whose versions the framework and the identity do not say alike."""
    engine, environment = contract["engine"], contract["determined_by"]["environment"]
    for package in sorted(engine.keys() & environment.keys()):
        # The framework says besides what it was built for: 2.15.0+cu132.
        said, determined = (str(of[package]).split("+")[0] for of in (engine, environment))
        if said != determined:
            yield f"summary.json: contract.engine has {package} {said}, determined_by {determined}"


def _machine(summary: Mapping[str, Any], job: Any) -> Iterator[str]:
    """Yield where the host is not the first of its nodes, or not that of the run's job."""
    host = summary["contract"]["host"]
    first: Mapping[str, Any] = next(iter(host.get("nodes") or []), {})
    for field, value in first.items():
        if host.get(field) != value:
            yield f"summary.json: contract.host.{field} is not that of its first node"
    if not _within(summary, job) or job["host"].get("node") != host.get("node"):
        return  # an earlier attempt made it, maybe elsewhere
    for field in SAME_MACHINE:
        if host.get(field) != job["host"].get(field):
            yield f"summary.json: contract.host.{field} is not that of its job in logs/train"


def _within(summary: Mapping[str, Any], job: Any) -> bool:
    """Whether a run's last attempt was made by a job."""
    attempts = (summary["contract"]["host"].get("job") or {}).get("attempts")
    if job is None or not attempts:
        return False
    return bool(job["started"] <= attempts[-1]["started"] and summary["ended"] <= job["ended"])
