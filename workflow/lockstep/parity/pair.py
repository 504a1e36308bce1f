"""A study's workload as a pair of models, of which `lockstep port` says why they differ.

The ladder's traces are made apart, each in its framework's own image, and say where two variants
part. Why is found by altering PyTorch's calls beside the JAX model, in one process that has both.
They are compared in float64, on the first batch of the ladder's seed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from lockstep.datasets.reader import Reader
from lockstep.engines.contract import Job, Topology
from lockstep.parity.route import Route
from lockstep.training.feed import SharedFeed
from lockstep.workloads import naming, taps, weights

PRECISION = "float64"


def names(torch_route: Route, jax_route: Route) -> dict[str, Any]:
    """Return what a pair's file would define (`lockstep.port.pair`).

    Args:
        torch_route, jax_route: of a variant of each framework; both of one workload.
    """
    ours, other = torch_half(torch_route), jax_route.job(PRECISION, Topology())
    functions = other.workload.functions("jax")
    model, flax_names = _in_jax(other, functions)
    return {
        "torch_model": ours.module,
        "jax_model": model,
        "batch": ours.batch,
        "precision": PRECISION,
        "torch_call": ours.call(),
        "jax_call": _jax_call(other, functions),
        "torch_loss": _loss(ours.job, ours.functions, ours.weight),
        "jax_loss": _loss(other, functions, ours.weight),
        "parameters": [_line(ours.names[name], flax_names[name]) for name in ours.names],
    }


@dataclass(frozen=True, kw_only=True)
class TorchHalf:
    """A workload in PyTorch, as the ladder's first batch is shown to it.

    Attributes:
        functions: of the workload's model file.
        module: with the initial weights.
        names: from neutral names to the module's.
        batch: NumPy arrays, with the step's numbers.
        weight: loss units of the batch.
    """

    job: Job
    functions: ModuleType
    module: Any
    names: naming.Names
    batch: Mapping[str, np.ndarray]
    weight: float

    @property
    def layers(self) -> dict[str, str]:
        """The path of each tap's module, by the tap's name."""
        model = self.job.recipe["model"]
        parameters = self.job.workload.parameters(model)
        return taps.layers(self.functions, model, self.names, parameters, ".")

    def sample(self, output: Any) -> np.ndarray:
        """Return what a trace keeps of a layer's output."""
        from lockstep.engines import torch_probe

        return torch_probe.numpy(torch_probe.sampled(output.detach()))

    def call(self, *, moved: bool = False) -> Callable:
        """Return what calls the module with a batch, in the mode that the module is in.

        Args:
            moved: with inputs that are moved off their ties, as layers are looked at.
        """
        import torch

        from lockstep.engines.torch_probe import off_ties
        from lockstep.engines.torch_random import Random

        dtypes = {name: torch.from_numpy(array).dtype for name, array in self.batch.items()}

        def call(module: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
            own = {n: x if x.is_floating_point() else x.to(dtypes[n]) for n, x in batch.items()}
            random = Random(own, train=module.training, native=False)
            seen = _seen(self.job, self.functions, own)
            inputs = _inputs(self.functions, seen)
            if moved:
                with torch._C.DisableTorchFunction():  # it is no call of the model's
                    inputs = {**inputs, **off_ties(inputs, seen)}
            return self.functions.forward(module, inputs, random, module.training)

        return call


def torch_half(route: Route) -> TorchHalf:
    """Return a workload's PyTorch model and the first batch of the ladder's seed.

    Args:
        route: of a variant of PyTorch's.
    """
    job = route.job(PRECISION, Topology())
    window = SharedFeed(job, Reader(route.manifest, "train"), route.seed).window(0, 1)
    functions = job.workload.functions("torch")
    return TorchHalf(
        job=job,
        functions=functions,
        module=_in_torch(job, functions, weights.load(route.initial)),
        names=functions.names(job.recipe["model"]),
        batch={n: np.array(a[0]) for n, a in {**window.batch, **window.numbers}.items()},
        weight=float(window.weights[0]),
    )


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


def _jax_call(job: Job, functions: ModuleType) -> Callable:
    from lockstep.engines.jax_random import Random

    def call(module: Any, batch: Mapping[str, Any], train: bool = False) -> dict[str, Any]:
        random = Random(batch, train=train, native=False)
        inputs = _inputs(functions, _seen(job, functions, batch))
        return functions.forward(module, inputs, random, train)

    return call


def _seen(job: Job, functions: ModuleType, batch: Mapping[str, Any]) -> Mapping[str, Any]:
    augment = getattr(functions, "augment", None)
    return augment(batch, job.recipe, job.data) if augment else batch


def _inputs(functions: ModuleType, seen: Mapping[str, Any]) -> Mapping[str, Any]:
    inputs = getattr(functions, "inputs", None)
    return inputs(seen, seen["real"].dtype) if inputs else seen


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
