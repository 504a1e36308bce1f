"""Attention: scale, masks, order of heads, rotary positions, float32 islands."""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from lockstep.port.causes import Again, Change, Given, Rule, altered


def softmax(name: str, arguments: Given) -> Iterator[Change]:
    """Over another axis; computed in float32; of scores that are scaled otherwise."""
    x, own = arguments["input"], arguments.get("dim", -1)
    for dim in range(x.dim()):
        if dim != own % x.dim() and x.shape[dim] > 1:
            yield Change(
                kind="softmax's axis",
                port=f"softmax over axis {dim}",
                torch=f"over axis {own}",
                remedy=f"nn.softmax(x, axis={own})",
                compute=altered(dim=dim),
            )
    if x.dtype not in (torch.float64, torch.float32):
        yield _wide(name)


def _wide(name: str) -> Change:
    return Change(
        kind="float32 island",
        port=f"{name} computed in float32",
        torch="computes it in the reduced precision",
        remedy=f"{name} without a cast to float32",
        compute=lambda call, given: call(
            {k: v.float() if _floating(v) else v for k, v in given.items()}
        ).to(next(iter(given.values())).dtype),
    )


def _floating(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def island(name: str, arguments: Given) -> Iterator[Change]:
    """In float32, whatever the precision."""
    if arguments["input"].dtype not in (torch.float64, torch.float32):
        yield _wide(name)


def attention(name: str, arguments: Given) -> Iterator[Change]:
    """Another scale; a mask that is not applied, or is causal; heads in another order."""
    size = arguments["query"].shape[-1]
    own = arguments.get("scale") or size**-0.5
    heads = arguments["query"].shape[-3] if arguments["query"].dim() > 3 else 1
    scales = {
        "no scale": 1.0,
        "a scale of 1 / sqrt(all features)": (size * heads) ** -0.5,
        "a scale of 1 / features of a head": 1.0 / size,
        "a scale of 1 / sqrt(features of a head)": size**-0.5,
        "the scale twice": own * own,
    }
    for text, scale in scales.items():
        if not math.isclose(scale, own):
            yield Change(
                kind="softmax scale",
                port=f"attention with {text}",
                torch=f"scales scores by {own:.4g}",
                remedy=f"query * {own:.6g}",
                compute=altered(scale=scale),
            )
    mask = arguments.get("attn_mask")
    if mask is not None or arguments.get("is_causal"):
        yield Change(
            kind="attention mask",
            port="attention without its mask",
            torch="applies it",
            remedy="dot_product_attention(mask=mask)",
            compute=altered(attn_mask=None, is_causal=False),
        )
    if mask is None and not arguments.get("is_causal"):
        yield Change(
            kind="attention mask",
            port="attention with a causal mask",
            torch="has none",
            remedy="dot_product_attention(mask=None)",
            compute=altered(is_causal=True),
        )
    if mask is not None and mask.dtype is torch.bool:
        yield Change(
            kind="attention mask",
            port="the mask with True and False swapped",
            torch="True takes part",
            remedy="jnp.logical_not(mask)",
            compute=lambda call, given: call({**given, "attn_mask": ~given["attn_mask"]}),
        )
        for value in (-1e4, -1e9):
            yield Change(
                kind="mask value",
                port=f"adds {value:g} where the mask is False",
                torch="has -inf there",
                remedy="jnp.where(mask, scores, -jnp.inf)",
                compute=functools.partial(_added, value=value),
            )


def _added(call: Again, arguments: Given, value: float) -> torch.Tensor:
    mask = arguments["attn_mask"]
    added = torch.zeros(mask.shape, dtype=arguments["query"].dtype).masked_fill(~mask, value)
    return call({**arguments, "attn_mask": added})


def scaled(name: str, arguments: Given) -> Iterator[Change]:
    """Scores that are scaled otherwise: by a number in plain sight."""
    own = arguments.get("other")
    x = arguments.get("input")
    if not isinstance(own, (int, float)) or not isinstance(x, torch.Tensor) or own in (0, 1):
        return
    if abs(own) > 1e100:  # of a mask
        return
    others = {"left out": 1.0, "squared": float(own) ** 2, "inverted": 1 / own}
    if own > 0:
        others["under a root"] = float(own) ** 0.5
    sign = "/" if name == "div" else "*"
    for text, value in others.items():
        yield Change(
            kind="softmax scale" if x.dim() > 3 else "scale",
            port=f"the factor {own:.4g} {text}",
            torch=f"computes x {sign} {own:.4g}",
            remedy=f"x {sign} {own:.6g}",
            compute=altered(other=value),
        )


def masked(name: str, arguments: Given) -> Iterator[Change]:
    """Another value where nothing may be looked at; a mask that is turned round."""
    own = arguments.get("value")
    x = arguments["input"]
    if not _floating(x):
        return
    values = {f"{value:g}": value for value in (-1e4, -1e9, -1e30, -math.inf, 0.0)}
    for word, value in {**values, "finfo.min": torch.finfo(x.dtype).min}.items():
        if value != own and (value or x.any()):  # else it is a mask to be added: there is none
            yield Change(
                kind="mask value",
                port=f"masks with {word}",
                torch=f"masks with {own}",
                remedy=f"jnp.where(mask, {own}, scores)",
                compute=altered(value=value),
            )
    yield Change(
        kind="attention mask",
        port="the mask with True and False swapped",
        torch="True is masked",
        remedy="jnp.where(mask, value, scores)",
        compute=lambda call, given: call({**given, "mask": ~given["mask"].bool()}),
    )
    yield Change(
        kind="attention mask",
        port="no mask",
        torch="masks",
        remedy="jnp.where(mask, value, scores)",
        compute=lambda call, given: given["input"],
    )


def triangle(name: str, arguments: Given) -> Iterator[Change]:
    """A diagonal that is off by one."""
    own = arguments.get("diagonal", 0)
    for value in (own - 1, own + 1):
        yield Change(
            kind="attention mask",
            port=f"jnp.{name} with k={value}",
            torch=f"diagonal={own}",
            remedy=f"jnp.{name}(x, k={own})",
            compute=altered(diagonal=value),
        )


def heads(name: str, arguments: Given) -> Iterator[Change]:
    """Features split into (features, heads) instead of (heads, features)."""
    x, shape = arguments["input"], arguments.get("shape", ())
    shape = [s for s in shape if isinstance(s, int)]
    if len(shape) == x.dim() + 1 and shape[-1] != 1 and shape[-2] != 1:
        try:
            sizes = list(torch.empty(x.shape, device="meta").view(shape).shape)
        except RuntimeError:
            return
        swapped = [*sizes[:-2], sizes[-1], sizes[-2]]
        yield Change(
            kind="order of heads",
            port="heads as the last axis: (features, heads)",
            torch="splits features into (heads, features)",
            remedy=f"x.reshape({', '.join(map(str, ['...', *sizes[-2:]]))})",
            compute=lambda call, given: given["input"].reshape(swapped).transpose(-1, -2),
        )


def chunks(name: str, arguments: Given) -> Iterator[Change]:
    """Fused query, key and value that are interleaved, or come in another order."""
    x, dim = arguments["input"], arguments.get("dim", 0)
    size = arguments.get("chunks") or arguments.get("split_size")
    if not isinstance(size, int):
        return
    count = size if name == "chunk" else x.shape[dim] // size
    if count < 2 or x.shape[dim] % count:
        return
    axis = dim % x.dim()
    if count <= 4:
        yield Change(
            kind="order of heads",
            port="fused parts interleaved, element by element",
            torch="has them one after the other",
            remedy="jnp.split(x, n, axis)",
            compute=lambda call, given: [
                given["input"].unflatten(axis, (-1, count)).select(axis + 1, k)
                for k in range(count)
            ],
        )
        yield Change(
            kind="order of heads",
            port="fused parts in the opposite order",
            torch="as they come",
            remedy="first, second = jnp.split(x, 2, axis)",
            compute=lambda call, given: tuple(reversed(call(given))),
        )
    if count == 3:
        for text, order in (("query and key", (1, 0, 2)), ("key and value", (0, 2, 1))):
            yield Change(
                kind="order of heads",
                port=f"{text} of the fused tensor swapped",
                torch="query, key, value",
                remedy="query, key, value = jnp.split(x, 3, axis=-1)",
                compute=functools.partial(_ordered, order=order),
            )


def _ordered(call: Again, arguments: Given, order: tuple[int, ...]) -> list[torch.Tensor]:
    parts = call(arguments)
    return [parts[k] for k in order]


def rotary(name: str, arguments: Given) -> Iterator[Change]:
    """Pairs of neighbours instead of halves, or the other direction, in a rotation's `cat`."""
    tensors = list(arguments["tensors"])
    if len(tensors) != 2 or tensors[0].shape != tensors[1].shape or not _floating(tensors[0]):
        return
    if arguments.get("dim", 0) not in (-1, tensors[0].dim() - 1):
        return
    for port, function in (
        ("rotates pairs of neighbours (interleaved)", _neighbours),
        ("rotates in the other direction", lambda call, given: -call(given)),
    ):
        yield Change(
            kind="rotary positions",
            port=port,
            torch="rotates halves: concatenate([-x2, x1])",
            remedy="jnp.concatenate([-x2, x1], axis=-1)",
            compute=function,
        )


def _neighbours(call: Again, arguments: Given) -> torch.Tensor:
    first, second = arguments["tensors"]
    if torch.equal(first, second):  # the table of angles, which fits the pairs
        return torch.repeat_interleave(first, 2, dim=-1)
    x = torch.cat([second, -first], dim=-1)  # what was split into halves and turned
    return torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)


