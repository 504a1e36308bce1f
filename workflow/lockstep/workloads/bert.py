"""BERT without any framework: sizes, parameters, names, operations.

Devlin et al., BERT: Pre-training of deep bidirectional transformers (2019): word, position and
segment embeddings, layer normalisation (epsilon 1e-12), then layers of attention and of a GELU (by
the error function) between two dense layers, each followed by dropout, a residual sum and layer
normalisation. Initial weights are normal with deviation 0.02.

Types under bfloat16, in both frameworks: operands of products are bfloat16, and their results are
rounded to it. Embeddings are looked up and added in float32; biases are added, and softmax, layer
normalisation, the residual sum before it, GELU and the loss are computed in float32. What goes on
to the next product is rounded to bfloat16 once.

An attention's key biases are frozen: softmax does not change when all of a row's scores do, so
their gradient is rounding alone, which an optimizer that divides by it would make a random walk of.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lockstep.errors import UserError
from lockstep.workloads import naming
from lockstep.workloads.contract import Array, Parameter, Settings

EPSILON = 1e-12  # of layer normalisation
STD = 0.02

MODEL: dict[str, Any] = {
    "size": "2x128",  # layers x width, or base (12x768), or large (24x1024)
    "head": 64,  # width of an attention head
    "vocabulary": 8192,  # rows of the word embedding: the pieces of the dataset's, or more
    "length": 128,  # tokens of a row, as the dataset has them
    "positions": 512,  # rows of the position embedding
    "segments": 2,  # rows of the segment embedding
    "dropout": 0.1,
    "attention_dropout": 0.1,  # of attention's probabilities; 0 for fused attention
}
"""What the recipe's `model` understands, with its defaults."""

ALIASES = {"base": "12x768", "large": "24x1024"}

EMBEDDINGS, POOLED = 1, 2  # sites of dropout
LAYERS, PER_LAYER = 8, 4  # sites of a layer's dropout: LAYERS + PER_LAYER * layer + place
PROBABILITIES, ATTENDED, OUTER = 0, 1, 2  # places


@dataclass(frozen=True, kw_only=True)
class Size:
    """Layers, their width, the heads of attention and the width between two dense layers."""

    layers: int
    width: int
    heads: int
    inner: int


