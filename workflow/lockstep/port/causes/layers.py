"""Kernels, padding, pooling, resizing, embeddings, dropout and flattening."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from lockstep.port.causes import Again, Change, Given, Rule, altered


def _two(value: Any) -> tuple[int, int]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def _same(size: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> list[int]:
    """Return what SAME pads, as `F.pad` takes it: the last axis first, before and after."""
    found: list[int] = []
    for length, window, step in reversed(list(zip(size, kernel, stride))):
        total = max((-(-length // step) - 1) * step + window - length, 0)
        found += [total // 2, total - total // 2]
    return found


def convolution(name: str, arguments: Given) -> Iterator[Change]:
    """SAME or VALID against explicit padding; a kernel that is mirrored or transposed."""
    weight, own = arguments["weight"], arguments.get("padding", 0)
    spatial = weight.dim() - 2
    stride = arguments.get("stride", 1)
    stride = tuple(stride) if isinstance(stride, (tuple, list)) else (stride,) * spatial
    dilation = arguments.get("dilation", 1)
    dilation = tuple(dilation) if isinstance(dilation, (tuple, list)) else (dilation,) * spatial
    kernel = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:])]
    told = own if isinstance(own, str) else tuple(own) if isinstance(own, (tuple, list)) else own
    pads = (own,) * spatial if isinstance(own, int) else own
    remedy = (
        "padding='SAME'" if own == "same" else f"padding={[(int(p), int(p)) for p in pads]}"
    ) if not isinstance(own, str) or own == "same" else "padding='VALID'"  # fmt: skip
    size = arguments["input"].shape[2:]
    if own != "same":
        yield Change(
            kind="padding",
            port=f"{name} with padding SAME, {_same(size, kernel, stride)}",
            torch=f"padding={told}",
            remedy=f"nn.Conv({remedy})",
            compute=functools.partial(_padded, pads=_same(size, kernel, stride)),
        )
    if own not in (0, "valid"):
        yield Change(
            kind="padding",
            port=f"{name} with padding VALID",
            torch=f"padding={told}",
            remedy=f"nn.Conv({remedy})",
            compute=functools.partial(_padded, pads=[0] * (2 * spatial)),
        )
    axes = tuple(range(2, weight.dim()))
    if weight.shape[2:].numel() > 1:
        yield _kernel("mirrored", lambda w: w.flip(axes), "the kernel as it is")
        if spatial == 2 and weight.shape[2] == weight.shape[3]:
            yield _kernel("height and width swapped", lambda w: w.transpose(2, 3), "axes 2 3 1 0")
    if weight.shape[0] == weight.shape[1]:
        yield _kernel("inputs and outputs swapped", lambda w: w.transpose(0, 1), "axes 2 3 1 0")


def _padded(call: Again, arguments: Given, pads: list[int]) -> torch.Tensor:
    return call({**arguments, "input": F.pad(arguments["input"], pads), "padding": 0})


def _kernel(what: str, change: Any, remedy: str) -> Change:
    return Change(
        kind="kernel's layout",
        port=f"the kernel with {what}" if "swapped" in what else f"the kernel {what}",
        torch="the kernel as it is",
        remedy=remedy,
        compute=lambda call, given: call({**given, "weight": change(given["weight"])}),
    )


def transposed_convolution(name: str, arguments: Given) -> Iterator[Change]:
    """A kernel that is mirrored."""
    yield _kernel("mirrored", lambda w: w.flip((2, 3)), "mirror the kernel when it is converted")


def linear(name: str, arguments: Given) -> Iterator[Change]:
    """A square kernel that is transposed; a bias that is left out."""
    weight = arguments["weight"]
    if weight.dim() == 2 and weight.shape[0] == weight.shape[1]:
        yield _kernel("inputs and outputs swapped", lambda w: w.mT, "kernel = weight.T")
    if arguments.get("bias") is not None:
        yield Change(
            kind="bias",
            port="no bias",
            torch="adds a bias",
            remedy="nn.Dense(use_bias=True)",
            compute=altered(bias=None),
        )


def max_pool(name: str, arguments: Given) -> Iterator[Change]:
    """SAME or VALID against explicit padding."""
    yield from _pooled(name, arguments, float("-inf"))


def average_pool(name: str, arguments: Given) -> Iterator[Change]:
    """The same, and whether padding counts."""
    padding = _two(arguments.get("padding", 0))
    if any(padding):
        own = arguments.get("count_include_pad", True)
        yield Change(
            kind="average over padding",
            port=f"avg_pool with count_include_pad={not own}",
            torch=f"count_include_pad={own}",
            remedy=f"nn.avg_pool(count_include_pad={own})",
            compute=altered(count_include_pad=not own),
        )
    yield from _pooled(name, arguments, 0.0)


def _pooled(name: str, arguments: Given, filling: float) -> Iterator[Change]:
    kernel = _two(arguments["kernel_size"])
    stride = _two(arguments.get("stride") or kernel)
    own = _two(arguments.get("padding", 0))
    pads = _same(arguments["input"].shape[2:], kernel, stride)
    remedy = f"padding={[(p, p) for p in own]}" if any(own) else "padding='VALID'"
    for word, amounts in (("SAME", pads), ("VALID", [0, 0, 0, 0])):
        if amounts != [own[1], own[1], own[0], own[0]]:
            yield Change(
                kind="padding",
                port=f"{name} with padding {word}",
                torch=f"padding={own[0]}",
                remedy=f"{name[:3]}_pool({remedy})",
                compute=functools.partial(_pool, amounts=amounts, filling=filling),
            )


def _pool(call: Again, arguments: Given, amounts: list[int], filling: float) -> torch.Tensor:
    padded = F.pad(arguments["input"], amounts, value=filling)
    return call({**arguments, "input": padded, "padding": 0, "ceil_mode": False})


def resize(name: str, arguments: Given) -> Iterator[Change]:
    """Corners aligned or half pixels; antialiased, which `jax.image.resize` does; nearest ones."""
    mode, own = arguments.get("mode", "nearest"), bool(arguments.get("align_corners"))
    if mode in ("bilinear", "bicubic"):
        anti = bool(arguments.get("antialias"))
        yield Change(
            kind="resize",
            port=f"resize with {'half pixels' if own else 'aligned corners'}",
            torch="aligns corners" if own else "takes half pixels",
            remedy="jax.image.scale_and_translate" if own else "jax.image.resize",
            compute=altered(align_corners=not own),
        )
        yield Change(
            kind="resize",
            port=f"resize with antialias={not anti}",
            torch=f"antialias={anti}",
            remedy=f"jax.image.resize(antialias={anti})",
            compute=altered(antialias=not anti),
        )
    elif mode in ("nearest", "nearest-exact"):
        other = "nearest-exact" if mode == "nearest" else "nearest"
        yield Change(
            kind="resize",
            port=f"resize as PyTorch's {other}",
            torch=mode,
            remedy="x[:, (jnp.arange(new) * old) // new]" if mode == "nearest" else
            "jax.image.resize(method='nearest')",
            compute=altered(mode=other),
        )  # fmt: skip


def embedding(name: str, arguments: Given) -> Iterator[Change]:
    """Rows that are scaled by the root of their size."""
    table = arguments["weight"]
    root = table.shape[1] ** 0.5
    yield Change(
        kind="embedding's scale",
        port="multiplies embeddings by the square root of their size",
        torch="does not",
        remedy="leave out * jnp.sqrt(features)",
        compute=lambda call, given: call(given) * root,
    )


def dropout(name: str, arguments: Given) -> Iterator[Change]:
    """Dropout that PyTorch draws and the port does not."""
    if arguments.get("training", True) and arguments.get("p", 0.5):
        yield Change(
            kind="dropout",
            port="no dropout",
            torch=f"draws dropout of {arguments.get('p', 0.5)}, also in evaluation",
            remedy="in PyTorch: F.dropout(x, p, training=self.training)",
            compute=lambda call, given: given["input"],
        )


def flatten(name: str, arguments: Given) -> Iterator[Change]:
    """Features in the order of channels last."""
    x = arguments["input"]
    flat = name == "flatten" or len(arguments.get("shape", ())) == 2
    if flat and x.dim() in (3, 4) and x.shape[2:].numel() > 1:
        rows = len(x)
        yield Change(
            kind="order of flattened features",
            port="flattens with channels last",
            torch="flattens with channels first",
            remedy="x.transpose(0, 3, 1, 2).reshape(len(x), -1)",
            compute=lambda call, given: given["input"].movedim(1, -1).reshape(rows, -1),
        )


RULES: Mapping[str, Sequence[Rule]] = {
    "conv1d": (convolution,),
    "conv2d": (convolution,),
    "conv_transpose2d": (transposed_convolution,),
    "linear": (linear,),
    "max_pool2d": (max_pool,),
    "avg_pool2d": (average_pool,),
    "interpolate": (resize,),
    "embedding": (embedding,),
    "dropout": (dropout,),
    "flatten": (flatten,),
    "view": (flatten,),
    "reshape": (flatten,),
}
