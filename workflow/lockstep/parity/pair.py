"""A study's workload as a pair of models, of which `lockstep port` says why they differ.

The ladder's traces are made apart, each in its framework's own image, and say where two variants
part. Why is found by altering PyTorch's calls beside the JAX model, in one process that has both.
They are compared in float64, on the first batch of the ladder's seed.
"""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from lockstep.datasets.reader import Reader
from lockstep.engines.contract import Job, Topology
from lockstep.parity.route import Route
from lockstep.training.feed import SharedFeed
from lockstep.workloads import naming, weights

PRECISION = "float64"


def names(torch_route: Route, jax_route: Route) -> dict[str, Any]:
    """Return what a pair's file would define (`lockstep.port.pair`).

    Args:
        torch_route, jax_route: of a variant of each framework; both of one workload.
    """
    job, other = (route.job(PRECISION, Topology()) for route in (torch_route, jax_route))
    reader = Reader(torch_route.manifest, "train")
    window = SharedFeed(job, reader, torch_route.seed).window(0, 1)
    given = {**window.batch, **window.numbers}
    batch = {name: np.array(array[0]) for name, array in given.items()}
    weight = float(window.weights[0])
    modules = [job.workload.functions(framework) for framework in ("torch", "jax")]
    module = _in_torch(job, modules[0], weights.load(torch_route.initial))
    model, flax_names = _in_jax(other, modules[1])
    torch_names = modules[0].names(job.recipe["model"])
    return {
        "torch_model": module,
        "jax_model": model,
        "batch": batch,
        "precision": PRECISION,
        "torch_call": _torch_call(job, modules[0], batch),
        "jax_call": _jax_call(other, modules[1]),
        "torch_loss": _loss(job, modules[0], weight),
        "jax_loss": _loss(other, modules[1], weight),
        "parameters": [_line(torch_names[name], flax_names[name]) for name in torch_names],
    }


def _in_torch(job: Job, functions: ModuleType, state: weights.State) -> Any:
    """Return PyTorch's module with the initial weights."""
    import torch

    model = job.recipe["model"]
    module = functions.build(model, job.settings)
    own = {name.partition("/")[2]: array for name, array in state.items()}
    held = dict(module.named_parameters()) | dict(module.named_buffers())
    with torch.no_grad():
        for name, array in naming.to_native(own, functions.names(model)).items():
            held[name].copy_(torch.from_numpy(array))
    return module


def _in_jax(job: Job, functions: ModuleType) -> tuple[Any, naming.Names]:
    """Return Flax's module, and its names without their collections where they need none."""
    import jax
    from flax import linen

    model, before = job.recipe["model"], jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    try:
        module = functions.build(model, job.settings)
    finally:
        jax.config.update("jax_enable_x64", before)
    known = functions.names(model)
    if not isinstance(module, linen.Module):
        return module, known
    short = [path.partition("/")[2] for path, _ in known.values()]
    return module, {
        name: (path if short.count(own) > 1 else own, layout)
        for (name, (path, layout)), own in zip(known.items(), short)
    }


def _torch_call(job: Job, functions: ModuleType, batch: Mapping[str, np.ndarray]) -> Callable:
    import torch

    from lockstep.engines.torch_random import Random

    dtypes = {name: torch.from_numpy(array).dtype for name, array in batch.items()}

    def call(module: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        own = {n: x if x.is_floating_point() else x.to(dtypes[n]) for n, x in batch.items()}
        random = Random(own, train=module.training, native=False)
        return functions.forward(module, _inputs(job, functions, own), random, module.training)

    return call


def _jax_call(job: Job, functions: ModuleType) -> Callable:
    from lockstep.engines.jax_random import Random

    def call(module: Any, batch: Mapping[str, Any], train: bool = False) -> dict[str, Any]:
        random = Random(batch, train=train, native=False)
        return functions.forward(module, _inputs(job, functions, batch), random, train)

    return call


def _seen(job: Job, functions: ModuleType, batch: Mapping[str, Any]) -> Mapping[str, Any]:
    augment = getattr(functions, "augment", None)
    return augment(batch, job.recipe, job.data) if augment else batch


def _inputs(job: Job, functions: ModuleType, batch: Mapping[str, Any]) -> Mapping[str, Any]:
    seen, inputs = _seen(job, functions, batch), getattr(functions, "inputs", None)
    return inputs(seen, batch["real"].dtype) if inputs else seen


def _loss(job: Job, functions: ModuleType, weight: float) -> Callable:
    """Return what gives the mean loss."""

    def loss(outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:
        terms = functions.loss(outputs, _seen(job, functions, batch), job.recipe)
        return sum((term * batch["real"]).sum() / weight for term in terms.values())

    return loss


def _line(
    torch: tuple[str, naming.Layout | None], flax: tuple[str, naming.Layout | None]
) -> dict[str, Any]:
    """Return a line of the map from PyTorch's tensors to Flax's, whose layout is the neutral one.

    Raises:
        ValueError: it is another.
    """
    if flax[1] is not None:
        raise ValueError(f"{flax[0]} has not the neutral layout")
    line: dict[str, Any] = {"torch": torch[0], "jax": flax[0]}
    layout = torch[1]
    if layout is not None:
        line["axes"] = np.argsort(layout.axes).tolist()
        if layout.views:
            neutral, split, merged = layout.views
            line["views"] = [merged, [split[axis] for axis in layout.axes], neutral]
    return line
