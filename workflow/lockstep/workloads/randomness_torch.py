"""`lockstep.workloads.randomness` in PyTorch, on the device, in int32.

Sums and products of int32 wrap around as those of uint32 do and have the same bits; only shifts to
the right differ and are written out.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lockstep.workloads import randomness
from lockstep.workloads.randomness import FIRST_FACTOR, HALVES, SECOND_FACTOR, SHIFTS


def _signed(word: int) -> int:
    """Return the int32 with the bits of a uint32."""
    return word - (1 << 32) if word >= 1 << 31 else word


def _shifted(words: Tensor, by: int) -> Tensor:
    """Return words shifted to the right, filled with zeros: `>>` alone repeats the sign."""
    return (words >> by) & ((1 << (32 - by)) - 1)


def mix(words: Tensor) -> Tensor:
    """Return the hash of each word, int32."""
    words = (words ^ _shifted(words, SHIFTS[0])) * _signed(FIRST_FACTOR)
    words = (words ^ _shifted(words, SHIFTS[1])) * _signed(SECOND_FACTOR)
    return words ^ _shifted(words, SHIFTS[2])


def words(keys: Tensor, site: int, count: int) -> Tensor:
    """Return random words of a site, int32 ``(B, count)``; keys are int32 or uint32 ``(B, 2)``."""
    keys = keys.view(torch.int32)
    first = mix(keys[:, :1] ^ _signed(randomness.site_factor(site, 0)))
    second = mix(keys[:, 1:] + _signed(randomness.site_factor(site, 1)))
    index = torch.arange(count, dtype=torch.int32, device=keys.device)
    return mix(mix(index ^ first) ^ second)


def keep_mask(keys: Tensor, site: int, shape: Sequence[int], keep: float) -> Tensor:
    """Return which elements are kept, bool ``(B, *shape)``."""
    size = math.prod(shape)
    halves = words(keys, site, -(-size // 2)).view(torch.int16)[:, :size]
    kept = halves <= randomness.threshold(keep) - HALVES // 2 - 1
    return kept.reshape(len(keys), *shape)


def dropout(x: Tensor, keys: Tensor, site: int, rate: float) -> Tensor:
    """Return `x` ``(B, …)`` with elements zeroed at random and the others scaled up.

    Types of 16 bits are scaled in float32 and rounded once: PyTorch does so by itself.
    """
    if not rate:
        return x
    kept = keep_mask(keys, site, x.shape[1:], 1 - rate)
    return torch.where(kept, x * randomness.scale(1 - rate), 0.0)


def integers(keys: Tensor, site: int, shape: Sequence[int], limit: int) -> Tensor:
    """Return uniform integers in ``[0, limit)``, int32 ``(B, *shape)``."""
    randomness.check_limit(limit)
    drawn = words(keys, site, math.prod(shape))
    upper, lower = _shifted(drawn, 16), drawn & (HALVES - 1)
    high, low = divmod(limit, HALVES)
    middle = upper * low + _shifted(lower * low, 16)
    carried = _shifted(lower * high + (middle & (HALVES - 1)), 16)
    return (upper * high + _shifted(middle, 16) + carried).reshape(len(keys), *shape)