def size(model: Mapping[str, Any]) -> Size:
    """Return a model's size; `problem` says whether it is one."""
    layers, width = map(int, ALIASES.get(model["size"], model["size"]).split("x"))
    return Size(layers=layers, width=width, heads=width // model["head"], inner=4 * width)


def problem(model: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a recipe's `model`, or None."""
    if not re.fullmatch(r"[1-9]\d{0,3}x[1-9]\d{0,5}", ALIASES.get(model["size"], model["size"])):
        return f"model.size is {model['size']!r}; write layers x width such as 2x128, base or large"
    for key in ("head", "vocabulary", "length", "positions", "segments"):
        if model[key] < 1:
            return f"model.{key} is {model[key]}; it must be at least 1"
    if size(model).width % model["head"]:
        return (
            f"model.head is {model['head']}, which does not divide the width {size(model).width} "
            f"of model.size {model['size']}"
        )
    for key in ("dropout", "attention_dropout"):
        if model[key] > 0.99:
            return f"model.{key} is {model[key]}; it must be at most 0.99"
    if model["length"] > model["positions"]:
        return (
            f"model.length is {model['length']}, more than the {model['positions']} rows of the "
            "position embedding; set model.positions, or choose shorter rows"
        )
    return None


def stored_tokens(model: Mapping[str, Any]) -> Array:
    """Return the rows of tokens that a model can learn from, as a dataset has them."""
    ids = np.min_scalar_type(max(model["vocabulary"] - 1, 256))  # uint16, or uint32
    shape = (model["length"],)
    return Array(name="tokens", dtype=ids.name, shape=shape, high=model["vocabulary"])


def data_problem(model: Mapping[str, Any], length: int, vocabulary: int) -> str | None:
    """Return why a dataset's rows do not fit a model, or None.

    JAX clamps an id that is too large, PyTorch raises: neither may ever see one.

    Args:
        length: tokens of a row.
        vocabulary: pieces of the dataset's vocabulary.
    """
    if length != model["length"]:
        return (
            f"its rows have {length} tokens, but model.length is {model['length']}; set the "
            "dataset's options.length, or model.length, to the other"
        )
    if vocabulary > model["vocabulary"]:
        return (
            f"its vocabulary has {vocabulary} pieces, but model.vocabulary is "
            f"{model['vocabulary']}; set model.vocabulary: {vocabulary}"
        )
    return None


def fused(model: Mapping[str, Any], settings: Settings) -> bool:
    """Return whether attention is one kernel of the framework; in float64 it is written out.

    JAX's computes its softmax in float32 even then.

    Raises:
        UserError: such a kernel has no dropout that both frameworks share.
    """
    if settings.variant["attention"] != "fused" or settings.precision == "float64":
        return False
    if model["attention_dropout"]:
        raise UserError(
            f"attention: fused has no dropout, but model.attention_dropout is "
            f"{model['attention_dropout']}; set it to 0, or choose attention: written"
        )
    return True


def site(layer: int, place: int) -> int:
    """Return the number of a place of dropout in a layer."""
    return LAYERS + PER_LAYER * layer + place


# Parameters ----------------------------------------------------------------------------------


def dense(name: str, inputs: int, outputs: int, *, trained: bool = True) -> list[Parameter]:
    """Return a dense layer's parameters; `trained` is about its bias."""
    return [
        Parameter(name=f"{name}.kernel", shape=(inputs, outputs), std=STD),
        Parameter(name=f"{name}.bias", shape=(outputs,), decay=False, trained=trained),
    ]


def norm(name: str, width: int) -> list[Parameter]:
    """Return a layer normalisation's parameters."""
    return [
        Parameter(name=f"{name}.scale", shape=(width,), constant=1.0, decay=False),
        Parameter(name=f"{name}.bias", shape=(width,), decay=False),
    ]


def encoder(model: Mapping[str, Any]) -> list[Parameter]:
    """Return the parameters of embeddings and layers, in the order of the network."""
    shape = size(model)
    result = []
    for name, rows in (("word", "vocabulary"), ("position", "positions"), ("segment", "segments")):
        table = (model[rows], shape.width)
        result.append(Parameter(name=f"{name}.embedding", shape=table, std=STD))
    result += norm("embedding_norm", shape.width)
    for layer in range(shape.layers):
        for name in ("query", "key", "value", "attended"):
            full = f"layers.{layer}.{name}"
            result += dense(full, shape.width, shape.width, trained=name != "key")
        result += norm(f"layers.{layer}.attended_norm", shape.width)
        result += dense(f"layers.{layer}.inner", shape.width, shape.inner)
        result += dense(f"layers.{layer}.outer", shape.inner, shape.width)
        result += norm(f"layers.{layer}.outer_norm", shape.width)
    return result


def encoder_flops(model: Mapping[str, Any]) -> int:
    """Return two operations for each multiplication in the layers, of one row."""
    shape, length = size(model), model["length"]
    dense_ = 8 * length * shape.width**2 + 4 * length * shape.width * shape.inner
    return shape.layers * (dense_ + 4 * length**2 * shape.width)


def torch_names(parameters: tuple[Parameter, ...]) -> naming.Names:
    """Map neutral names to those of `bert_torch`: PyTorch's, with dense kernels ``(out, in)``."""
    own = {"kernel": ("weight", naming.DENSE), "bias": ("bias", None)}
    own |= {"scale": ("weight", None), "embedding": ("weight", None)}
    result = {}
    for parameter in parameters:
        module, _, leaf = parameter.name.rpartition(".")
        result[parameter.name] = (f"{module}.{own[leaf][0]}", own[leaf][1])
    return result


def flax_names(parameters: tuple[Parameter, ...]) -> naming.Names:
    """Map neutral names to those of `bert_flax`; the layouts are the same."""
    return {p.name: (p.name.replace(".", "/"), None) for p in parameters}