def written(*given: Any, **named: Any) -> Any:
    """`F.multi_head_attention_forward` written out, so that its parts can be changed.

    Returns None where it is called in a way that is not written here.
    """
    names = (
        "query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight",
        "in_proj_bias", "bias_k", "bias_v", "add_zero_attn", "dropout_p", "out_proj_weight",
        "out_proj_bias",
    )  # fmt: skip
    a = {**dict(zip(names, given)), **named}
    if a.get("bias_k") is not None or a.get("add_zero_attn") or a["in_proj_weight"] is None:
        return None
    if a["query"].dim() != 3 or (a.get("training") and a.get("dropout_p")):
        return None
    count, bias = a["num_heads"], a["in_proj_bias"]
    weights = a["in_proj_weight"].chunk(3)
    biases = bias.chunk(3) if bias is not None else (None,) * 3
    parts = []
    for x, weight, own in zip((a["query"], a["key"], a["value"]), weights, biases):
        y = F.linear(x, weight, own)
        length, rows, size = y.shape
        parts.append(y.view(length, rows, count, size // count).permute(1, 2, 0, 3))
    mask = a.get("attn_mask")
    if mask is not None and mask.dtype is torch.bool:
        mask = ~mask
    if mask is not None and mask.dim() == 3:
        mask = mask.unflatten(0, (-1, count))
    padding = a.get("key_padding_mask")
    if padding is not None:
        kept = ~padding[:, None, None, :] if padding.dtype is torch.bool else padding[:, None, None]
        if mask is not None and mask.dtype is not kept.dtype:
            return None
        mask = kept if mask is None else mask & kept if kept.dtype is torch.bool else mask + kept
    mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], mask)
    merged = mixed.permute(2, 0, 1, 3).flatten(2)
    output = F.linear(merged, a["out_proj_weight"], a["out_proj_bias"])
    weights_out = None
    if a.get("need_weights", True):
        weights_out = torch.zeros(())  # which nothing that is looked at reads
    return output, weights_out


RULES: Mapping[str, Sequence[Rule]] = {
    "softmax": (softmax,),
    "log_softmax": (softmax,),
    "layer_norm": (island,),
    "rms_norm": (island,),
    "scaled_dot_product_attention": (attention,),
    "mul": (scaled,),
    "div": (scaled,),
    "masked_fill": (masked,),
    "tril": (triangle,),
    "triu": (triangle,),
    "view": (heads,),
    "reshape": (heads,),
    "chunk": (chunks,),
    "split": (chunks,),
    "cat": (rotary,),
}
