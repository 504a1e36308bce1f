"""Models that nobody here wrote: PyTorch's and Flax's of transformers 4.57, with random weights.

    python -m tests.port.real [WORD ...]

Runs in an environment of its own (`make drill-port-real`), as later versions have no Flax
models. A model is compared as it is, in float64 and float32, and with a fault, which is another
configuration in Flax.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from lockstep.errors import UserError
from lockstep.port import check, pair

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
TEXT = {"vocab_size": 99, **SMALL, "max_position_embeddings": 32}
IMAGE = {**SMALL, "image_size": 16, "patch_size": 4}
CLIP_TEXT = {**TEXT, "eos_token_id": 98}

MODELS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", TEXT),
    "roberta": ("Roberta", {**TEXT, "pad_token_id": 1}),
    "gpt2": (
        "GPT2",
        {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32},
    ),
    "t5": (
        "T5",
        {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    ),
    "vit": ("ViT", IMAGE),
    "clip": (
        "CLIP",
        {"text_config": CLIP_TEXT, "vision_config": IMAGE, "projection_dim": 16},
    ),
    "wav2vec2": (
        "Wav2Vec2",
        {
            **SMALL,
            "vocab_size": 32,
            "conv_dim": (16, 16),
            "conv_kernel": (5, 3),
            "conv_stride": (4, 2),
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
            "feat_extract_norm": "layer",
            "do_stable_layer_norm": True,
        },
    ),
    "resnet": ("ResNet", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}),
}

FAULTS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("bert", {"hidden_act": "gelu_new"}, "GELU"),
    ("bert", {"layer_norm_eps": 1e-5}, "epsilon"),
    ("roberta", {"layer_norm_eps": 1e-6}, "epsilon"),
    ("gpt2", {"activation_function": "gelu"}, "GELU"),
    ("gpt2", {"layer_norm_epsilon": 1e-6}, "epsilon"),
    ("t5", {"layer_norm_epsilon": 1e-5}, "epsilon"),
    ("vit", {"hidden_act": "gelu_new"}, "GELU"),
    ("vit", {"layer_norm_eps": 1e-6}, "epsilon"),
    ("clip", {"text_config": {**CLIP_TEXT, "hidden_act": "gelu"}}, "GELU"),
    ("clip", {"vision_config": {**IMAGE, "layer_norm_eps": 1e-6}}, "epsilon"),
    ("wav2vec2", {"layer_norm_eps": 1e-6}, "epsilon"),
    ("wav2vec2", {"hidden_act": "gelu_new"}, "GELU"),
)


def ids(rows: int = 2, length: int = 9) -> np.ndarray:
    return np.random.default_rng(0).integers(3, 97, (rows, length))


def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)


def _text(model: Any, batch: Any) -> Any:
    x = batch["input_ids"]
    places = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape)
    if "Roberta" in type(model).__name__:
        places = places + 2
    return model(x, batch["attention_mask"], jnp.zeros_like(x), places, None)[0]


def _gpt2(model: Any, batch: Any) -> Any:
    x = batch["input_ids"]
    places = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape)
    return model(x, batch["attention_mask"], places)[0]


def _t5(model: Any, batch: Any) -> Any:
    x, y = batch["input_ids"], batch["decoder_input_ids"]
    mask = batch["attention_mask"]
    return model(
        input_ids=x,
        attention_mask=mask,
        decoder_input_ids=y,
        decoder_attention_mask=jnp.ones_like(y),
    )[0]


def _clip(model: Any, batch: Any) -> Any:
    x = batch["input_ids"]
    places = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape)
    pixels = batch["pixel_values"].transpose(0, 2, 3, 1)
    found = model(x, pixels, batch["attention_mask"], places)
    return found.logits_per_image, found.text_embeds, found.image_embeds


def _pixels(model: Any, batch: Any) -> Any:
    return model(batch["pixel_values"].transpose(0, 2, 3, 1))[0]


def _sound(model: Any, batch: Any) -> Any:
    x = batch["input_values"]
    return model(x, jnp.ones(x.shape, jnp.int32))[0]


def _masked() -> dict[str, np.ndarray]:
    mask = np.ones((2, 9), np.int64)
    mask[1, 6:] = 0
    return {"input_ids": ids(), "attention_mask": mask}


def _first(model: Any, batch: Any) -> Any:
    return model(**batch)[0]


def _three(model: Any, batch: Any) -> Any:
    found = model(**batch)
    return found.logits_per_image, found.text_embeds, found.image_embeds


CALLS: Mapping[str, tuple[Callable, Callable, Callable[[], dict[str, np.ndarray]]]] = {
    "Bert": (_first, _text, _masked),
    "Roberta": (_first, _text, _masked),
    "GPT2": (_first, _gpt2, _masked),
    "T5": (_first, _t5, lambda: {**_masked(), "decoder_input_ids": ids(2, 5)}),
    "ViT": (_first, _pixels, lambda: {"pixel_values": images()}),
    "CLIP": (_three, _clip, lambda: {**_masked(), "pixel_values": images()}),
    "Wav2Vec2": (
        _first,
        _sound,
        lambda: {"input_values": np.random.default_rng(0).normal(size=(2, 400)).astype(np.float32)},
    ),
    "ResNet": (_first, _pixels, lambda: {"pixel_values": images()}),
}


def _older_jax() -> None:
    """Give `jnp.clip` the names of its arguments that these models still use."""
    sound = jnp.clip

    def clip(x: Any, a_min: Any = None, a_max: Any = None, **named: Any) -> Any:
        return sound(x, **{"min": a_min, "max": a_max, **named})

    jnp.clip = clip


def outcome(name: str, changed: Mapping[str, Any]) -> check.Outcome:
    """Compare a model with its Flax port, whose configuration may be another one."""
    import torch

    transformers = importlib.import_module("transformers")
    kind, settings = MODELS[name]
    made = getattr(transformers, f"{kind}Config")
    torch.manual_seed(0)
    first, second, batch = CALLS[kind]
    flax = getattr(transformers, f"Flax{kind}Model")(made(**{**settings, **changed}), seed=0)
    given = {
        "torch_model": getattr(transformers, f"{kind}Model")(made(**settings)),
        "jax_model": flax.module,
        "jax_params": flax.params if "params" in flax.params else {"params": flax.params},
        "batch": batch(),
        "torch_call": first,
        "jax_call": second,
    }
    prepared = check.prepare(pair.described(Path(f"{name}.py"), given))
    return check.check(prepared, check.Options(precisions=("float64", "float32")))


def main(words: list[str]) -> int:
    """Print one line for each model and fault; return 1 unless all are as they should be."""
    _older_jax()
    wrong = 0
    print("| model | in Flax | values | first that differs | cause named |\n|---|---|---|---|---|")
    cases = [(name, {}, None) for name in MODELS] + [(n, c, k) for n, c, k in FAULTS]
    for name, changed, kind in cases:
        if not all(word in name for word in words):
            continue
        shown = f"| {name} | {_said(MODELS[name][1], changed)}"
        try:
            result = outcome(name, changed)
        except UserError as error:
            print(f"{shown} | | {error} | |", flush=True)
            wrong += 1
            continue
        failed = next((f for f in result.findings if not f.passed), None)
        first = failed.first.name if failed and failed.first else "none"
        found = failed.cause.kind if failed and failed.cause else None
        wrong += found != kind or (failed is None) != (kind is None)
        count = len(result.findings[0].values)
        print(f"{shown} | {count} | {first} | {found or 'none'} |", flush=True)
    return int(wrong > 0)


def _said(settings: Mapping[str, Any], changed: Mapping[str, Any]) -> str:
    """Return what is changed of a configuration, in words."""
    found = []
    for name, value in changed.items():
        if isinstance(value, dict):
            own = {k: v for k, v in value.items() if settings[name].get(k) != v}
            found += [f"{name}.{k} {v}" for k, v in own.items()]
        else:
            found.append(f"{name} {value}")
    return ", ".join(found) or "as it is"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
