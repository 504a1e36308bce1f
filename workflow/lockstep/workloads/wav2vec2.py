"""Wav2Vec2 without any framework: sizes, parameters, names, operations, masks of time.

Baevski et al., wav2vec 2.0: A framework for self-supervised learning of speech representations
(2020). Seven convolutions make a frame of every 20 ms of a clip; their features are normalised and
projected; some frames are masked in training; a grouped convolution adds positions, and layers of
attention and of a GELU (by the error function) between two dense layers follow.

There are two families. `group`, as the base model was published: group normalisation after the
first convolution alone, one group a channel, no biases of convolutions, layer normalisation after
each residual sum. `layer`, as the large ones: layer normalisation and a bias with every
convolution, and before each branch of a layer. A group's mean is over all frames, those of the
padding too: the padded length is part of what such a model computes.

The positional convolution's kernel is a direction times a magnitude over its norm, one for each
place in time (weight normalisation). Types under bfloat16 are those of `lockstep.workloads.bert`,
and an attention's key biases are frozen as there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lockstep.datasets import framing
from lockstep.workloads import bert, naming, randomness
from lockstep.workloads.contract import MOST_LENGTHS, Parameter

EPSILON = 1e-5  # of every normalisation
KERNELS = (10, 3, 3, 3, 3, 2, 2)
STRIDES = (5, 2, 2, 2, 2, 2, 2)
FAMILIES = ("group", "layer")

MODEL: dict[str, Any] = {
    "preset": "tiny",  # or small, base, large
    "family": "layer",  # or group
    "letters": 32,  # that the head tells apart, beside the blank: those of the dataset, or more
    "samples": 16000,  # of a clip at most, a multiple of 320
    "lengths": 4,  # that clips are padded to, at most so many; 1: to `samples`
    "dropout": 0.1,  # of features, their sum with positions, both branches, what the head is given
    "activation_dropout": 0.1,  # between the two dense layers
    "attention_dropout": 0.1,  # of attention's probabilities; 0 for fused attention
    "mask_percent": 5,  # of frames that begin a mask, times its length; 0 for none
    "mask_length": 10,  # frames
    "frozen_encoder": False,  # the convolutions keep the weights that they start with
}
"""What the recipe's `model` understands, with its defaults."""

PROJECTED, SUMMED, FINAL = 1, 2, 3  # sites of dropout
LAYERS, PER_LAYER = 8, 4  # sites of a layer's dropout: LAYERS + PER_LAYER * layer + place
PROBABILITIES, ATTENDED, INNER, OUTER = 0, 1, 2, 3  # places
MASKED = 4  # site of the masks' words


@dataclass(frozen=True, kw_only=True)
class Size:
    """The sizes of a model.

    Attributes:
        width, layers, heads, inner: of the layers, and between their two dense ones.
        channels: of the convolutions.
        kernel, groups: of the positional convolution.
    """

    width: int
    layers: int
    heads: int
    inner: int
    channels: int
    kernel: int
    groups: int


PRESETS = {
    "tiny": Size(width=64, layers=2, heads=4, inner=128, channels=16, kernel=16, groups=4),
    "small": Size(width=256, layers=4, heads=4, inner=1024, channels=256, kernel=64, groups=16),
    "base": Size(width=768, layers=12, heads=12, inner=3072, channels=512, kernel=128, groups=16),
    "large": Size(width=1024, layers=24, heads=16, inner=4096, channels=512, kernel=128, groups=16),
}


def size(model: Mapping[str, Any]) -> Size:
    """Return a model's sizes; `problem` says whether it has some."""
    return PRESETS[model["preset"]]


def frames(model: Mapping[str, Any]) -> int:
    """Return the frames of a padded clip."""
    return framing.count(model["samples"])


