"""Wav2Vec2's parameters from a staged file: a published checkpoint, or a state of Lockstep's own.

Published names are those of transformers; a trunk alone has them without ``wav2vec2.``. Kernels
have their axes the other way round. The weight norm of the positional convolution is called
``weight_g`` and ``weight_v`` in older files, and ``parametrizations.weight.original0`` and
``original1`` in newer ones. The vector of masked frames is missing in a file whose model masked
none, and is passed over where ours masks none. A head is taken from a state of Lockstep's own
alone: that of a published file is of other letters, and is passed over with what pretraining alone
needs. Anything else that is missing, too many or of another shape is refused.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from lockstep.errors import UserError
from lockstep.workloads.bert_checkpoint import LEAF, check_type, of_state
from lockstep.workloads.contract import Parameter

Tensors = Mapping[str, np.ndarray]

ENCODER = "wav2vec2.encoder"
POSITIONS = f"{ENCODER}.pos_conv_embed.conv"
FIXED = {
    "projection_norm": "wav2vec2.feature_projection.layer_norm",
    "projection": "wav2vec2.feature_projection.projection",
    "encoder_norm": f"{ENCODER}.layer_norm",
}
POSITIONAL = {"magnitude": "weight_g", "direction": "weight_v", "bias": "bias"}
MASKED = "wav2vec2.masked_spec_embed"
LAYER = {
    "query": "attention.q_proj",
    "key": "attention.k_proj",
    "value": "attention.v_proj",
    "attended": "attention.out_proj",
    "attended_norm": "layer_norm",
    "inner": "feed_forward.intermediate_dense",
    "outer": "feed_forward.output_dense",
    "outer_norm": "final_layer_norm",
}
NEWER = {
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
}
PASSED_OVER = ("lm_head.", "quantizer.", "project_hid.", "project_q.", MASKED)
NEED_NOT = ("head.", "masked")
"""Beginnings of the names of parameters that a file need not have."""


def published(name: str) -> str:
    """Return the published name of a parameter, in its older form."""
    module, _, leaf = name.rpartition(".")
    if not module:
        return MASKED
    if module in FIXED:
        return f"{FIXED[module]}.{LEAF[leaf]}"
    if module == "positions":
        return f"{POSITIONS}.{POSITIONAL[leaf]}"
    kind, number, *inner = module.split(".")
    if kind == "layers":
        return f"{ENCODER}.layers.{number}.{LAYER[inner[0]]}.{LEAF[leaf]}"
    part = {"convs": "conv", "conv_norms": "layer_norm"}[kind]
    return f"wav2vec2.feature_extractor.conv_layers.{number}.{part}.{LEAF[leaf]}"


def adopted(where: str, tensors: Tensors, parameters: Iterable[Parameter]) -> dict[str, np.ndarray]:
    """Return the parameters that a file has, by neutral name and in neutral layout, float32.

    Args:
        where: the file, for messages.
        tensors: of the file.
        parameters: of the model.

    Raises:
        UserError: names the first tensor that is missing, too many, of another shape or type.
    """
    own = any(name.startswith("param/") for name in tensors)
    known = of_state(tensors) if own else _renamed(where, tensors)
    result: dict[str, np.ndarray] = {}
    taken = set()
    for parameter in parameters:
        new = parameter.name.startswith(NEED_NOT)
        if not own and parameter.name.startswith("head."):
            continue
        name = parameter.name if own else published(parameter.name)
        if name not in known:
            if new:
                continue
            raise UserError(
                f"{where}: has no tensor {name}; it is not of this model, or of another "
                "model.preset or model.family"
            )
        taken.add(name)
        result[parameter.name] = _fitted(where, name, known[name], parameter, own)
    passed_over = NEED_NOT if own else PASSED_OVER
    surplus = sorted(name for name in known.keys() - taken if not name.startswith(passed_over))
    if surplus:
        raise UserError(
            f"{where}: has the tensor {surplus[0]}, which the model has not; set model.preset and "
            "model.family to those of the file"
        )
    return result


def _renamed(where: str, tensors: Tensors) -> dict[str, np.ndarray]:
    """Return tensors under the older names, with the trunk's prefix."""
    result: dict[str, np.ndarray] = {}
    for original, value in tensors.items():
        name = original
        for newer, older in NEWER.items():
            name = name.replace(newer, older)
        if name.startswith(("feature_extractor.", "feature_projection.", "encoder.", "masked_")):
            name = f"wav2vec2.{name}"
        if name in result:
            raise UserError(f"{where}: has two tensors for {name}, one of them {original}")
        result[name] = value
    return result


def _fitted(
    where: str, name: str, value: np.ndarray, parameter: Parameter, own: bool
) -> np.ndarray:
    """Return a tensor in neutral layout."""
    check_type(where, name, value)
    found = value if own else value.T
    if not own and parameter.name == "positions.magnitude" and found.ndim == 3:
        found = found[:, 0, 0]  # published (1, 1, time)
    if found.shape != parameter.shape:
        expected = parameter.shape if own else parameter.shape[::-1]
        raise UserError(
            f"{where}: {name} has the shape {value.shape}, but the model's is {expected}; set "
            "model.preset and model.letters to those of the file"
        )
    return np.ascontiguousarray(found, np.float32)
