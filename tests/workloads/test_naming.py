"""The map between names and layouts is a checked bijection, and is its own way back."""

import numpy as np
import pytest

from lockstep.workloads import naming

LAYOUTS = {
    "dense": (naming.DENSE, (3, 5)),
    "convolution": (naming.CONVOLUTION, (5, 5, 2, 7)),
    "flattened": (
        naming.Layout(axes=(3, 2, 0, 1), views=((24, 5), (2, 3, 4, 5), (5, 24))),
        (24, 5),
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_undone(name: str) -> None:
    layout, shape = LAYOUTS[name]
    neutral = np.arange(np.prod(shape), dtype=float).reshape(shape)
    np.testing.assert_array_equal(layout.invert(layout.apply(neutral)), neutral)


def test_a_flatten_orders_rows_by_channel_first() -> None:
    layout, shape = LAYOUTS["flattened"]
    neutral = np.random.default_rng(0).normal(size=shape)
    image = np.random.default_rng(1).normal(size=(2, 3, 4))
    channels_last = image.reshape(-1) @ neutral
    channels_first = layout.apply(neutral) @ image.transpose(2, 0, 1).reshape(-1)
    np.testing.assert_allclose(channels_first, channels_last)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"a": ("x", None)}, "not mapped"),
        ({"a": ("x", None), "b": ("x", None)}, "two neutral names"),
        ({"a": ("x", None), "b": ("z", None)}, "not mapped"),
        ({"a": ("x", None), "b": ("y", None), "c": ("z", None)}, "mapped but not there"),
        ({"a": ("x", None), "b": ("y", naming.DENSE)}, "does not fit"),
    ],
)
def test_a_map_that_is_no_bijection_is_refused(names, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        naming.check(names, {"a": (2,), "b": (2, 3)}, {"x": (2,), "y": (2, 3)})
