"""What `bert_classify` is, without any framework.

BERT (`lockstep.workloads.bert`), then a pooler (a dense layer and tanh on what the first token
became), dropout and a dense layer to classes. It is meant to start from the weights of a
pretrained model (`start` of the recipe), of which pooler and classifier may be new. Its data are
rows of sentences as source `glue` makes them; accuracy is that of the development set.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lockstep.workloads import bert, bert_checkpoint
from lockstep.workloads.contract import (
    KEY,
    Array,
    Arrays,
    Data,
    Draw,
    Metric,
    Model,
    Parameter,
    Recipe,
    Workload,
    key_draw,
)
from lockstep.workloads.recipe import recipe

MODEL = {**bert.MODEL, "classes": 2}
NEW = ("pooler.", "classifier.")  # what a pretrained model need not have


def parameters(model: Model) -> tuple[Parameter, ...]:
    """Return all parameters, in the order of the network."""
    width = bert.size(model).width
    head = [*bert.dense("pooler", width, width), *bert.dense("classifier", width, model["classes"])]
    return (*bert.encoder(model), *head)


def forward_flops(model: Model) -> int:
    """Return two operations for each multiplication in layers and head, of one row."""
    width = bert.size(model).width
    return bert.encoder_flops(model) + 2 * width**2 + 2 * width * model["classes"]


def stored(model: Model) -> tuple[Array, ...]:
    """Return the arrays of a dataset as source `glue` makes them."""
    parts = [Array(name=name, dtype="uint16") for name in ("first", "second")]
    label = Array(name="label", dtype="int32", high=model["classes"])
    return (bert.stored_tokens(model), *parts, label)


def arrays(recipe: Recipe, data: Data, train: bool) -> tuple[Array, ...]:
    """Return the arrays of a batch; `lengths` is of the tokens before the padding."""
    model = recipe["model"]
    length = model["length"]
    batch = (
        Array(name="ids", dtype="int32", shape=(length,), high=model["vocabulary"]),
        Array(name="segments", dtype="int32", shape=(length,), high=model["segments"]),
        Array(name="lengths", dtype="int32", high=length + 1, blank=length),
        Array(name="label", dtype="int32", high=model["classes"]),
    )
    return (*batch, KEY) if train else batch


def draws(recipe: Recipe, data: Data) -> tuple[Draw, ...]:
    """Return the draw that dropout takes its numbers from."""
    return (key_draw(),)


def prepare(
    rows: Mapping[str, Any], draws: Arrays, recipe: Recipe, data: Data, train: bool
) -> dict[str, np.ndarray]:
    """Number the segments of rows of one sentence or two."""
    tokens = rows["tokens"]
    first = rows["first"].astype(np.int32)
    lengths = first + rows["second"].astype(np.int32)
    place = np.arange(tokens.shape[1])
    second = (place >= first[:, None]) & (place < lengths[:, None])
    batch = {
        "ids": tokens.astype(np.int32),
        "segments": second.astype(np.int32),
        "lengths": lengths,
        "label": rows["label"],
    }
    return {**batch, "key": draws["key"]} if train else batch


def finish(sums: Mapping[str, float], columns: Arrays, recipe: Recipe) -> dict[str, float]:
    """Return the share of examples whose class was found."""
    return {"accuracy": sums["correct"] / sums["examples"]}


def check(recipe: Recipe, devices: int) -> str | None:
    """Return what is wrong with a recipe, or None."""
    model = recipe["model"]
    if model["classes"] < 2:
        return f"model.classes is {model['classes']}; it must be at least 2"
    return bert.problem(model)


def check_data(recipe: Recipe, data: Data) -> str | None:
    """Return why the model cannot learn from a dataset, or None."""
    model, needed = recipe["model"], {"tokens", "first", "second", "label"}
    if not needed <= data.arrays.keys() or "labels" not in data.facts:
        return "it holds no sentences with labels; use one of source glue"
    labels = data.facts["labels"]
    if len(labels) > model["classes"]:
        return (
            f"it has {len(labels)} labels, but model.classes is {model['classes']}; set "
            f"model.classes: {len(labels)}"
        )
    if data.facts["sentences"] > model["segments"]:
        return f"it has pairs of sentences, but model.segments is {model['segments']}; set it to 2"
    return bert.data_problem(model, data.arrays["tokens"].shape[0], data.facts["vocabulary"])


def start(where: str, tensors: Arrays, model: Model) -> dict[str, np.ndarray]:
    """Return the parameters that a staged file has (`lockstep.workloads.bert_checkpoint`)."""
    return bert_checkpoint.adopted(where, tensors, parameters(model), NEW)


WORKLOAD = Workload(
    name="bert_classify",
    summary="fine-tuning of BERT to classify sentences",
    recipe=recipe(
        epochs=3,
        global_batch=32,
        evaluation_batch=128,
        optimizer={
            "name": "adamw",
            "learning_rate": 2e-5,
            "epsilon": 1e-6,
            "weight_decay": 0.01,
            "clip_norm": 1.0,
        },
        schedule={"name": "linear", "warmup_epochs": 0.1},
        target={"metric": "accuracy", "value": 0.9},
        model=MODEL,
    ),
    parameters=parameters,
    forward_flops=forward_flops,
    stored=stored,
    arrays=arrays,
    draws=draws,
    prepare=prepare,
    metrics=(Metric(name="accuracy"),),
    finish=finish,
    check=check,
    check_data=check_data,
    start=start,
    small={
        "global_batch": 8,
        "optimizer": {"learning_rate": 0.001},
        "model": {
            "size": "2x32",
            "head": 16,
            "vocabulary": 128,
            "length": 32,
            "positions": 40,
        },
    },
)
