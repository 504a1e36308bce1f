"""A linear layer with an optimizer on both sides."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch import nn


def adamw(parameters: list[Any]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-2)


def port(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ p["w"] + p["b"]


SOUND: dict[str, Any] = {"torch": adamw, "optax": optax.adamw(1e-3, weight_decay=1e-2)}


def pair(fault: dict[str, Any]) -> dict[str, Any]:
    """The names of a pair's file, with another optimizer on one side, or on both."""
    torch.manual_seed(0)
    settings = {**SOUND, **fault}
    return {
        "torch_model": nn.Linear(4, 3),
        "jax_model": port,
        "jax_params": {"b": jnp.zeros(3), "w": jnp.zeros((4, 3))},
        "batch": np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32),
        "torch_optimizer": settings["torch"],
        "jax_optimizer": settings["optax"],
    }


def clipped(parameters: list[Any]) -> Any:
    """SGD after PyTorch's own clipping."""
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()

    return step


def scheduled(parameters: list[Any]) -> Any:
    """Adam whose learning rate falls by a tenth each step."""
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 1 - 0.1 * k)

    def step() -> None:
        optimizer.step()
        schedule.step()

    return step


def rate(shift: int) -> Any:
    """The same schedule in optax, `shift` steps late."""
    return lambda count: 1e-2 * (1 - 0.1 * (count - shift))
