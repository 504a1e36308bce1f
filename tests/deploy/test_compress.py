"""Compressed forms are made once, by NumPy, and say what they cost."""

import numpy as np
import pytest

from lockstep.deploy import compress
from lockstep.errors import UserError


@pytest.fixture
def state() -> dict[str, np.ndarray]:
    """A convolution, a dense layer, and what is no kernel."""
    draw = np.random.default_rng(3).normal
    shapes = {"conv.kernel": (3, 3, 2, 4), "conv.bias": (4,), "dense.kernel": (10, 3)}
    made = {f"param/{name}": draw(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return {**made, "buffer/norm.mean": np.ones(4, np.float32)}


def test_bfloat16_is_rounded_half_to_even() -> None:
    bits = np.array([0x3F808000, 0x3F818000, 0x3F808001], np.uint32)  # two halves, and above one
    form = compress.bf16({"param/x.kernel": bits.view(np.float32)})
    assert form["param/x.kernel"].tolist() == [0x3F80, 0x3F82, 0x3F81]
    restored = compress.restored(form)["param/x.kernel"]
    assert restored.view(np.uint32).tolist() == [0x3F800000, 0x3F820000, 0x3F810000]


@pytest.mark.parametrize(("form", "levels"), [("int8", 127), ("int4", 7)])
def test_integers_are_within_half_a_unit_of_the_weights(
    state: dict[str, np.ndarray], form: str, levels: int
) -> None:
    made = compress.FORMS[form](state)
    for name in ("conv.kernel", "dense.kernel"):
        kernel, scale = made[f"param/{name}"], made[f"scale/{name}"]
        assert kernel.dtype == np.int8
        # Each channel uses the whole range: its largest weight is the largest integer.
        reached = np.abs(kernel.astype(int)).max(axis=tuple(range(kernel.ndim - 1)))
        assert (reached == levels).all()
        moved = np.abs(compress.restored(made)[f"param/{name}"] - state[f"param/{name}"])
        assert (moved <= scale * 0.5001).all()
    assert made["param/conv.bias"] is state["param/conv.bias"]
    assert compress.restored(made).keys() == state.keys()


def test_a_channel_of_zeros_has_no_scale(state: dict[str, np.ndarray]) -> None:
    state["param/dense.kernel"][:, 1] = 0
    with pytest.raises(UserError, match=r"channel 1 of dense\.kernel is zero throughout"):
        compress.FORMS["int8"](state)
    state["param/dense.kernel"][:, 1] = np.nan
    with pytest.raises(UserError, match=r"channel 1 of dense\.kernel is not finite"):
        compress.FORMS["int4"](state)


def test_a_layer_that_sees_only_zeros_has_no_step(state: dict[str, np.ndarray]) -> None:
    made = compress.static(state, {"conv.kernel": 2.0, "dense.kernel": 1.0})
    assert made["activation/conv.kernel"] == np.float32(2 / 127)
    with pytest.raises(UserError, match=r"inputs of dense\.kernel are zero throughout"):
        compress.static(state, {"conv.kernel": 2.0, "dense.kernel": 0.0})


def test_half_of_the_weights_are_zero_and_they_are_the_smaller_ones(
    state: dict[str, np.ndarray],
) -> None:
    kernel = compress.half(state)["param/dense.kernel"]
    dropped = np.abs(state["param/dense.kernel"])[kernel == 0]
    assert (kernel == 0).sum() == kernel.size // 2
    assert dropped.max() <= np.abs(kernel[kernel != 0]).min()


def test_two_of_each_four_inputs_are_kept(state: dict[str, np.ndarray]) -> None:
    made = compress.two_of_four(state)
    conv = made["param/conv.kernel"].reshape(-1, 4)[:16].reshape(4, 4, 4)
    assert ((conv != 0).sum(axis=1) == 2).all()
    dense = made["param/dense.kernel"]  # of ten inputs two groups, and two that are kept
    assert ((dense[:8].reshape(2, 4, 3) != 0).sum(axis=1) == 2).all()
    assert (dense[8:] == state["param/dense.kernel"][8:]).all()


def test_a_form_says_how_large_it_is(state: dict[str, np.ndarray]) -> None:
    weights, rest = 72 + 30, 4 * 4 + 4 * 4  # bias, and a buffer
    scales = 4 * (4 + 3)
    assert compress.size(state, "float32") == 4 * weights + rest
    assert compress.size(compress.FORMS["int8"](state), "int8") == weights + scales + rest
    assert compress.size(compress.FORMS["int4"](state), "int4") == weights // 2 + scales + rest
    half = compress.size(compress.half(state), "half")
    assert half == 4 * weights // 2 + 72 // 8 + 4 + rest
    bf16 = compress.size(compress.bf16(state), "bf16")
    assert bf16 == 2 * weights + 2 * 4 + 4 * 4
