"""Looks into a PyTorch model, op by op: what its layers give, and the gradient of its input."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from lockstep.workloads import taps

if TYPE_CHECKING:
    from lockstep.engines.torch_engine import TorchEngine


def look(engine: "TorchEngine", row: Mapping[str, Tensor], count: Tensor) -> dict[str, np.ndarray]:
    """Return the logits and, on one device, samples of layers and of the input's gradient.

    Args:
        row: one batch of this rank.
        count: its real examples over all ranks.
    """
    alone = engine.topology.devices == 1
    batch = engine.seen(row)
    images = engine.inputs(batch).detach().requires_grad_(alone)
    outputs: dict[str, Tensor] = {}
    listening = _listening(engine.module, engine.layers, outputs)
    with torch.set_grad_enabled(alone), listening, engine.autocast():
        logits = engine.module(images)
    found = {"logits": numpy(_wide(logits))}
    if alone:
        loss = engine.mean_loss(logits, batch, count)
        # None where the loss does not reach the images: zero, which the ladder shall name.
        (gradient,) = torch.autograd.grad(loss, images, allow_unused=True)
        gradient = torch.zeros_like(images) if gradient is None else gradient
        found["input/gradient"] = numpy(_sampled(gradient))
        found |= {f"tap/{name}": numpy(outputs[name]) for name in engine.layers if name in outputs}
    return found


@contextlib.contextmanager
def _listening(
    module: nn.Module, layers: Mapping[str, str], outputs: MutableMapping[str, Tensor]
) -> Iterator[None]:
    """Put a sample of each layer's output into `outputs` while the model is called.

    Args:
        layers: from a tap's name to the path of its module; one that the model lacks is no tap.
        outputs: of a layer that is called more than once the last.
    """
    modules = dict(module.named_modules())

    def keep_as(name: str) -> Callable[[nn.Module, tuple, object], None]:
        def keep(_: nn.Module, __: tuple, output: object) -> None:
            if isinstance(output, Tensor):
                outputs[name] = _sampled(output.detach())

        return keep

    handles = [
        modules[path].register_forward_hook(keep_as(name))
        for name, path in layers.items()
        if path in modules
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _sampled(x: Tensor) -> Tensor:
    """Return a sample of a tensor, ``(n,)``: of images channels first, as if they came last."""
    if x.dim() == 4:
        x = x.permute(0, 2, 3, 1)
    flat = x.reshape(-1)
    places = torch.from_numpy(taps.places(flat.numel(), taps.SAMPLE)).to(flat.device)
    return _wide(flat[places])


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype is torch.bfloat16 else x  # which NumPy does not have


def numpy(tensor: Tensor) -> np.ndarray:
    """Return a copy of a tensor in the host's memory."""
    return np.array(tensor.detach().cpu().contiguous().numpy())