def problem(model: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a recipe's `model`, or None."""
    for key, choices in (("preset", PRESETS), ("family", FAMILIES)):
        if model[key] not in choices:
            return f"model.{key} is {model[key]!r}; it must be one of {', '.join(choices)}"
    if model["letters"] < 1:
        return f"model.letters is {model['letters']}; it must be at least 1"
    if model["samples"] < framing.FRAME or model["samples"] % framing.STEP:
        return (
            f"model.samples is {model['samples']}; it must be a multiple of {framing.STEP}, and at "
            f"least {-(-framing.FRAME // framing.STEP) * framing.STEP}"
        )
    if not 1 <= model["lengths"] <= MOST_LENGTHS:
        return f"model.lengths is {model['lengths']}; it must be from 1 to {MOST_LENGTHS}"
    for key in ("dropout", "activation_dropout", "attention_dropout"):
        if model[key] > 0.99:
            return f"model.{key} is {model[key]}; it must be at most 0.99"
    if model["mask_percent"] > 100 or model["mask_length"] < 1:
        return (
            f"model.mask_percent is {model['mask_percent']} and mask_length "
            f"{model['mask_length']}; they must be at most 100, and at least 1"
        )
    return None


def site(layer: int, place: int) -> int:
    """Return the number of a place of dropout in a layer."""
    return LAYERS + PER_LAYER * layer + place


# Masks ---------------------------------------------------------------------------------------


def masks(keys: np.ndarray, found: np.ndarray, most: int, model: Mapping[str, Any]) -> np.ndarray:
    """Return which frames are masked, uint8 ``(n, most)``; a function of each example alone.

    Of an example's L frames ``percent * L / (100 * length)`` begin a mask of `length` frames,
    rounded up or down at random; they are the first ones of a random order of all places where one
    fits, so that masks may overlap.

    Args:
        keys: of the examples, int32 or uint32 ``(n, 2)``.
        found: frames of the examples, integers ``(n,)``.
        most: frames of a padded clip.
    """
    percent, length = model["mask_percent"], model["mask_length"]
    words = randomness.words(keys, MASKED, most + 1).astype(np.uint64)
    found = np.asarray(found, np.int64)
    scaled = (percent * found << 32) // (100 * length)
    wanted = (scaled + words[:, 0].astype(np.int64)) >> 32
    places = found - length + 1
    wanted = np.minimum(wanted, np.maximum(places, 0))
    inside = np.arange(most) < places[:, None]
    order = np.argsort(np.where(inside, words[:, 1:], np.uint64(1 << 32)), axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    begins = inside & (rank < wanted[:, None])
    result = begins.copy()
    for k in range(1, min(length, most)):
        result[:, k:] |= begins[:, :-k]
    return result.astype(np.uint8)


# Parameters ----------------------------------------------------------------------------------


def _uniform(name: str, shape: tuple[int, ...], inputs: int, **more: Any) -> Parameter:
    return Parameter(name=name, shape=shape, bound=inputs**-0.5, **more)


def _convolutions(model: Mapping[str, Any]) -> list[Parameter]:
    """Return the parameters of the convolutions."""
    channels, trained = size(model).channels, not model["frozen_encoder"]
    layered, inputs, result = model["family"] == "layer", 1, []
    for k, kernel in enumerate(KERNELS):
        shape, taken = (kernel, inputs, channels), kernel * inputs
        deviation = (2 / taken) ** 0.5
        result.append(Parameter(name=f"convs.{k}.kernel", shape=shape, std=deviation))
        if layered:
            result.append(_uniform(f"convs.{k}.bias", (channels,), taken, decay=False))
        if layered or not k:
            result += bert.norm(f"conv_norms.{k}", channels)
        inputs = channels
    return [Parameter(**{**vars(p), "trained": trained}) for p in result]


def trunk(model: Mapping[str, Any]) -> list[Parameter]:
    """Return all parameters but a head's, in the order of the network."""
    shape = size(model)
    width, channels = shape.width, shape.channels
    result = [*_convolutions(model), *bert.norm("projection_norm", channels)]
    result.append(_uniform("projection.kernel", (channels, width), channels))
    result.append(_uniform("projection.bias", (width,), channels, decay=False))
    if model["mask_percent"]:
        result.append(Parameter(name="masked", shape=(width,), bound=1.0, decay=False))
    deviation = 2 * (shape.kernel * width) ** -0.5
    direction = (shape.kernel, width // shape.groups, width)
    norm = deviation * (direction[1] * width) ** 0.5
    result += [
        Parameter(name="positions.direction", shape=direction, std=deviation),
        Parameter(name="positions.magnitude", shape=(shape.kernel,), constant=norm),
        Parameter(name="positions.bias", shape=(width,), decay=False),
    ]
    before, after = (
        bert.norm("encoder_norm", width) if model["family"] == family else [] for family in FAMILIES
    )
    result += before
    for layer in range(shape.layers):
        for name in ("query", "key", "value", "attended"):
            result += bert.dense(f"layers.{layer}.{name}", width, width, trained=name != "key")
        result += bert.norm(f"layers.{layer}.attended_norm", width)
        result += bert.dense(f"layers.{layer}.inner", width, shape.inner)
        result += bert.dense(f"layers.{layer}.outer", shape.inner, width)
        result += bert.norm(f"layers.{layer}.outer_norm", width)
    return result + after


def trunk_flops(model: Mapping[str, Any]) -> int:
    """Return two operations for each multiplication in all but a head, of one padded clip."""
    shape, long, inputs, total = size(model), model["samples"], 1, 0
    for kernel, stride in zip(KERNELS, STRIDES):
        long = (long - kernel) // stride + 1
        total += 2 * long * kernel * inputs * shape.channels
        inputs = shape.channels
    # An even kernel gives a frame more, which is dropped.
    positions = long + (shape.kernel % 2 == 0)
    total += 2 * positions * shape.kernel * shape.width**2 // shape.groups
    dense = 8 * long * shape.width**2 + 4 * long * shape.width * shape.inner
    layers = shape.layers * (dense + 4 * long**2 * shape.width)
    return total + 2 * long * shape.channels * shape.width + layers


# Names ---------------------------------------------------------------------------------------

SERIES = naming.Layout(axes=(2, 1, 0))
"""Kernels of convolutions over time in PyTorch: (time, in, out) becomes (out, in, time)."""


def torch_names(parameters: tuple[Parameter, ...]) -> naming.Names:
    """Map neutral names to those of `wav2vec2_torch`."""
    result: dict[str, tuple[str, naming.Layout | None]] = {}
    for parameter in parameters:
        module, _, leaf = parameter.name.rpartition(".")
        if leaf == "kernel":
            layout = naming.DENSE if len(parameter.shape) == 2 else SERIES
            result[parameter.name] = (f"{module}.weight", layout)
        elif leaf == "direction":
            result[parameter.name] = (parameter.name, SERIES)
        else:
            result[parameter.name] = (parameter.name.replace(".scale", ".weight"), None)
    return result
