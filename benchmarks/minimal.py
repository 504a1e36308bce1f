"""The hand-written loops that the one loop is compared with: what a tutorial would have.

They train the same model by the same optimizer on the same batches, which lie in RAM as arrays, one
a step: images uint8, labels. A step hands its batch to the framework, normalises it inside the
step, and makes forward, loss, backward and update. Losses are fetched once for as many steps as the
one loop fetches at once (a loop that looked at each loss would be slower). There is nothing else:
no reading, no mask, no checksum, no clock, no record, no log.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Batches = Sequence[tuple[np.ndarray, np.ndarray]]
Loop = Callable[[Batches], np.ndarray]
"""Makes one step with each batch; returns the losses."""


def torch_model_of(recipe: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> tuple[Any, Any]:
    """Return the model with these weights, and its optimizer."""
    import torch

    from lockstep.workloads import naming
    from lockstep.workloads.mnist_cnn import torch_model

    model = torch_model.MnistCnn()
    names = torch_model.names({})
    arrays = naming.to_native({name: state[f"param/{name}"] for name in names}, names)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    settings = recipe["optimizer"]
    optimizer = torch.optim.SGD(
        model.parameters(), lr=settings["learning_rate"], momentum=settings["momentum"]
    )
    return model, optimizer


def torch_loop(recipe: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> Loop:
    """Return the loop in PyTorch."""
    import torch
    from torch.nn import functional

    model, optimizer = torch_model_of(recipe, state)

    def loop(batches: Batches) -> np.ndarray:
        losses = []
        for images, labels in batches:
            x = torch.from_numpy(images).float().mul(2 / 255).sub(1).permute(0, 3, 1, 2)
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), torch.from_numpy(labels).long())
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).numpy()

    return loop


def jax_loop(recipe: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> Loop:
    """Return the loop in JAX, its step compiled."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax.traverse_util import unflatten_dict

    from lockstep.workloads import naming
    from lockstep.workloads.mnist_cnn import flax_model

    model = flax_model.MnistCnn(convolution="im2col")
    names = flax_model.names({})
    arrays = naming.to_native({name: state[f"param/{name}"] for name in names}, names)
    params = unflatten_dict({n: jnp.array(a, jnp.float32) for n, a in arrays.items()}, sep="/")
    settings = recipe["optimizer"]
    optimizer = optax.sgd(settings["learning_rate"], settings["momentum"])

    def loss_of(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = model.apply(params, images.astype(jnp.float32) * (2 / 255) - 1)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(params: Any, moments: Any, images: jax.Array, labels: jax.Array) -> tuple:
        loss, gradients = jax.value_and_grad(loss_of)(params, images, labels)
        updates, moments = optimizer.update(gradients, moments, params)
        return optax.apply_updates(params, updates), moments, loss

    compiled = jax.jit(step, donate_argnums=(0, 1))
    values = [params, optimizer.init(params)]

    def loop(batches: Batches) -> np.ndarray:
        losses = []
        for images, labels in batches:
            values[0], values[1], loss = compiled(*values, images, labels)
            losses.append(loss)
        return np.array(jax.device_get(losses))

    return loop
