"""Faults that ports have, each put into a small pair, and harmless rewrites: the suite as data.

A fault names the first value that differs and the kind of its cause (None where no known cause is
to be claimed). `drill.py` runs all of them.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import torch
from flax import nnx
from jax import lax

from lockstep.port import check, outcome, pair
from tests.port.pairs import cnn, decoder, encoder, gpt, rotary, tiny

PAIRS: Mapping[str, Any] = {
    "cnn": cnn,
    "gpt": gpt,
    "rotary": rotary,
    "encoder": encoder,
    "decoder": decoder,
    "tiny": tiny,
}


@dataclass(frozen=True)
class Fault:
    """A fault of a port.

    Attributes:
        pair: of `PAIRS`.
        name: in words.
        settings: of the port, that are wrong.
        first: the first value that differs; None of a harmless rewrite.
        kind: of the cause; None where none is known.
        train: whether it shows in training mode alone.
        bits: behind the point, that JAX keeps of float32 factors: 10 as TF32 does, 7 as bfloat16.
            It shows in float32 alone.
    """

    pair: str
    name: str
    settings: dict[str, Any]
    first: str | None = None
    kind: str | None = None
    train: bool = False
    bits: int | None = None


@contextlib.contextmanager
def products(bits: int) -> Iterator[None]:
    """Have JAX round the factors of products and convolutions, as a GPU does for TF32."""
    changed = (lax.dot_general_p, lax.conv_general_dilated_p)
    jax.clear_caches()  # of what was compiled with other products
    for primitive in changed:

        def bind(*factors: jax.Array, sound: Any = primitive.bind, **how: Any) -> Any:
            single = all(x.dtype == jnp.float32 for x in factors)
            kept = (lax.reduce_precision(x, 8, bits) for x in factors) if single else factors
            return sound(*kept, **how)

        setattr(primitive, "bind", bind)  # noqa: B010
    try:
        yield
    finally:
        for primitive in changed:
            delattr(primitive, "bind")
        jax.clear_caches()


def described(fault: Fault) -> pair.Pair:
    """Return a pair with a fault in it."""
    return pair.described(Path("pair.py"), PAIRS[fault.pair].pair(fault.settings))


def run(fault: Fault, precisions: tuple[str, ...] = ("float64",)) -> outcome.Outcome:
    """Compare a pair with a fault in it; one of products in float32, too."""
    precisions = ("float64", "float32") if fault.bits else precisions
    with products(fault.bits) if fault.bits else contextlib.nullcontext():
        prepared = check.prepare(described(fault))
        return check.check(prepared, check.Options(precisions=precisions, train=fault.train))


def found(result: outcome.Outcome) -> tuple[str | None, str | None]:
    """Return the first value that differs and the kind of the cause that is claimed."""
    failed = next((f for f in result.findings if not f.passed), None)
    if failed is None or failed.first is None:
        return None, None
    return failed.first.name, failed.cause.kind if failed.cause else None


def _mirrored(kernel: jax.Array) -> jax.Array:
    return kernel[::-1, ::-1]


def _swapped(kernel: jax.Array) -> jax.Array:
    return kernel.swapaxes(2, 3)


def _tanh(x: jax.Array) -> jax.Array:
    return nnx.gelu(x, approximate=True)


def _sigmoid(x: jax.Array) -> jax.Array:
    return x * nnx.sigmoid(1.702 * x)


def _norm(**changed: Any) -> Callable[[jax.Array], jax.Array]:
    settings = {"axes": -1, "eps": 1e-5, "ddof": 0, "centred": True, **changed}
    return lambda x: gpt.layer_norm(x, **settings)


def _interleaved(x: jax.Array) -> list[jax.Array]:
    return [x[..., k::3] for k in range(3)]


def _key_first(x: jax.Array) -> list[jax.Array]:
    q, k, v = jnp.split(x, 3, -1)
    return [k, q, v]


def _value_first(x: jax.Array) -> list[jax.Array]:
    q, k, v = jnp.split(x, 3, -1)
    return [q, v, k]


def _unpadded(scores: jax.Array, padded: jax.Array) -> jax.Array:
    return scores


def _turned_round(scores: jax.Array, padded: jax.Array) -> jax.Array:
    return jnp.where(padded, scores, -1e30)


def _adamw(**changed: Any) -> dict[str, Any]:
    return {"optax": optax.adamw(1e-3, **{"weight_decay": 1e-2, **changed})}


def _uncorrected() -> optax.GradientTransformation:
    def start(p: Any) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, p)
        return zeros, zeros

    def update(g: Any, state: Any, p: Any = None) -> Any:
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state[0], g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, state[1], g)
        return jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + 1e-8), m, v), (m, v)

    return optax.GradientTransformation(start, update)


TF32 = {"name": "products in TF32", "settings": {}, "kind": "TF32", "bits": 10}
BFLOAT16 = {"name": "products in bfloat16", "settings": {}, "bits": 7}
KERNEL, PADDING, HEADS = "kernel's layout", "padding", "order of heads"
MEAN = "statistics norm1.running_mean"

FAULTS: tuple[Fault, ...] = (
    Fault("cnn", "epsilon 1e-3 in batch norm", {"eps1": 1e-3}, "norm1", "epsilon"),
    Fault("cnn", "epsilon 1e-6 in the second", {"eps2": 1e-6}, "norm2", "epsilon"),
    Fault("cnn", "momentum reversed", {"momentum": 0.1}, MEAN, "momentum", True),
    Fault("cnn", "momentum 0.99", {"momentum": 0.99}, MEAN, "momentum", True),
    Fault(
        "cnn",
        "biased running variance",
        {"biased": True},
        "statistics norm1.running_var",
        "running variance",
        True,
    ),
    Fault(
        "cnn",
        "batch statistics in evaluation",
        {"batch statistics": True},
        "norm1",
        "mode of batch normalisation",
    ),
    Fault("cnn", "padding SAME", {"conv2": "SAME"}, "conv2", PADDING),
    Fault("cnn", "max-pool SAME", {"pool": "SAME"}, "input of conv3", PADDING),
    Fault("cnn", "average-pool SAME", {"average": "SAME"}, "input of fc1", PADDING),
    Fault("cnn", "no padding counted", {"count": False}, "input of fc1", "average over padding"),
    Fault("cnn", "slope 0.01", {"slope": 0.01}, "input of conv3", "slope"),
    Fault("cnn", "slope 0.2", {"slope": 0.2}, "input of conv3", "slope"),
    Fault("cnn", "GELU by tanh", {"gelu1": _tanh}, "input of fc2", "GELU"),
    Fault("cnn", "GELU by a sigmoid", {"gelu1": _sigmoid}, "input of fc2", "GELU"),
    Fault("cnn", "GELU by tanh before a pool", {"gelu3": _tanh}, "input of fc1", "GELU"),
    Fault("cnn", "kernel mirrored", {"kernel3": _mirrored}, "conv3", KERNEL),
    Fault("cnn", "kernel's channels swapped", {"kernel3": _swapped}, "conv3", KERNEL),
    Fault(
        "cnn",
        "kernel's height and width swapped",
        {"kernel3": lambda kernel: kernel.swapaxes(0, 1)},
        "conv3",
        KERNEL,
    ),
    Fault("cnn", "square kernel transposed", {"transpose fc2": True}, "fc2", KERNEL),
    Fault("cnn", "bias left out", {"bias fc2": False}, "fc2", "bias"),
    Fault(
        "cnn",
        "flattened with channels last",
        {"channels last": True},
        "input of fc1",
        "order of flattened features",
    ),
    Fault("cnn", "dropout left on", {"drop": True}, "input of fc2", "dropout"),
    Fault(
        "gpt",
        "epsilon 1e-6 in every LayerNorm",
        {"norm": _norm(eps=1e-6)},
        "blocks.0.ln1",
        "epsilon",
    ),
    Fault("gpt", "epsilon 1e-12 in the last", {"last norm": _norm(eps=1e-12)}, "ln_f", "epsilon"),
    Fault(
        "gpt",
        "epsilon outside of the root",
        {"norm": gpt.outside},
        "blocks.0.ln1",
        "epsilon outside of the root",
    ),
    Fault("gpt", "unbiased variance", {"norm": _norm(ddof=1)}, "blocks.0.ln1", "variance"),
    Fault(
        "gpt",
        "LayerNorm over time, too",
        {"norm": _norm(axes=(1, 2))},
        "blocks.0.ln1",
        "LayerNorm's axes",
    ),
    Fault(
        "gpt",
        "RMSNorm for LayerNorm",
        {"last norm": _norm(centred=False)},
        "ln_f",
        "kind of normalisation",
    ),
    Fault("gpt", "GELU by tanh", {"gelu": _tanh}, "input of blocks.0.out", "GELU"),
    Fault("gpt", "scores not scaled", {"scale": 1.0}, "input of blocks.0.proj", "softmax scale"),
    Fault(
        "gpt",
        "scores divided by features",
        {"scale": 1 / 8},
        "input of blocks.0.proj",
        "softmax scale",
    ),
    Fault("gpt", "masked with zero", {"mask": 0.0}, "input of blocks.0.proj", "mask value"),
    Fault("gpt", "no mask", {"mask": None}, "input of blocks.0.proj", "attention mask"),
    Fault("gpt", "mask off by one", {"diagonal": 2}, "input of blocks.0.proj", "attention mask"),
    Fault("gpt", "softmax's axis", {"axis": -2}, "input of blocks.0.proj", "softmax's axis"),
    Fault("gpt", "heads last", {"heads last": True}, "input of blocks.0.proj", HEADS),
    Fault("gpt", "fused interleaved", {"split": _interleaved}, "input of blocks.0.proj", HEADS),
    Fault("gpt", "query and key swapped", {"split": _key_first}, "input of blocks.0.proj", HEADS),
    Fault("gpt", "key and value swapped", {"split": _value_first}, "input of blocks.0.proj", HEADS),
    Fault(
        "gpt",
        "embeddings scaled",
        {"embedding": gpt.WIDTH**0.5},
        "input of blocks.0",
        "embedding's scale",
    ),
    Fault("rotary", "epsilon 1e-6 in plain sight", {"eps": 1e-6}, "layers.0.norm1", "epsilon"),
    Fault("rotary", "the last epsilon", {"last eps": 1e-8}, "norm", "epsilon"),
    Fault(
        "rotary",
        "neighbours rotated",
        {"turn": rotary.neighbours, "angles": lambda a: jnp.repeat(a, 2, -1)},
        "layers.0.o",
        "rotary positions",
    ),
    Fault(
        "rotary",
        "rotated the other way",
        {"turn": lambda x: -rotary.half(x)},
        "layers.0.o",
        "rotary positions",
    ),
    Fault("rotary", "no scale", {"scale": 1.0}, "layers.0.o", "softmax scale"),
    Fault("rotary", "not causal", {"causal": False}, "layers.0.o", "attention mask"),
    Fault(
        "rotary",
        "GELU in the gate",
        {"gate": lambda x: jax.nn.gelu(x, approximate=False)},
        "layers.0.down",
        "activation",
    ),
    Fault("encoder", "no scale", {"scale": 1.0}, "attention", "softmax scale"),
    Fault("encoder", "scale of all features", {"scale": 0.25}, "attention", "softmax scale"),
    Fault("encoder", "padding looked at", {"padding": _unpadded}, "attention", "attention mask"),
    Fault(
        "encoder", "padding turned round", {"padding": _turned_round}, "attention", "attention mask"
    ),
    Fault("encoder", "embeddings not scaled", {"embedding": 1.0}, "input of attention", "scale"),
    Fault("encoder", "epsilon 1e-5", {"eps1": 1e-5}, "norm1", "epsilon"),
    Fault("encoder", "ReLU for SiLU", {"activation": nnx.relu}, "input of out", "activation"),
    Fault("encoder", "biased deviation", {"ddof": 0}, "output pooled", "variance"),
    Fault("decoder", "epsilon 1e-6 in GroupNorm", {"eps": 1e-6}, "norm", "epsilon"),
    Fault("decoder", "transposed kernel mirrored", {"up": _mirrored}, "up", KERNEL),
    Fault("decoder", "kernel mirrored", {"mix": _mirrored}, "mix", KERNEL),
    Fault("decoder", "corners aligned", {"larger": decoder.corners}, "small", "resize"),
    Fault("decoder", "antialiased", {"smaller": decoder.antialiased}, "last", "resize"),
    Fault("decoder", "nearest middles", {"nearest": decoder.middles}, "last", "resize"),
    Fault("decoder", "biased variance", {"ddof": 0}, "output", "variance"),
    Fault("decoder", "another addend", {"added": 1e-5}, "output", "epsilon"),
    Fault("tiny", "decay of optax.adamw", {"optax": optax.adamw(1e-3)}, "w", "weight decay"),
    Fault(
        "tiny",
        "decay in the gradient",
        {"optax": optax.chain(optax.add_decayed_weights(1e-2), optax.adam(1e-3))},
        "w",
        "kind of weight decay",
    ),
    Fault(
        "tiny",
        "decay not scaled by the rate",
        {
            "optax": optax.chain(
                optax.scale_by_adam(), optax.scale(-1e-3), optax.add_decayed_weights(-1e-2)
            )
        },
        "w",
        "decay scaled by the rate",
    ),
    Fault("tiny", "epsilon 1e-6", _adamw(eps=1e-6), "w", "epsilon"),
    Fault(
        "tiny",
        "epsilon below the root",
        _adamw(eps=0.0, eps_root=1e-8),
        "w",
        "epsilon below the root",
    ),
    Fault("tiny", "second moment of 0.99", _adamw(b2=0.99), "w", "betas"),
    Fault(
        "tiny",
        "no bias correction",
        {
            "torch": lambda p: torch.optim.Adam(p, lr=1e-3),
            "optax": optax.chain(_uncorrected(), optax.scale(-1e-3)),
        },
        "w",
        "bias correction",
    ),
    Fault(
        "tiny",
        "clipping's 1e-6",
        {
            "torch": tiny.clipped,
            "optax": optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1, 0.9)),
        },
        "w",
        "clipping",
    ),
    Fault(
        "tiny",
        "schedule off by one",
        {"torch": tiny.scheduled, "optax": optax.adam(tiny.rate(1))},
        "w",
        "schedule",
    ),
    Fault(
        "tiny",
        "Nesterov",
        {
            "torch": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
            "optax": optax.sgd(0.1, 0.9, nesterov=True),
        },
        "w",
        "Nesterov",
    ),
    Fault("cnn", first="conv1", **TF32),
    Fault("gpt", first="blocks.0.qkv", **TF32),
    Fault("rotary", first="layers.0.q", **TF32),
    Fault("encoder", first="attention", **TF32),
    Fault("decoder", first="up", **TF32),
    Fault("cnn", first="conv1", **BFLOAT16),
    Fault("encoder", first="attention", **BFLOAT16),
)

HARMLESS: tuple[Fault, ...] = (
    *(Fault(name, "as it is", {}) for name in PAIRS),
    Fault("cnn", "as it is, in training", {}, train=True),
    Fault("cnn", "convolution as a product", {"im2col": True}),
    Fault("cnn", "compiled", {"jit": True}),
    Fault("gpt", "fast variance", {"norm": gpt.fast}),
    Fault("gpt", "query scaled first", {"scale first": True}),
    Fault("gpt", "another mask value", {"mask": -1e9}),
    Fault("gpt", "masked with infinity", {"mask": -jnp.inf}),
    Fault("gpt", "einsum", {"einsum": True}),
    Fault("gpt", "rematerialised", {"remat": True}),
    Fault("gpt", "GELU written out", {"gelu": lambda x: x * (1 + jax.lax.erf(x / 2**0.5)) / 2}),
    Fault("rotary", "scan over stacked layers", {"scan": True}),
    Fault("rotary", "compiled", {"jit": True}),
    Fault("tiny", "a schedule", {"torch": tiny.scheduled, "optax": optax.adam(tiny.rate(0))}),
    Fault("rotary", "sigmoid written out", {"gate": lambda x: x / (1 + jnp.exp(-x))}),
    Fault("encoder", "one product", {"one product": True}),
    Fault("encoder", "another mask value", {
        "padding": lambda scores, padded: jnp.where(padded, -1e4, scores)
    }),
)  # fmt: skip
