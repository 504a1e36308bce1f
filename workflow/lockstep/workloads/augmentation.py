"""Random crops, flips and resizing of images: what is drawn, and what it means, bit by bit.

What happens to an example is a pure function of (seed, epoch, example), drawn here by NumPy and
sent to the device as five integers, a *crop*: ``top, left, height, width, flip`` in pixels of the
stored image. The device cuts that rectangle out (what lies outside the image is black), brings it
to the model's size and mirrors it, in integer arithmetic within 32 bits: the bytes are the same on
every backend, and the checksum of a batch is taken of them. `apply` is the definition;
`augmentation_torch` and `augmentation_flax` are held to it.

`none`           the centre of the stored image, in training as in evaluation.
`crop_flip`      black pixels all around, a random crop of the model's size, mirrored or not.
`resized_crop`   a random part of the image, of area and aspect ratio drawn as torchvision's
                 RandomResizedCrop draws them, resized bilinearly (without antialiasing), mirrored
                 or not. Szegedy et al., Going deeper with convolutions (2015).
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lockstep.datasets import keys

BITS = 11  # of a bilinear weight: two weights and a byte stay below 2**31
BLOCK = 4096  # examples drawn from one key
ATTEMPTS = 10  # crops tried before the whole image is taken, as in torchvision
RATIO_STEPS = 256
_LOWEST, _HIGHEST = 3 / 4, 4 / 3  # of width to height

Shape = tuple[int, ...]

# Logarithmically even, in fixed point: the last bit of `exp`, which machines disagree on, is gone.
_EVEN = (np.arange(RATIO_STEPS) + 0.5) / RATIO_STEPS
RATIOS = np.rint(_LOWEST * (_HIGHEST / _LOWEST) ** _EVEN * 65536) / 65536


@dataclass(frozen=True, kw_only=True)
class Kind:
    """An augmentation, resolved.

    Attributes:
        name: `none`, `crop_flip` or `resized_crop`.
        padding, smallest_area: see `lockstep.workloads.recipe`.
        stored: height and width of the stored images.
        size: height and width that the model takes.
    """

    name: str
    padding: int
    smallest_area: float
    stored: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def of(cls, settings: Mapping[str, Any], stored: Shape, taken: Shape) -> "Kind":
        """Return what a recipe's `augment` asks for, given both shapes of an example."""
        return cls(**settings, stored=stored[:2], size=taken[:2])  # type: ignore[arg-type]

    @property
    def draws(self) -> bool:
        """Whether training takes other than the centre of an image."""
        return self.name != "none"

    @property
    def resizes(self) -> bool:
        """Whether a crop may have another size than the model's images."""
        return self.name == "resized_crop"


def problem(settings: Mapping[str, Any], stored: Shape, taken: Shape) -> str | None:
    """Return why stored images cannot become what the model takes, or None."""
    name = settings["name"]
    around = 2 * settings["padding"] if name == "crop_flip" else 0
    if name == "resized_crop" and not 0 < settings["smallest_area"] <= 1:
        return "augment.smallest_area must be above 0 and at most 1"
    small = name != "resized_crop" and any(s + around < t for s, t in zip(stored[:2], taken[:2]))
    # An evaluation takes the centre: it needs images that are not smaller.
    small = small or any(s < t for s, t in zip(stored[:2], taken[:2]))
    if len(stored) != len(taken) or stored[2:] != taken[2:] or small:
        return (
            f"stored examples are {_times(stored)}, the model takes {_times(taken)}; the "
            "stored ones must be as large at least, with the same channels"
        )
    return None


def _times(shape: Shape) -> str:
    return "×".join(map(str, shape))


def centre(stored: Shape, size: Shape) -> tuple[int, int]:
    """Return the top and left of an image's centre."""
    return (stored[0] - size[0]) // 2, (stored[1] - size[1]) // 2


