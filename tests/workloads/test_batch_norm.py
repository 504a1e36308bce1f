"""Batch normalisation is the same in both frameworks, in all that can quietly differ."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from lockstep.errors import UserError
from lockstep.study import config
from lockstep.workloads import batch_norm_flax, batch_norm_torch

SHAPE = (8, 5, 6, 3)


def both(x: np.ndarray, train: bool, steps: int = 1) -> list[tuple[np.ndarray, ...]]:
    """Outputs, running mean and running variance of PyTorch and Flax, in `x`'s own type."""
    theirs = batch_norm_torch.BatchNorm(3, "global").to(torch.from_numpy(x).dtype).train(train)
    ours = batch_norm_flax.BatchNorm("global", 1, dtype=x.dtype, param_dtype=x.dtype)
    variables = ours.init(jax.random.key(0), jnp.asarray(x), True)
    for _ in range(steps):
        y_torch = theirs(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y_flax, kept = ours.apply(variables, jnp.asarray(x), train, mutable=["batch_stats"])
        variables = {**variables, **kept}
    statistics = variables["batch_stats"]
    return [
        (y_torch.detach().numpy(), theirs.running_mean.numpy(), theirs.running_var.numpy()),
        tuple(np.asarray(a) for a in (y_flax, statistics["mean"], statistics["var"])),
    ]


@pytest.fixture
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.mark.parametrize("train", [True, False])
def test_outputs_and_running_statistics_agree(float64, train: bool) -> None:
    x = np.random.default_rng(0).normal(3.0, 2.0, SHAPE)
    torchs, flaxs = both(x, train, steps=7)
    for a, b in zip(torchs, flaxs):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)


def test_the_running_variance_is_unbiased(float64) -> None:
    x = np.random.default_rng(0).normal(3.0, 2.0, SHAPE)
    for _, mean, var in both(x, train=True):
        np.testing.assert_allclose(mean, 0.1 * x.mean((0, 1, 2)))
        np.testing.assert_allclose(var, 0.9 + 0.1 * x.var((0, 1, 2), ddof=1))


def test_a_small_spread_around_a_large_mean_survives_float32() -> None:
    """The mean of squares less the square of the mean would be noise here."""
    x = np.random.default_rng(0).normal(100.0, 0.01, SHAPE).astype(np.float32)
    exact = x.astype(np.float64) - x.mean((0, 1, 2), dtype=np.float64)
    exact /= np.sqrt(x.var((0, 1, 2), dtype=np.float64) + 1e-5)
    for y, _, _ in both(x, train=True):
        np.testing.assert_allclose(y, exact, atol=2e-2)


def test_under_bfloat16_statistics_are_float32_and_results_bfloat16() -> None:
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).bfloat16()
    wide = x.float().numpy()
    torchs, _ = both(wide, train=True)

    theirs = batch_norm_torch.BatchNorm(3, "global")
    with torch.autocast("cpu", torch.bfloat16):
        y = theirs(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    ours = batch_norm_flax.BatchNorm("global", 1, dtype=jnp.bfloat16)
    given = jnp.asarray(wide).astype(jnp.bfloat16)
    variables = ours.init(jax.random.key(0), given, True)
    z, kept = ours.apply(variables, given, True, mutable=["batch_stats"])

    assert (y.dtype, z.dtype) == (torch.bfloat16, jnp.bfloat16)
    for result in (y.float().detach().numpy(), np.asarray(z.astype(jnp.float32))):
        np.testing.assert_allclose(result, torchs[0], rtol=2**-8, atol=1e-6)
    for mean, var in (
        (theirs.running_mean.numpy(), theirs.running_var.numpy()),
        (kept["batch_stats"]["mean"], kept["batch_stats"]["var"]),
    ):
        assert mean.dtype == np.float32
        np.testing.assert_allclose(mean, torchs[1], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(var, torchs[2], rtol=1e-5)


@pytest.mark.parametrize(
    ("scope", "scale", "batch", "size", "refused"),
    [
        ("global", "1x1", 1, 8, True),  # 8x8 becomes 1x1 in the fourth stage
        ("global", "1x1", 1, 9, False),
        ("global", "1x2", 2, 8, False),
        ("device", "1x2", 2, 8, True),
        ("device", "1x2", 4, 8, False),
    ],
)
def test_a_batch_of_one_value_is_refused(scope, scale, batch, size, refused) -> None:
    """Its unbiased variance would be divided by zero."""
    model = {"size": size, "width": 4, "blocks": [1, 1, 1, 1], "batch_norm": scope}
    study = {
        "study": "one",
        "datasets": {"digits": {"source": "digits"}},
        "workloads": {
            "resnet18_cifar10": {"dataset": "digits", "model": model, "global_batch": batch}
        },
        "variants": {"torch-eager": {"framework": "torch", "mode": "eager"}},
        "scales": [scale],
    }
    if refused:
        with pytest.raises(UserError, match="over 1 image of 1x1, .* one value a channel"):
            config.complete(study)
    else:
        config.complete(study)


def test_groups_are_the_parts_of_a_batch(float64) -> None:
    x = np.random.default_rng(0).normal(3.0, 2.0, SHAPE)
    split = batch_norm_flax.BatchNorm("device", 2, dtype=x.dtype, param_dtype=x.dtype)
    variables = split.init(jax.random.key(0), jnp.asarray(x[:1]), True)
    y, kept = split.apply(variables, jnp.asarray(x), True, mutable=["batch_stats"])
    for part in (slice(0, 4), slice(4, 8)):
        (alone, mean, _), _ = both(x[part], train=True)
        np.testing.assert_allclose(y[part], alone, rtol=1e-12, atol=1e-12)
        if part.start == 0:
            np.testing.assert_allclose(kept["batch_stats"]["mean"], mean, rtol=1e-12)
