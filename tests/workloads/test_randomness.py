"""Random numbers inside a model: the same bits in NumPy, PyTorch and JAX, wherever drawn."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lockstep.datasets import keys as streams
from lockstep.workloads import randomness, randomness_flax, randomness_torch

SHAPES = [(7,), (5, 8), (3, 5, 5)]  # odd sizes use half of their last word
RATES = [0.1, 0.5, 0.25]
LIMITS = [1, 2, 7, 30_522, 65_536, 65_537, 10_000_019, (1 << 31) - 1, 1 << 31]


def keys_of(examples: int, name: object = 0) -> np.ndarray:
    """Keys as they are drawn for examples, uint32 (B, 2), the extreme ones among them."""
    keys = streams.words(examples, "test", name).view(np.uint32).reshape(-1, 2).copy()
    keys[:2] = 0, 0xFFFFFFFF
    return keys


def on_torch(function: str, keys: np.ndarray, *rest, compiled: bool = False) -> np.ndarray:
    drawn = getattr(randomness_torch, function)
    if compiled:
        torch.compiler.reset()
        drawn = torch.compile(drawn, dynamic=False)
    return drawn(torch.from_numpy(keys), *rest).numpy()


def on_jax(function: str, keys: np.ndarray, *rest, compiled: bool = False) -> np.ndarray:
    drawn = getattr(randomness_flax, function)
    if compiled:
        drawn = jax.jit(lambda keys: getattr(randomness_flax, function)(keys, *rest))
        return np.asarray(drawn(jnp.asarray(keys)))
    return np.asarray(drawn(jnp.asarray(keys), *rest))


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("backend", [on_torch, on_jax])
def test_words_masks_and_integers_have_the_bits_of_the_definition(backend, compiled: bool) -> None:
    keys = keys_of(16)
    for shape, rate in zip(SHAPES, RATES):
        expected = randomness.keep_mask(keys, 5, shape, 1 - rate)
        given = backend("keep_mask", keys, 5, shape, 1 - rate, compiled=compiled)
        np.testing.assert_array_equal(given, expected)
    words = backend("words", keys, 3, 9, compiled=compiled).view(np.uint32)
    np.testing.assert_array_equal(words, randomness.words(keys, 3, 9))
    for limit in LIMITS if not compiled else LIMITS[4:6]:
        expected = randomness.integers(keys, 1, (64,), limit)
        given = backend("integers", keys, 1, (64,), limit, compiled=compiled)
        np.testing.assert_array_equal(given, expected)
        assert expected.min() >= 0
        assert expected.max() < limit


@pytest.mark.parametrize("backend", [on_torch, on_jax])
def test_keys_may_be_signed(backend) -> None:
    keys = keys_of(8)
    expected = randomness.words(keys, 2, 6)
    np.testing.assert_array_equal(randomness.words(keys.view(np.int32), 2, 6), expected)
    given = backend("words", keys.view(np.int32), 2, 6).view(np.uint32)
    np.testing.assert_array_equal(given, expected)


def test_the_first_words_are_those_of_ever() -> None:
    # Runs of different versions are comparable only as long as these stay.
    words = randomness.words(np.array([[1, 2]], np.uint32), 3, 4)
    assert words.tolist() == [[0x07E8A5A3, 0xBD1D5F1B, 0x4C55A096, 0xA79D95C9]]


@pytest.mark.parametrize("rate", [0.1, 0.5, 1 / 3])
def test_dropout_gives_equal_numbers_in_every_type(rate: float) -> None:
    keys = keys_of(8)
    for dtype in (np.float64, np.float32):
        x = streams.normal(8 * 33, "x").reshape(8, 33).astype(dtype)
        expected = randomness.dropout(x, keys, 4, rate)
        assert expected.dtype == dtype
        given = randomness_torch.dropout(torch.from_numpy(x), torch.from_numpy(keys), 4, rate)
        np.testing.assert_array_equal(given.numpy(), expected)
        with jax.enable_x64(True):
            given = randomness_flax.dropout(jnp.asarray(x), jnp.asarray(keys), 4, rate)
            np.testing.assert_array_equal(np.asarray(given), expected)


def test_dropout_in_bfloat16_rounds_once() -> None:
    keys = keys_of(8)
    x = streams.normal(8 * 33, "x").reshape(8, 33).astype(np.float32)
    half = torch.from_numpy(x).bfloat16()
    expected = randomness.dropout(half.float().numpy(), keys, 4, 0.1)
    expected = torch.from_numpy(expected).bfloat16().float().numpy()
    given = randomness_torch.dropout(half, torch.from_numpy(keys), 4, 0.1)
    assert given.dtype is torch.bfloat16
    np.testing.assert_array_equal(given.float().numpy(), expected)
    given = randomness_flax.dropout(jnp.asarray(x, jnp.bfloat16), jnp.asarray(keys), 4, 0.1)
    assert given.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(given.astype(jnp.float32)), expected)


def test_gradients_pass_through_kept_elements_alone() -> None:
    keys, x = keys_of(4), np.ones((4, 20))
    expected = randomness.dropout(x, keys, 1, 0.5)
    tensor = torch.from_numpy(x).requires_grad_()
    randomness_torch.dropout(tensor, torch.from_numpy(keys), 1, 0.5).sum().backward()
    np.testing.assert_array_equal(tensor.grad.numpy(), expected)
    given = jax.grad(lambda x: randomness_flax.dropout(x, jnp.asarray(keys), 1, 0.5).sum())(x)
    np.testing.assert_array_equal(np.asarray(given), expected)


def test_an_example_has_its_numbers_in_any_batch() -> None:
    keys = keys_of(12)
    whole = randomness.keep_mask(keys, 1, (6, 7), 0.9)
    for backend in (on_torch, on_jax):
        parts = [backend("keep_mask", part, 1, (6, 7), 0.9) for part in np.split(keys, [1, 5])]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_mesh_draws_without_talking() -> None:
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    keys = jax.device_put(keys_of(12), sharding)
    drawn = jax.jit(lambda keys: randomness_flax.keep_mask(keys, 1, (6, 7), 0.9)).lower(keys)
    text = drawn.compile().as_text()
    assert not any(word in text for word in ("all-gather", "all-reduce", "all-to-all"))


def test_an_unsigned_comparison_is_another_mask() -> None:
    """The fault that a port of the generator is most likely to have, and that equality catches."""
    keys, keep = keys_of(16), 0.9
    halves = randomness.words(keys, 1, 64).view(np.uint16)
    unsigned = halves < randomness.threshold(keep)
    signed = randomness.keep_mask(keys, 1, (128,), keep)
    assert abs(unsigned.mean() - signed.mean()) < 0.03  # it looks as random
    assert (unsigned != signed).mean() > 0.1


def test_nothing_is_dropped_at_rate_zero_and_every_probability_fits() -> None:
    keys = keys_of(4)
    assert randomness.keep_mask(keys, 0, (1000,), 1.0).all()
    for backend in (on_torch, on_jax):
        assert backend("keep_mask", keys, 0, (1000,), 1.0).all()
        least = backend("keep_mask", keys, 0, (40_000,), 2.0**-16)
        np.testing.assert_array_equal(least, randomness.keep_mask(keys, 0, (40_000,), 2.0**-16))
    x = torch.ones(4, 3)
    assert randomness_torch.dropout(x, torch.from_numpy(keys), 0, 0.0) is x
    for wrong in (0.0, 1.1):
        with pytest.raises(ValueError, match="probability"):
            randomness.threshold(wrong)
    with pytest.raises(ValueError, match="limit"):
        randomness.integers(keys, 0, (1,), 0)


# Quality -------------------------------------------------------------------------------------

EXAMPLES, SITES, SIZE, KEEP = 32, 4, 8192, 0.9


def consecutive(examples: int) -> np.ndarray:
    """The worst keys that somebody could choose."""
    return np.stack([np.arange(examples), np.zeros(examples)], axis=1).astype(np.uint32)


@pytest.fixture(scope="module", params=["drawn", "consecutive"])
def masks(request: pytest.FixtureRequest) -> np.ndarray:
    """Standardised masks, float64 (EXAMPLES, SITES, SIZE): mean 0 and variance 1 if random."""
    keys = keys_of(EXAMPLES + 2)[2:] if request.param == "drawn" else consecutive(EXAMPLES)
    kept = [randomness.keep_mask(keys, site, (SIZE,), KEEP) for site in range(SITES)]
    exact = randomness.threshold(KEEP) / randomness.HALVES
    return (np.stack(kept, axis=1) - exact) / math.sqrt(exact * (1 - exact))


def z(products: np.ndarray) -> float:
    """How many standard deviations a mean of standardised products is from zero."""
    return float(products.mean() * math.sqrt(products.size))


def test_masks_have_the_right_mean_and_no_neighbours(masks: np.ndarray) -> None:
    found = {
        "mean": z(masks),
        **{f"lag {k}": z(masks[..., k:] * masks[..., :-k]) for k in (1, 2, 64, 768)},
        "next example": z(masks[1:] * masks[:-1]),
        "next site": z(masks[:, 1:] * masks[:, :-1]),
    }
    assert all(abs(value) < 4 for value in found.values()), found


def test_no_two_examples_are_alike(masks: np.ndarray) -> None:
    pairs = itertools.combinations(masks[:, 0], 2)
    assert max(abs(z(first * second)) for first, second in pairs) < 5


def test_rows_and_columns_vary_as_much_as_chance(masks: np.ndarray) -> None:
    rows = masks.sum(axis=2) ** 2 / SIZE
    columns = masks.sum(axis=0) ** 2 / EXAMPLES
    assert abs(rows.mean() - 1) < 5 * math.sqrt(2 / rows.size)
    assert abs(columns.mean() - 1) < 5 * math.sqrt(2 / columns.size)
