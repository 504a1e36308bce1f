"""The loops that a user of PyTorch would pick instead, of the same model on the same examples.

Each makes as many steps as it is asked for and goes on from there the next time. They shuffle by
themselves, so that their batches are others than ours, of the same size. What is not installed is
left out: none of it is a dependency.
"""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

Steps = Callable[[int], None]
"""Makes so many steps, and waits for the last one."""

PACKAGES = {"DataLoader over tensors": "torch", "Accelerate": "accelerate"}
"""What each needs, by name."""


def installed() -> list[str]:
    """Return the loops that can be measured here."""
    return [name for name, package in PACKAGES.items() if importlib.util.find_spec(package)]


def make(
    name: str,
    recipe: Mapping[str, Any],
    state: Mapping[str, np.ndarray],
    images: np.ndarray,
    labels: np.ndarray,
) -> Steps:
    """Return a loop.

    Args:
        name: one of `PACKAGES`.
        images: uint8 ``(N, height, width, channels)``.
        labels: int32 ``(N,)``.
    """
    import torch
    from torch.nn import functional
    from torch.utils.data import DataLoader, TensorDataset

    from benchmarks import minimal

    model, optimizer = minimal.torch_model_of(recipe, state)
    pixels = torch.from_numpy(images).float().mul(2 / 255).sub(1).permute(0, 3, 1, 2).contiguous()
    examples = TensorDataset(pixels, torch.from_numpy(labels).long())
    loader: Any = DataLoader(examples, batch_size=recipe["global_batch"], shuffle=True)
    backward: Callable[[Any], None] = lambda loss: loss.backward()  # noqa: E731
    if name == "Accelerate":
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=True)
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        backward = accelerator.backward

    def forever() -> Iterator[Any]:
        while True:
            yield from loader

    batches = forever()

    def steps(count: int) -> None:
        for _ in range(count):
            x, y = next(batches)
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), y)
            backward(loss)
            optimizer.step()
        loss.item()

    return steps
