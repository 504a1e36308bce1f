"""BERT's parameters from a staged file: a published checkpoint, or a state of Lockstep's own.

Published names are those of transformers: dense kernels are ``(out, in)``, older files call a
normalisation's scale and bias `gamma` and `beta`, some begin all names with ``bert.`` and some do
not. What is tied to the word embedding or is a table of numbers may be there or not; heads that
the model has no use for are passed over. Anything else that is missing, too many or of another
shape is refused: the file is of another model.
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from lockstep.errors import UserError
from lockstep.workloads.contract import Parameter

Tensors = Mapping[str, np.ndarray]

FIXED = {
    "word.embedding": "bert.embeddings.word_embeddings.weight",
    "position.embedding": "bert.embeddings.position_embeddings.weight",
    "segment.embedding": "bert.embeddings.token_type_embeddings.weight",
    "embedding_norm": "bert.embeddings.LayerNorm",
    "transform": "cls.predictions.transform.dense",
    "transform_norm": "cls.predictions.transform.LayerNorm",
    "decoder.bias": "cls.predictions.bias",
    "pooler": "bert.pooler.dense",
    "classifier": "classifier",
}
LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attended": "attention.output.dense",
    "attended_norm": "attention.output.LayerNorm",
    "inner": "intermediate.dense",
    "outer": "output.dense",
    "outer_norm": "output.LayerNorm",
}
LEAF = {"kernel": "weight", "scale": "weight", "bias": "bias"}
TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
HEADS = ("cls.", "bert.pooler.", "classifier.")
"""What a file may have beside what the model takes."""
OWN_HEADS = ("transform.", "transform_norm.", "decoder.", "pooler.", "classifier.")
TABLES = ("bert.embeddings.position_ids",)
OLD = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))
TYPES = ("float32", "float16")


def published(name: str) -> str:
    """Return the published name of a parameter."""
    if name in FIXED:
        return FIXED[name]
    module, _, leaf = name.rpartition(".")
    if module in FIXED:
        return f"{FIXED[module]}.{LEAF[leaf]}"
    _, layer, inner = module.split(".")
    return f"bert.encoder.layer.{layer}.{LAYER[inner]}.{LEAF[leaf]}"


def adopted(
    where: str, tensors: Tensors, parameters: Iterable[Parameter], new: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """Return the parameters that a file has, by neutral name and in neutral layout, float32.

    Args:
        where: the file, for messages.
        tensors: of the file.
        parameters: of the model.
        new: beginnings of the names of those that a file need not have.

    Raises:
        UserError: names the first tensor that is missing, too many, of another shape or type.
    """
    own = any(name.startswith("param/") for name in tensors)
    known = of_state(tensors) if own else _renamed(where, tensors)
    if not own:
        _check_tied(where, known)
    result: dict[str, np.ndarray] = {}
    taken = set()
    for parameter in parameters:
        name = parameter.name if own else published(parameter.name)
        if name not in known:
            if parameter.name.startswith(new):
                continue
            raise UserError(
                f"{where}: has no tensor {name}; it is not of this model, or model.size has too "
                "many layers"
            )
        taken.add(name)
        result[parameter.name] = _fitted(where, name, known[name], parameter, own)
    heads = OWN_HEADS if own else HEADS
    passed_over = {name for name in known if name.startswith(heads)} | set(TABLES)
    surplus = sorted(known.keys() - taken - passed_over)
    if surplus:
        raise UserError(
            f"{where}: has the tensor {surplus[0]}, which the model has not; set model.size to "
            "that of the file"
        )
    return result


def of_state(tensors: Tensors) -> dict[str, np.ndarray]:
    """Return the parameters of one of Lockstep's states; an optimizer starts anew."""
    parts = {name: name.partition("/") for name in tensors}
    return {name: tensors[full] for full, (role, _, name) in parts.items() if role == "param"}


def _renamed(where: str, tensors: Tensors) -> dict[str, np.ndarray]:
    """Return tensors under the names that newer files use."""
    result: dict[str, np.ndarray] = {}
    for original, value in tensors.items():
        name = original
        for old, new in OLD:
            name = name.removesuffix(old) + new if name.endswith(old) else name
        if re.match(r"(embeddings|encoder|pooler)\.", name):
            name = f"bert.{name}"
        if name in result:
            raise UserError(f"{where}: has two tensors for {name}, one of them {original}")
        result[name] = value
    return result


def _check_tied(where: str, known: Tensors) -> None:
    for name, other in TIED.items():
        if name in known and other in known and not np.array_equal(known[name], known[other]):
            raise UserError(
                f"{where}: {name} differs from {other}, to which it is tied in BERT; it is of "
                "another model"
            )


def check_type(where: str, name: str, value: np.ndarray) -> None:
    """Check that a file's tensor is of a floating type.

    Raises:
        UserError: it is not.
    """
    if value.dtype.name not in TYPES:
        raise UserError(
            f"{where}: {name} is of type {value.dtype}; it must be one of {', '.join(TYPES)}"
        )


def _fitted(
    where: str, name: str, value: np.ndarray, parameter: Parameter, own: bool
) -> np.ndarray:
    """Return a tensor in neutral layout."""
    transposed = parameter.name.endswith(".kernel") and not own
    expected = parameter.shape[::-1] if transposed else parameter.shape
    if value.shape != expected:
        raise UserError(
            f"{where}: {name} has the shape {value.shape}, but the model's is {expected}; set "
            "model.size, model.vocabulary and model.positions to those of the file"
        )
    check_type(where, name, value)
    return np.ascontiguousarray(value.T if transposed else value, np.float32)
