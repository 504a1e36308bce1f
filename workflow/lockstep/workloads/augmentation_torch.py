"""`lockstep.workloads.augmentation` in PyTorch, on the device."""

import torch
from torch import Tensor

from lockstep.workloads.augmentation import BITS, Kind, centre


def apply(images_bhwc: Tensor, crops: Tensor | None, kind: Kind) -> Tensor:
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
        return images_bhwc[:, top : top + kind.size[0], left : left + kind.size[1]].contiguous()
    top_b, left_b, height_b, width_b, flip_b = crops.unbind(1)
    rows = torch.arange(kind.size[0], dtype=torch.int32, device=images_bhwc.device).expand(
        len(crops), -1
    )
    columns = torch.arange(kind.size[1], dtype=torch.int32, device=images_bhwc.device)
    columns = torch.where(flip_b[:, None] == 1, kind.size[1] - 1 - columns, columns)
    if not kind.resizes:
        return _pixels(images_bhwc, rows + top_b[:, None], columns + left_b[:, None])
    above, below, down = _neighbours(rows, height_b, kind.size[0], top_b)
    before, after, right = _neighbours(columns, width_b, kind.size[1], left_b)
    down, right = down[:, :, None, None], right[:, None, :, None]

    def across(at: Tensor) -> Tensor:
        first, second = (_taken(images_bhwc, at, c).int() for c in (before, after))
        return first * ((1 << BITS) - right) + second * right

    total = across(above) * ((1 << BITS) - down) + across(below) * down
    return ((total + (1 << (2 * BITS - 1))) >> (2 * BITS)).to(torch.uint8)


def _neighbours(
    index: Tensor, extent_b: Tensor, out: int, start_b: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two pixels that each output pixel lies between, and the second one's weight."""
    extent, start = extent_b[:, None], start_b[:, None]
    position = ((2 * index + 1) * extent - out).clamp(min=0)
    first = position // (2 * out)
    weight = ((position - first * (2 * out)) << BITS) // (2 * out)
    return start + first, start + torch.minimum(first + 1, extent - 1), weight


def _taken(images_bhwc: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    batch = torch.arange(len(images_bhwc), device=images_bhwc.device)
    return images_bhwc[batch[:, None, None], rows.long()[:, :, None], columns.long()[:, None, :]]


def _pixels(images_bhwc: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return pixels at ``(B, height)`` rows and ``(B, width)`` columns, black outside."""
    height, width = images_bhwc.shape[1:3]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None, :
    ]
    taken = _taken(images_bhwc, rows.clamp(0, height - 1), columns.clamp(0, width - 1))
    return taken * inside[..., None]
