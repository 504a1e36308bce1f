"""Both lowerings of convolution and pooling compute what PyTorch computes, gradients too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

from lockstep.workloads import layers_flax


@pytest.fixture(autouse=True)
def _float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.mark.parametrize("lowering", ["native", "im2col"])
@pytest.mark.parametrize(
    ("size", "stride", "padding", "image"),
    [
        (5, 1, 0, 12),
        (3, 1, 1, 7),
        (3, 2, 1, 8),
        (3, 2, 1, 7),
        (1, 2, 0, 9),
        (7, 2, 3, 17),
        (1, 1, 0, 4),
    ],
)
def test_convolution_is_torchs(lowering, size, stride, padding, image) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(3, image, image + 2, 4))
    kernel, bias = random.normal(size=(size, size, 4, 6)), random.normal(size=6)
    module = layers_flax.Convolution(
        6,
        size,
        stride=stride,
        padding=padding,
        lowering=lowering,
        dtype=jnp.float64,
        param_dtype=jnp.float64,
    )

    def loss(x, kernel, bias):
        y = module.apply({"params": {"kernel": kernel, "bias": bias}}, x)
        return (y * jnp.cos(jnp.arange(y.size).reshape(y.shape))).sum(), y

    (_, y), gradients = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(x, kernel, bias)
    tx = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    tk = torch.tensor(kernel.transpose(3, 2, 0, 1), requires_grad=True)
    tb = torch.tensor(bias, requires_grad=True)
    ty = functional.conv2d(tx, tk, tb, stride, padding).permute(0, 2, 3, 1)
    (ty * torch.cos(torch.arange(ty.numel()).double().reshape(ty.shape))).sum().backward()
    np.testing.assert_allclose(y, ty.detach().numpy(), atol=1e-12)
    np.testing.assert_allclose(gradients[0], tx.grad.permute(0, 2, 3, 1).numpy(), atol=1e-11)
    np.testing.assert_allclose(gradients[1], tk.grad.permute(2, 3, 1, 0).numpy(), atol=1e-11)
    np.testing.assert_allclose(gradients[2], tb.grad.numpy(), atol=1e-11)


@pytest.mark.parametrize("lowering", ["native", "im2col"])
@pytest.mark.parametrize("shape", [(2, 6, 8, 3), (2, 7, 5, 3)])
def test_pooling_gives_ties_to_the_first_as_torch_does(lowering, shape) -> None:
    random = np.random.default_rng(1)
    x = random.integers(0, 3, shape).astype(float)  # full of ties
    weight = random.normal(size=(shape[0], shape[1] // 2, shape[2] // 2, shape[3]))

    def loss(x):
        y = layers_flax.max_pool_2x2(x, lowering)
        return (y * weight).sum(), y

    gradient, y = jax.grad(loss, has_aux=True)(x)
    tx = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    ty = functional.max_pool2d(tx, 2).permute(0, 2, 3, 1)
    (ty * torch.tensor(weight)).sum().backward()
    np.testing.assert_array_equal(y, ty.detach().numpy())
    np.testing.assert_array_equal(gradient, tx.grad.permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize("lowering", ["native", "im2col"])
@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 7, 9, 3)])
def test_padded_pooling_that_overlaps_is_torchs(lowering, shape) -> None:
    random = np.random.default_rng(1)
    x = random.integers(-3, 3, shape).astype(float)  # full of ties, and below the zeros of padding
    weight = random.normal(size=(2, 4, -(-shape[2] // 2), 3))

    def loss(x):
        y = layers_flax.max_pool(x, size=3, stride=2, padding=1, lowering=lowering)
        return (y * weight).sum(), y

    gradient, y = jax.grad(loss, has_aux=True)(x)
    tx = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    ty = functional.max_pool2d(tx, 3, 2, 1).permute(0, 2, 3, 1)
    (ty * torch.tensor(weight)).sum().backward()
    np.testing.assert_array_equal(y, ty.detach().numpy())
    np.testing.assert_allclose(gradient, tx.grad.permute(0, 2, 3, 1).numpy(), rtol=1e-12)


@pytest.mark.parametrize("lowering", ["native", "im2col"])
def test_nan_is_passed_on(lowering) -> None:
    x = np.zeros((1, 2, 2, 1))
    for place in np.ndindex(2, 2):
        spoiled = x.copy()
        spoiled[0, place[0], place[1], 0] = np.nan
        assert np.isnan(layers_flax.max_pool_2x2(jnp.asarray(spoiled), lowering)).all()


@pytest.mark.parametrize("lowering", ["native", "im2col", "dense"])
def test_a_biass_gradient_is_summed_in_float32_under_bfloat16(lowering: str) -> None:
    """Summed in bfloat16 it is off by several percent over so many rows."""
    random = np.random.default_rng(0)
    kinds = {"dtype": jnp.bfloat16, "param_dtype": jnp.float32}
    if lowering == "dense":
        module, x = layers_flax.Dense(4, **kinds), random.normal(size=(65536, 3))
    else:
        module = layers_flax.Convolution(4, 1, lowering=lowering, **kinds)
        x = random.normal(size=(64, 32, 32, 3))
    x = jnp.asarray(x, jnp.float32)
    variables = module.init(jax.random.key(0), x)
    weight = jnp.asarray(random.uniform(0.5, 1.5, (*x.shape[:-1], 4)), jnp.bfloat16)

    def loss(variables):
        return (module.apply(variables, x) * weight).astype(jnp.float32).sum()

    gradient = jax.grad(loss)(variables)["params"]["bias"]
    expected = np.asarray(weight, np.float64).reshape(-1, 4).sum(0)
    np.testing.assert_allclose(np.asarray(gradient, np.float64), expected, rtol=1e-5)
