"""Smoke test of the JAX image: one training step, eager and compiled, on every device here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import base

sys.path.pop(0)  # this folder's jax.py would hide the package

import flax.linen as nn
import grain.python
import jax
import jax.numpy as jnp
import optax


class Network(nn.Module):
    """A convolution and a linear layer."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Return logits of images (batch, height, width, channels)."""
        features = nn.relu(nn.Conv(4, (3, 3))(images))
        return nn.Dense(3)(features.reshape(len(images), -1))


def loss_after_one_step(*, compiled: bool) -> float:
    """Train a small network for a step and return the loss after it."""
    network, optimizer = Network(), optax.adam(0.01)
    images = jax.random.normal(jax.random.key(1), (5, 8, 8, 1))
    labels = jnp.array([0, 1, 2, 0, 1])
    parameters = network.init(jax.random.key(0), images)

    def loss(parameters: dict) -> jax.Array:
        logits = network.apply(parameters, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(parameters: dict, state: optax.OptState) -> tuple[jax.Array, dict]:
        before, gradients = jax.value_and_grad(loss)(parameters)
        updates, _ = optimizer.update(gradients, state)
        return before, optax.apply_updates(parameters, updates)

    with jax.disable_jit(not compiled):
        before, parameters = (jax.jit(step) if compiled else step)(
            parameters, optimizer.init(parameters)
        )
        after = loss(parameters)
    assert after < before, f"the loss did not fall: {before} to {after}"
    return float(after)


def main() -> None:
    """Compare eager and compiled steps on the CPU, and on a GPU if there is one."""
    assert list(grain.python.MapDataset.range(3)) == [0, 1, 2]
    base.require_gpu(jax.default_backend() != "cpu")
    devices = [jax.devices("cpu")[0]]
    if jax.default_backend() != "cpu":
        devices.append(jax.devices()[0])
    for device in devices:
        with jax.default_device(device):
            eager = loss_after_one_step(compiled=False)
            compiled = loss_after_one_step(compiled=True)
        assert abs(eager - compiled) < 1e-3, f"{device}: eager {eager}, compiled {compiled}"


if __name__ == "__main__":
    main()
    print(base.report())
