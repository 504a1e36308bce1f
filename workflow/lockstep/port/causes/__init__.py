"""Known ways in which the frameworks differ, each as a change of one PyTorch call.

A rule looks at a call that PyTorch makes and offers changes: what the port may be doing instead,
how both are spelled, and how to compute it. `lockstep.port.explain` tries them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Given = dict[str, Any]
"""A call's arguments by name, the first one first."""
Again = Callable[[Given], Any]
"""Computes the call with other arguments."""


def altered(**other: Any) -> Callable[[Again, Given], Any]:
    """Return what makes a call with other values of some arguments."""
    return lambda call, given: call({**given, **other})


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that a port may do otherwise.

    Attributes:
        kind: what differs: "epsilon", "GELU".
        port: what the port would be doing.
        torch: what PyTorch does.
        remedy: what to write in the port to have what PyTorch does.
        compute: PyTorch's call as the port would make it.
        rounds: whether it rounds what both sides have: of two nearly equal numbers one may go up
            and the other down.
    """

    kind: str
    port: str
    torch: str
    remedy: str
    compute: Callable[[Again, Given], Any]
    rounds: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Equal for the same change of several calls."""
        return self.kind, self.port


Rule = Callable[[str, Given], Iterator[Change]]

SIGNATURES: Mapping[str, tuple[str, ...]] = {
    "layer_norm": ("input", "normalized_shape", "weight", "bias", "eps"),
    "group_norm": ("input", "num_groups", "weight", "bias", "eps"),
    "rms_norm": ("input", "normalized_shape", "weight", "eps"),
    "batch_norm": (
        "input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps",
    ),
    "normalize": ("input", "p", "dim", "eps"),
    "gelu": ("input", "approximate"),
    "leaky_relu": ("input", "negative_slope", "inplace"),
    "elu": ("input", "alpha", "inplace"),
    "silu": ("input", "inplace"),
    "tanh": ("input",),
    "erf": ("input",),
    "sigmoid": ("input",),
    "var": ("input", "dim", "correction", "keepdim"),
    "std": ("input", "dim", "correction", "keepdim"),
    "conv1d": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "conv2d": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "conv_transpose2d": (
        "input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation",
    ),
    "max_pool2d": (
        "input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices",
    ),
    "avg_pool2d": (
        "input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad",
        "divisor_override",
    ),
    "interpolate": (
        "input", "size", "scale_factor", "mode", "align_corners", "recompute_scale_factor",
        "antialias",
    ),
    "linear": ("input", "weight", "bias"),
    "matmul": ("input", "other"),
    "mm": ("input", "mat2"),
    "bmm": ("input", "mat2"),
    "addmm": ("input", "mat1", "mat2"),
    "baddbmm": ("input", "batch1", "batch2"),
    "einsum": ("equation", "first", "second"),
    "embedding": (
        "input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse",
    ),
    "dropout": ("input", "p", "training", "inplace"),
    "softmax": ("input", "dim"),
    "log_softmax": ("input", "dim"),
    "scaled_dot_product_attention": (
        "query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa",
    ),
    "masked_fill": ("input", "mask", "value"),
    "where": ("condition", "input", "other"),
    "add": ("input", "other"),
    "mul": ("input", "other"),
    "div": ("input", "other"),
    "flatten": ("input", "start_dim", "end_dim"),
    "view": ("input", "shape"),
    "reshape": ("input", "shape"),
    "chunk": ("input", "chunks", "dim"),
    "split": ("input", "split_size", "dim"),
    "cat": ("tensors", "dim"),
    "tril": ("input", "diagonal"),
    "triu": ("input", "diagonal"),
}  # fmt: skip
ALIASES = {
    "__add__": "add", "__radd__": "add", "add_": "add", "__iadd__": "add",
    "__mul__": "mul", "__rmul__": "mul", "multiply": "mul",
    "__truediv__": "div", "true_divide": "div", "__div__": "div", "divide": "div",
    "__matmul__": "matmul", "__rmatmul__": "matmul",
    "masked_fill_": "masked_fill", "concat": "cat", "concatenate": "cat",
}  # fmt: skip


def given(function: Any, args: tuple, named: Mapping[str, Any]) -> tuple[str, Given] | None:
    """Return a call's name and its arguments by name; None of a function that no rule knows."""
    name = getattr(function, "__name__", "")
    name = ALIASES.get(name, name)
    signature = SIGNATURES.get(name)
    if signature is None:
        return None
    if name in ("view", "reshape") and len(args) > 1:
        sizes = args[1] if isinstance(args[1], (tuple, list)) else args[1:]
        return name, {"input": args[0], "shape": tuple(sizes)}
    if len(args) > len(signature):
        return None
    return name, {**dict(zip(signature, args)), **named}


def again(name: str, function: Any, count: int) -> Again:
    """Return how to make a call again with other arguments, of which `count` had no name."""

    def call(arguments: Given) -> Any:
        if name in ("view", "reshape"):
            return function(arguments["input"], *arguments["shape"])
        items = list(arguments.items())
        return function(*(value for _, value in items[:count]), **dict(items[count:]))

    return call


def offers(name: str, arguments: Given) -> Iterator[Change]:
    """Yield every change that some rule offers for a call."""
    from lockstep.port.causes import attention, layers, norms, products

    for rules in (norms.RULES, layers.RULES, attention.RULES, products.RULES):
        for rule in rules.get(name, ()):
            yield from rule(name, arguments)