@functools.lru_cache(maxsize=2)
def crops(kind: Kind, examples: int, seed: int, epoch: int) -> np.ndarray:
    """Return every example's crop in an epoch, int32 ``(examples, 5)``.

    An example's crop depends on kind, seed, epoch and the example alone, not on how many there are.
    """
    draw = {"crop_flip": _crop_flip, "resized_crop": _resized_crop}[kind.name]
    blocks = [draw(kind, seed, epoch, block) for block in range(-(-examples // BLOCK))]
    result = np.concatenate(blocks)[:examples].astype(np.int32)
    result.flags.writeable = False
    return result


def _words(kind: Kind, count: int, seed: int, epoch: int, block: int) -> np.ndarray:
    """Return `count` random words for each example of a block, uint64 ``(count, BLOCK)``."""
    words = keys.words(BLOCK * count, "augment", kind.name, seed, epoch, block)
    return words.reshape(BLOCK, count).T


def _below(word: np.ndarray, limit: np.ndarray | int) -> np.ndarray:
    """Return integers in ``[0, limit)`` from the upper half of random words."""
    return ((word >> np.uint64(32)) * np.asarray(limit, np.uint64)) >> np.uint64(32)


def _crop_flip(kind: Kind, seed: int, epoch: int, block: int) -> np.ndarray:
    down, right, flip = _words(kind, 3, seed, epoch, block)
    room = [s + 2 * kind.padding - t + 1 for s, t in zip(kind.stored, kind.size)]
    top, left = (
        _below(word, n).astype(np.int64) - kind.padding for word, n in zip((down, right), room)
    )
    height, width = (np.full(BLOCK, n) for n in kind.size)
    return np.stack([top, left, height, width, (flip >> np.uint64(63)).astype(np.int64)], axis=1)


def _resized_crop(kind: Kind, seed: int, epoch: int, block: int) -> np.ndarray:
    # Beyond the table only +, *, / and square roots, which IEEE 754 defines to the bit.
    *attempts, place, flip = _words(kind, ATTEMPTS + 2, seed, epoch, block)
    rows, columns = kind.stored
    height, width = np.zeros(BLOCK), np.zeros(BLOCK)
    for word in attempts:
        share = (word & np.uint64(0xFFFFFFFF)) * 2.0**-32
        area = rows * columns * (kind.smallest_area + (1 - kind.smallest_area) * share)
        ratio = RATIOS[_below(word, RATIO_STEPS)]
        tall, wide = np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))
        fits = (tall >= 1) & (tall <= rows) & (wide >= 1) & (wide <= columns)
        fits &= height == 0
        height[fits], width[fits] = tall[fits], wide[fits]
    none = height == 0
    height[none] = min(rows, round(columns / _LOWEST))
    width[none] = min(columns, round(rows * _HIGHEST))
    tall, wide = height.astype(np.int64), width.astype(np.int64)
    top = _below(place, rows - tall + 1).astype(np.int64)
    left = _below(place << np.uint64(32), columns - wide + 1).astype(np.int64)
    top[none], left[none] = (rows - tall[none]) // 2, (columns - wide[none]) // 2
    return np.stack([top, left, tall, wide, (flip >> np.uint64(63)).astype(np.int64)], axis=1)


def apply(images: np.ndarray, crops: np.ndarray, size: Shape) -> np.ndarray:
    """Return what the model is shown: the definition, an example at a time.

    Output pixel i of `out` looks at ``((2 i + 1) * extent - out) / (2 out)`` of the crop (the
    centres of pixels, clamped at the first); its two neighbours are weighted by the fraction's
    first `BITS` bits, and the result is rounded to the nearest, halves up.

    Args:
        images: uint8 ``(B, height, width, channels)``.
        crops: int ``(B, 5)``.
        size: height and width of the result.
    """
    return np.stack(
        [_apply(image, [int(c) for c in crop], size) for image, crop in zip(images, crops)]
    )


def _apply(image: np.ndarray, crop: list[int], size: Shape) -> np.ndarray:
    top, left, height, width, flip = crop
    rows, columns = image.shape[:2]
    margin = max(0, -top, -left, top + height - rows, left + width - columns)
    framed = np.pad(image, ((margin, margin), (margin, margin), (0, 0))).astype(np.int64)
    part = framed[margin + top : margin + top + height, margin + left : margin + left + width]
    (above, below, down), (before, after, right) = (
        _neighbours(extent, out) for extent, out in zip((height, width), size[:2])
    )
    down, right = down[:, None, None], right[None, :, None]
    one = 1 << BITS
    upper = part[above][:, before] * (one - right) + part[above][:, after] * right
    lower = part[below][:, before] * (one - right) + part[below][:, after] * right
    result = (upper * (one - down) + lower * down + (1 << (2 * BITS - 1))) >> (2 * BITS)
    return (result[:, ::-1] if flip else result).astype(np.uint8)


def _neighbours(extent: int, out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    position = np.maximum((2 * np.arange(out) + 1) * extent - out, 0)
    first, rest = np.divmod(position, 2 * out)
    return first, np.minimum(first + 1, extent - 1), (rest << BITS) // (2 * out)
