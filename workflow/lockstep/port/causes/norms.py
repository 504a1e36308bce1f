"""Normalisation, variance and activations."""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from lockstep.port.causes import Again, Change, Given, Rule, altered

EPSILONS = (0.0, 1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
DEFAULTS = {"layer_norm": 1e-5, "group_norm": 1e-5, "batch_norm": 1e-5, "rms_norm": None,
            "normalize": 1e-12}  # fmt: skip
FLAX = {
    "layer_norm": "nn.LayerNorm(epsilon={})",
    "group_norm": "nn.GroupNorm(epsilon={})",
    "batch_norm": "nn.BatchNorm(epsilon={})",
    "rms_norm": "nn.RMSNorm(epsilon={})",
    "normalize": "x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), {})",
}
SMALL = 1e-2  # an addend below is taken for an epsilon


def epsilon(name: str, arguments: Given) -> Iterator[Change]:
    """Another epsilon; or one that is added to the root instead of below it."""
    own = arguments.get("eps", DEFAULTS[name])
    if own is None:
        own = torch.finfo(arguments["input"].dtype).eps
    remedy = FLAX[name].format(f"{own:g}")
    for value in EPSILONS:
        if not math.isclose(value, own, rel_tol=1e-3):
            yield Change(
                kind="epsilon",
                port=f"{name} with epsilon {value:g}",
                torch=f"epsilon {own:g}",
                remedy=remedy,
                compute=altered(eps=value),
            )
    if name in ("layer_norm", "rms_norm"):
        yield Change(
            kind="epsilon outside of the root",
            port=f"{name} divides by sqrt(variance) + epsilon",
            torch="divides by sqrt(variance + epsilon)",
            remedy="x * jax.lax.rsqrt(variance + epsilon)",
            compute=functools.partial(_outside, own=own, centred=name == "layer_norm"),
        )


def _axes(arguments: Given) -> tuple[int, ...]:
    return tuple(range(-len(arguments["normalized_shape"]), 0))


def _affine(x: torch.Tensor, arguments: Given) -> torch.Tensor:
    weight, bias = arguments.get("weight"), arguments.get("bias")
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _outside(call: Again, arguments: Given, own: float, centred: bool) -> torch.Tensor:
    x, axes = arguments["input"], _axes(arguments)
    if centred:
        x = x - x.mean(axes, keepdim=True)
    return _affine(x / (x.square().mean(axes, keepdim=True).sqrt() + own), arguments)


def layer_norm(name: str, arguments: Given) -> Iterator[Change]:
    """Over other axes; with the unbiased variance; without its mean."""
    x, count = arguments["input"], len(arguments["normalized_shape"])
    own, eps = tuple(range(x.dim() - count, x.dim())), arguments.get("eps", 1e-5)
    others = [(x.dim() - 1,), tuple(range(1, x.dim())), (1,), (0,)]
    for axes in dict.fromkeys(others):
        if axes != own and max(axes) < x.dim():
            yield Change(
                kind="LayerNorm's axes",
                port=f"layer_norm over axes {axes}",
                torch=f"normalises over axes {own}",
                remedy=f"nn.LayerNorm(reduction_axes={own}, feature_axes={own})",
                compute=functools.partial(_over, axes=axes, eps=eps),
            )
    yield Change(
        kind="variance",
        port="layer_norm with the unbiased variance (n - 1)",
        torch="takes the biased one (n)",
        remedy="jnp.var(x, axis=-1, ddof=0)",
        compute=functools.partial(_over, axes=own, eps=eps, correction=1),
    )
    yield Change(
        kind="kind of normalisation",
        port="RMSNorm, which subtracts no mean",
        torch="LayerNorm subtracts it",
        remedy="nn.LayerNorm",
        compute=functools.partial(_over, axes=own, eps=eps, centred=False),
    )


def _over(
    call: Again,
    arguments: Given,
    axes: tuple[int, ...],
    eps: float,
    correction: int = 0,
    centred: bool = True,
) -> torch.Tensor:
    x = arguments["input"]
    mean = x.mean(axes, keepdim=True) if centred else torch.zeros_like(x)
    variance = (x - mean).square().sum(axes, keepdim=True)
    count = math.prod(x.shape[axis] for axis in axes) - correction
    return _affine((x - mean) * torch.rsqrt(variance / count + eps), arguments)


def rms_norm(name: str, arguments: Given) -> Iterator[Change]:
    """With a scale of 1 + weight, as some checkpoints have it; or with its mean subtracted."""
    if arguments.get("weight") is not None:
        yield Change(
            kind="norm's scale",
            port="rms_norm multiplies by 1 + weight",
            torch="multiplies by weight",
            remedy="x * scale",
            compute=lambda call, given: call({**given, "weight": given["weight"] + 1}),
        )


def batch_norm(name: str, arguments: Given) -> Iterator[Change]:
    """Running statistics that move the other way, or of the biased variance; batch statistics."""
    own = arguments.get("momentum", 0.1)
    if arguments.get("training"):
        for value in (1 - own, 0.01, 0.1, 0.9, 0.99, 0.001):
            if not math.isclose(value, own):
                yield Change(
                    kind="momentum",
                    port=f"batch_norm keeps {1 - value:g} of its running statistics",
                    torch=f"momentum={own:g} keeps {1 - own:g} of them",
                    remedy=f"nn.BatchNorm(momentum={1 - own:g})",
                    compute=altered(momentum=value),
                )
        yield Change(
            kind="running variance",
            port="batch_norm keeps the biased variance (n)",
            torch="keeps the unbiased one (n - 1)",
            remedy="multiply the batch's variance by n / (n - 1) before it is averaged",
            compute=_biased,
        )
        yield Change(
            kind="mode of batch normalisation",
            port="batch_norm with its running statistics",
            torch="takes the batch's, in training",
            remedy="nn.BatchNorm(use_running_average=False)",
            compute=altered(training=False),
        )
    else:
        yield Change(
            kind="mode of batch normalisation",
            port="batch_norm with the batch's statistics",
            torch="takes the running ones, in evaluation",
            remedy="nn.BatchNorm(use_running_average=True)",
            compute=altered(running_mean=None, running_var=None, training=True),
        )


def _biased(call: Again, arguments: Given) -> torch.Tensor:
    x, running = arguments["input"], arguments["running_var"]
    before, rate = running.clone(), arguments.get("momentum", 0.1)
    output = call(arguments)
    axes = (0, *range(2, x.dim()))
    running.copy_((1 - rate) * before + rate * x.var(axes, correction=0))
    return output


def variance(name: str, arguments: Given) -> Iterator[Change]:
    """Biased or unbiased."""
    own = arguments.get("correction")
    own = arguments.get("unbiased", True) if own is None else own
    other = 0 if own else 1
    yield Change(
        kind="variance",
        port=f"jnp.{name} with ddof={other}",
        torch=f"torch.{name} with correction={int(own)}",
        remedy=f"jnp.{name}(x, ddof={int(own)})",
        compute=lambda call, given: call(
            {**{k: v for k, v in given.items() if k != "unbiased"}, "correction": other}
        ),
    )


def added_epsilon(name: str, arguments: Given) -> Iterator[Change]:
    """Another epsilon where it is added in plain sight."""
    own = arguments.get("other")
    if not isinstance(own, float) or not 0 < own < SMALL:
        return
    for value in EPSILONS:
        if not math.isclose(value, own, rel_tol=1e-3):
            yield Change(
                kind="epsilon",
                port=f"adds epsilon {value:g}",
                torch=f"adds {own:g}",
                remedy=f"x + {own:g}",
                compute=altered(other=value),
            )


GELU = {
    "by tanh": ("nn.gelu(x, approximate=True)", lambda x: F.gelu(x, approximate="tanh")),
    "by erf": ("nn.gelu(x, approximate=False)", lambda x: F.gelu(x)),
    "by a sigmoid": ("x * nn.sigmoid(1.702 * x)", lambda x: x * torch.sigmoid(1.702 * x)),
}
ACTIVATIONS = {**GELU, "replaced by SiLU": ("nn.silu(x)", F.silu), "replaced by ReLU":
               ("nn.relu(x)", F.relu)}  # fmt: skip


def gelu(name: str, arguments: Given) -> Iterator[Change]:
    """Another form of GELU."""
    own = "by tanh" if arguments.get("approximate", "none") == "tanh" else "by erf"
    yield from _forms(own, ACTIVATIONS, _instead)


def _forms(own: str, others: Mapping[str, tuple[str, Any]], compute: Any) -> Iterator[Change]:
    """Yield other forms than a form of GELU; `compute` takes their function as well."""
    for form, (_, function) in others.items():
        if form != own:
            yield Change(
                kind="GELU",
                port=f"GELU {form}",
                torch=f"GELU {own}",
                remedy=GELU[own][0],
                compute=functools.partial(compute, function=function),
            )


def _instead(call: Again, arguments: Given, function: Any) -> torch.Tensor:
    return function(arguments["input"])


def silu(name: str, arguments: Given) -> Iterator[Change]:
    """Another activation in SiLU's place."""
    others = {f"GELU {form}": function for form, (_, function) in GELU.items()}
    for text, function in {**others, "ReLU": F.relu}.items():
        yield Change(
            kind="activation",
            port=text,
            torch="SiLU",
            remedy="nn.silu(x)",
            compute=functools.partial(_instead, function=function),
        )


def written_gelu(name: str, arguments: Given) -> Iterator[Change]:
    """Another form of a GELU that is written out: x is found in the argument of its function.

    The tanh form's u = sqrt(2 / pi) (x + 0.044715 x^3) is solved for x by the hyperbolic formula.
    """
    own = {"tanh": "by tanh", "erf": "by erf", "sigmoid": "by a sigmoid"}[name]
    yield from _forms(own, GELU, functools.partial(_factor, name=name))


def _factor(call: Again, arguments: Given, name: str, function: Any) -> torch.Tensor:
    u = arguments["input"]
    if name == "sigmoid":
        x = u / 1.702
    elif name == "erf":
        x = u * math.sqrt(2)
    else:
        a, w = 0.044715, u / math.sqrt(2 / math.pi)
        root = math.sqrt(3 * a)
        x = 2 / root * torch.sinh(torch.asinh(1.5 * root * w) / 3)
    share = torch.where(x == 0, torch.full_like(x, 0.5), function(x) / x)  # of x that passes
    return share if name == "sigmoid" else 2 * share - 1


def leaky_relu(name: str, arguments: Given) -> Iterator[Change]:
    """Another slope below zero."""
    own = arguments.get("negative_slope", 0.01)
    for value in (0.01, 0.1, 0.2, 0.0):
        if not math.isclose(value, own):
            yield Change(
                kind="slope",
                port=f"leaky_relu with slope {value:g}",
                torch=f"slope {own:g}",
                remedy=f"nn.leaky_relu(x, negative_slope={own:g})",
                compute=altered(negative_slope=value),
            )


RULES: Mapping[str, Sequence[Rule]] = {
    "layer_norm": (epsilon, layer_norm),
    "group_norm": (epsilon,),
    "rms_norm": (epsilon, rms_norm),
    "batch_norm": (epsilon, batch_norm),
    "normalize": (epsilon,),
    "var": (variance,),
    "std": (variance,),
    "add": (added_epsilon,),
    "gelu": (gelu,),
    "silu": (silu,),
    "tanh": (written_gelu,),
    "erf": (written_gelu,),
    "sigmoid": (written_gelu,),
    "leaky_relu": (leaky_relu,),
}
