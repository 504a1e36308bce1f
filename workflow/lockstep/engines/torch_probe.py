"""Looks into a PyTorch model, op by op: what its layers give, and the gradient of its input."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from lockstep.engines.contract import RATE, SITE, SPACING, STRIDE, WORDS
from lockstep.engines.torch_random import Random
from lockstep.workloads import taps

if TYPE_CHECKING:
    from lockstep.engines.torch_engine import TorchEngine


def look(engine: "TorchEngine", row: Mapping[str, Tensor], weight: Tensor) -> dict[str, Tensor]:
    """Return outputs, terms and, on one device, samples of layers and of inputs' gradients.

    Args:
        row: one batch of this rank.
        weight: its loss units over all ranks.
    """
    batch = engine.seen(row)
    inputs = engine.inputs(batch)
    with torch.no_grad():
        outputs = engine.outputs(engine.module, inputs, train=True)
        terms = engine.terms(outputs, batch, weight)
    found = {f"output/{name}": _wide(output) for name, output in outputs.items()}
    found |= {f"term/{name}": term.double() for name, term in terms.items()}
    if engine.topology.devices == 1:
        made = {n: x.requires_grad_() for n, x in off_ties(inputs, batch).items()}
        layers: dict[str, Tensor] = {}
        with _listening(engine.module, engine.layers, layers):
            outputs = engine.outputs(engine.module, {**inputs, **made}, train=True)
        loss = functools.reduce(torch.add, engine.terms(outputs, batch, weight).values())
        wanted = list(made.values())
        # None where the loss does not reach an input: zero, which the ladder shall name.
        gradients = torch.autograd.grad(loss, wanted, allow_unused=True) if wanted else ()
        for (name, x), gradient in zip(made.items(), gradients):
            found[f"input/{name}"] = sampled(torch.zeros_like(x) if gradient is None else gradient)
        found |= {f"tap/{name}": layers[name] for name in engine.layers if name in layers}
        if "key" in batch:
            random = Random(batch, train=True, native=False)
            ones = torch.ones(len(batch["key"]), WORDS, dtype=engine.param_dtype)
            found["random/words"] = random.words(SITE, WORDS)
            found["random/kept"] = random.dropout(ones.to(engine.device), SITE, RATE)
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
                outputs[name] = sampled(output.detach())

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


def off_ties(inputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what was made of a batch's arrays, moved as in `lockstep.engines.jax_probe`."""
    made = {n: x for n, x in inputs.items() if x is not batch.get(n) and x.is_floating_point()}
    return {n: _moved(x.detach()) for n, x in made.items()}


def _moved(x: Tensor) -> Tensor:
    last = x.permute(0, 2, 3, 1) if x.dim() == 4 else x  # images: channels last, as in Flax
    steps = torch.arange(x.numel(), dtype=torch.int32, device=x.device)
    moved = last + ((steps * STRIDE) & 0xFFFF).to(x.dtype).reshape(last.shape) * SPACING
    return moved.permute(0, 3, 1, 2) if x.dim() == 4 else moved


def sampled(x: Tensor) -> Tensor:
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
