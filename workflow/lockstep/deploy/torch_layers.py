"""Looks into the layers of a PyTorch model, and computes them in integers."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lockstep.deploy.compress import KERNEL, LEVELS, SCALE, STEP, Sums
from lockstep.errors import UserError
from lockstep.workloads.weights import State

MOST = LEVELS["int8"]


def _layers(engine: Any, kernels: Sequence[str]) -> dict[str, nn.Module]:
    """Return the modules of kernels, by the kernel's name."""
    found: dict[str, nn.Module] = {}
    for name in kernels:
        module = engine.module.get_submodule(engine.names[name][0].rpartition(".")[0])
        if not isinstance(module, nn.Conv2d | nn.Linear):
            raise UserError(f"{name} is of a {type(module).__name__}, which is not quantised")
        found[name] = module
    return found


@contextlib.contextmanager
def observed(engine: Any, kernels: Sequence[str]) -> Iterator[dict[str, float]]:
    """Note the largest input of each layer while the block runs, by its kernel's name."""
    largest: dict[str, float] = {}

    def hook(name: str) -> Any:
        def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            largest[name] = max(largest.get(name, 0.0), float(inputs[0].abs().max()))

        return see

    layers = _layers(engine, kernels).items()
    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers]
    try:
        yield largest
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def static(engine: Any, form: State) -> Iterator[Sums]:
    """Compute layers in 8-bit integers while the block runs; yields their sums.

    Args:
        form: integers, their scales and the steps of activations.
    """
    kernels = [name.removeprefix(STEP) for name in form if name.startswith(STEP)]
    sums = Sums()
    layers = _layers(engine, kernels)
    for name, layer in layers.items():
        layer.forward = _integer(engine, name, layer, form, sums)
    try:
        yield sums
    finally:
        for layer in layers.values():
            del layer.forward


def _integer(engine: Any, name: str, layer: nn.Module, form: State, sums: Sums) -> Any:
    """Return a layer's forward pass in integers: exact ones, held in float64."""
    layout = engine.names[name][1]
    kernel = torch.from_numpy(layout.apply(form[KERNEL + name])).double()
    step = torch.from_numpy(np.asarray(form[STEP + name]))
    scale = torch.from_numpy(form[STEP + name] * form[SCALE + name])

    def forward(x: Tensor) -> Tensor:
        inputs = torch.clamp(torch.round(x / step), -MOST, MOST).double()
        if isinstance(layer, nn.Conv2d):
            total = functional.conv2d(inputs, kernel, None, layer.stride, layer.padding)
            total = total.permute(0, 2, 3, 1)
        else:
            total = inputs @ kernel.T
        whole = total.to(torch.int32)
        sums.keep(name, whole)
        y = whole.to(x.dtype) * scale
        y = y if layer.bias is None else y + layer.bias  # type: ignore[operator]
        return y.permute(0, 3, 1, 2) if isinstance(layer, nn.Conv2d) else y

    return forward
