"""What a run's record says that could explain a difference, in one wording for both frameworks.

Is TF32 on? Which CUDA? Of several nodes every one counts.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lockstep.records.load import Record

Facts = Mapping[str, Any]
"""By dotted name."""


def facts_of(record: Record) -> dict[str, Any]:
    """Return the facts of a run that has a summary, by dotted name."""
    summary, contract = record.summary, record.summary["contract"]
    engine, host = dict(contract["engine"]), dict(contract["host"])
    determined = contract["determined_by"]
    each = each_host(host)
    host.pop("nodes", None)
    gpus = [gpu for node in each for gpu in node.get("gpus") or []]
    image = host.pop("image", None) or {}
    packages = dict(determined.get("environment") or {})
    if "image" in packages and packages["image"] == image.get("identity"):
        del packages["image"]  # said by the image itself
    topology = {k: v for k, v in contract["topology"].items() if k != "processes"}
    # Variables that say how threads wait are recorded with the topology as well.
    waiting, settings = topology.get("environment") or {}, engine.get("settings") or {}
    engine["settings"] = {name: v for name, v in settings.items() if name not in waiting}
    # Whether a process drives one device or several is declared; what a device does must be equal.
    processes = topology.pop("world_size")
    devices = topology["devices"] = topology.get("devices") or processes
    topology["examples"] = topology.pop("local_batch") * processes / devices
    result: dict[str, Any] = {
        "dataset.content": summary["dataset"].get("content"),
        "weights.initial": summary["weights"].get("initial"),
        **{name: summary.get(name) for name in ("batches", "steps", "cache")},
        "code": determined.get("code"),
        "precision.products": _products(contract["variant"]["framework"], engine),
        "precision.parameters": engine.pop("parameter_dtype", None),
        "precision.computation": engine.pop("compute_dtype", None),
        "device.kind": "cpu" if engine.pop("device", "cpu") == "cpu" else "gpu",
        "gpu.model": ", ".join(sorted({g.get("name", "?") for g in gpus})) or None,
        "gpu.units": ", ".join(sorted(g.get("uuid", "?") for g in gpus)) or None,
        "gpu.driver": ", ".join(sorted({g.get("driver", "?") for g in gpus})) or None,
        "cudnn": cudnn(engine.pop("cudnn", None)),
        "nccl": engine.pop("nccl", None),
        **_cuda(engine),
        **_hosts(host, each),
    }
    parts = {"topology": topology, "image": image, "environment": packages, "engine": engine}
    for name, value in {**contract, **parts}.items():
        if name not in ("determined_by", "host"):
            result |= _flat(name, value) if isinstance(value, Mapping) else {name: value}
    return result


def each_host(host: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what a contract's `host` says of each node of a run."""
    return host.get("nodes") or [host]


def _hosts(host: Mapping[str, Any], each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the facts of all nodes: one value where they are equal, else one for each node.

    The values are sorted: which of them came first in the job explains nothing.
    """
    by_node = [_flat("host", {**host, **node, "gpus": None, "job": None}) for node in each]
    joined: dict[str, Any] = {}
    for name in dict.fromkeys(name for facts in by_node for name in facts):
        values = [facts.get(name) for facts in by_node]
        same = all(value == values[0] for value in values)
        joined[name] = values[0] if same else ", ".join(sorted(map(str, values)))
    return joined


def _products(framework: str, engine: dict[str, Any]) -> str:
    """Return how products were computed: `ieee` or `tf32` in float32, else the operands' type."""
    torch_says = {str(engine.pop(k, None)) for k in ("matmul_float32", "convolution_float32")}
    jax_says = str(engine.pop("matmul_precision", None))
    if engine.get("compute_dtype") not in (None, "float32"):
        return str(engine["compute_dtype"])  # settings for float32 touch nothing then
    if framework == "torch":
        return "tf32" if "tf32" in torch_says else "/".join(sorted(torch_says))
    # JAX's default on a GPU is TF32; on a CPU every setting is IEEE float32.
    if jax_says in ("highest", "float32"):
        return "ieee"
    if jax_says in ("None", "default", "tensorfloat32"):
        on_cpu = engine.get("device", "cpu") == "cpu" and jax_says != "tensorfloat32"
        return "ieee" if on_cpu else "tf32"
    return jax_says


def _cuda(engine: dict[str, Any]) -> dict[str, str | None]:
    """Return CUDA's version and generation, from PyTorch's or from XLA's way of saying it."""
    version = engine.pop("cuda", None)
    platform = engine.pop("platform_version", None)
    if version is None and platform:
        number = re.search(r"cuda\s*(\d{4,5})", str(platform), re.IGNORECASE)  # 12090 is 12.9
        if number:
            value = int(number[1])
            version = f"{value // 1000}.{value % 1000 // 10}"
    generation = str(version).partition(".")[0] if version else None
    return {"cuda.version": version, "cuda.generation": generation}


def cudnn(version: Any) -> str | None:
    """Return cuDNN's version; PyTorch packs 9.26.0 as 92600."""
    if isinstance(version, int):
        return f"{version // 10000}.{version % 10000 // 100}.{version % 100}"
    return version


def _flat(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}"
        result |= _flat(name, value) if isinstance(value, Mapping) else {name: value}
    return result


def nodes(facts: Facts) -> list[str]:
    """Return the nodes of a run; none if it does not say."""
    node = facts.get("host.node")
    return str(node).split(", ") if node else []


PARAMETERS = {"float64": "float64", "float32": "float32", "tf32": "float32", "bfloat16": "float32"}
COMPUTATION = {**PARAMETERS, "bfloat16": "bfloat16"}
"""Types that each precision stands for, as in the engines, which the report cannot import."""


def undeclared_precision(facts: Facts) -> str | None:
    """Return what is wrong if a run computed at another precision than its variant declares."""
    declared, products = facts["variant.precision"], facts["precision.products"]
    if {"float32": "ieee", "tf32": "tf32"}.get(declared, products) != products:
        return f"declares {declared} but computed products in {products}"
    for what, did, types in (
        ("computation", "computed", COMPUTATION),
        ("parameters", "kept its parameters", PARAMETERS),
    ):
        found = facts[f"precision.{what}"]
        if found is None:
            return f"declares {declared} but does not say what it {did} in"
        if found != types[declared]:
            return f"declares {declared} but {did} in {found}"
    return None


def other_threads(record: Record) -> str | None:
    """Return what is wrong if a framework says that its threads are not as many as its CPUs."""
    threads = record.summary["contract"]["engine"].get("threads")  # which XLA does not tell
    cpus = (record.summary.get("contention") or {}).get("cpus")
    if None in (threads, cpus) or threads == cpus:
        return None
    counted = "1 thread" if threads == 1 else f"{threads} threads"
    return f"computed with {counted} on the {cpus} CPUs of its process"
