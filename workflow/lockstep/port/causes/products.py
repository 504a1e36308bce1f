"""Products whose inputs JAX rounds to TF32, which it does by default on a GPU.

A number in TF32 has the exponent of float32 and 10 bits of its fraction; what is multiplied is
rounded to it, what is summed is not. PyTorch's default is float32 for products, and TF32 for the
convolutions of cuDNN.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from lockstep.port.causes import Again, Change, Given, Rule

DROPPED = 13  # bits of a fraction that float32 has, and that TF32 has not


def rounded(x: Tensor) -> Tensor:
    """Return float32 numbers rounded to TF32's, to nearest, and to even where two are as near."""
    bits = x.contiguous().view(torch.int32)
    odd = (bits >> DROPPED) & 1
    nearest = (bits + ((1 << (DROPPED - 1)) - 1) + odd) >> DROPPED << DROPPED
    return torch.where(torch.isfinite(x), nearest.view(torch.float32), x)


def tf32(name: str, arguments: Given) -> Iterator[Change]:
    """The factors of a product, a convolution or an attention rounded to TF32."""
    unusual = arguments.get("dropout_p") or arguments.get("enable_gqa")
    factors = [arguments.get(factor) for factor in _factors(arguments)]
    if not unusual and all(isinstance(x, Tensor) and x.dtype is torch.float32 for x in factors):
        yield Change(
            kind="TF32",
            port="float32 factors of products and convolutions rounded to TF32",
            torch="not rounded (torch.backends.cuda.matmul.allow_tf32 = False, or "
            "torch.backends.fp32_precision = 'ieee')",
            remedy="jax.config.update('jax_default_matmul_precision', 'highest')",
            compute=_product,
            rounds=True,
        )


def _factors(arguments: Given) -> tuple[str, str]:
    """Return what a call's factors are called."""
    return next(pair for pair in FACTORS if arguments.keys() >= {*pair})


def _product(call: Again, arguments: Given) -> Tensor:
    if "query" in arguments:
        return _attention(arguments)
    return call({**arguments, **{name: rounded(arguments[name]) for name in _factors(arguments)}})


def _attention(arguments: Given) -> Tensor:
    """Compute an attention, whose second product rounds the weights that the first one gave."""
    query, key, value = (arguments[name] for name in ("query", "key", "value"))
    scores = rounded(query) @ rounded(key).mT
    scores = scores * (arguments.get("scale") or query.shape[-1] ** -0.5)
    mask = arguments.get("attn_mask")
    if arguments.get("is_causal"):
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        masks = mask.dtype is torch.bool
        scores = scores.masked_fill(~mask, -torch.inf) if masks else scores + mask
    return rounded(scores.softmax(-1)) @ rounded(value)


FACTORS = (
    ("mat1", "mat2"),
    ("batch1", "batch2"),
    ("input", "weight"),
    ("input", "mat2"),
    ("input", "other"),
    ("first", "second"),
    ("query", "key"),
)
RULES: Mapping[str, Sequence[Rule]] = dict.fromkeys(
    (
        *("linear", "conv1d", "conv2d", "conv_transpose2d", "matmul", "mm", "bmm", "addmm"),
        *("baddbmm", "einsum", "scaled_dot_product_attention"),
    ),
    (tf32,),
)
