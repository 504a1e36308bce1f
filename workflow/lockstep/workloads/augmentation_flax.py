"""`lockstep.workloads.augmentation` in JAX, on the device."""

import jax
import jax.numpy as jnp
from jax import Array, lax

from lockstep.workloads.augmentation import BITS, Kind, centre


def apply(images_bhwc: Array, crops: Array | None, kind: Kind) -> Array:
    """Return what the model is shown, uint8 ``(B, *kind.size, channels)``.

    Args:
        images_bhwc: uint8, as stored.
        crops: int32 ``(B, 5)``; None for the centre of each image.
        kind: of augmentation.
    """
    if crops is None:
        if kind.stored == kind.size:
            return images_bhwc
        top, left = centre(kind.stored, kind.size)
        return images_bhwc[:, top : top + kind.size[0], left : left + kind.size[1]]
    # An example at a time: a gather over the whole batch would make a mesh collect the batch.
    return jax.vmap(lambda image, crop: _apply(image, crop, kind))(images_bhwc, crops)


def _apply(image: Array, crop: Array, kind: Kind) -> Array:
    top, left, height, width, flip = crop
    rows, columns = (jnp.arange(n, dtype=jnp.int32) for n in kind.size)
    columns = jnp.where(flip == 1, kind.size[1] - 1 - columns, columns)
    if not kind.resizes:
        return _pixels(image, rows + top, columns + left)
    above, below, down = _neighbours(rows, height, kind.size[0], top)
    before, after, right = _neighbours(columns, width, kind.size[1], left)
    down, right = down[:, None, None], right[None, :, None]

    def across(at: Array) -> Array:
        first, second = (_taken(image, at, c).astype(jnp.int32) for c in (before, after))
        return first * ((1 << BITS) - right) + second * right

    total = across(above) * ((1 << BITS) - down) + across(below) * down
    return ((total + (1 << (2 * BITS - 1))) >> (2 * BITS)).astype(jnp.uint8)


def _neighbours(index: Array, extent: Array, out: int, start: Array) -> tuple[Array, Array, Array]:
    """Return the two pixels that each output pixel lies between, and the second one's weight."""
    position = jnp.maximum((2 * index + 1) * extent - out, 0)
    whole = jnp.int32(2 * out)
    first = lax.div(position, jnp.full_like(position, whole))  # nothing is negative here
    weight = lax.div((position - first * whole) << BITS, jnp.full_like(position, whole))
    return start + first, start + jnp.minimum(first + 1, extent - 1), weight


def _taken(image: Array, rows: Array, columns: Array) -> Array:
    return image.at[rows[:, None], columns[None, :]].get(mode="promise_in_bounds")


def _pixels(image: Array, rows: Array, columns: Array) -> Array:
    """Return pixels at rows and columns, black outside."""
    height, width = image.shape[:2]
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    taken = _taken(image, rows.clip(0, height - 1), columns.clip(0, width - 1))
    return jnp.where(inside[..., None], taken, jnp.uint8(0))
