"""What `bert_mlm` is, without any framework.

BERT (`lockstep.workloads.bert`) learns to predict masked tokens of packed rows of text, as
source `text` makes them: a fixed number of positions a row (`model.predictions`), a position that
is filling counted as 0. Only those positions pass the head, a dense layer, GELU, layer
normalisation and the word embedding again with a bias of its own. There is no prediction of the
next sentence, and no pooler, which no gradient would reach.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lockstep.datasets import wordpiece
from lockstep.workloads import bert, bert_checkpoint, masking
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

MODEL = {
    **bert.MODEL,
    "predictions": 20,  # masked positions of a row at most
    "percent": 15,  # of a row's tokens that are masked
    "whole_words": True,  # the pieces of a word together
}


def parameters(model: Model) -> tuple[Parameter, ...]:
    """Return all parameters, in the order of the network."""
    width = bert.size(model).width
    head = [*bert.dense("transform", width, width), *bert.norm("transform_norm", width)]
    bias = Parameter(name="decoder.bias", shape=(model["vocabulary"],), decay=False)
    return (*bert.encoder(model), *head, bias)


def forward_flops(model: Model) -> int:
    """Return two operations for each multiplication in layers and head, of one row."""
    width = bert.size(model).width
    head = 2 * width**2 + 2 * width * model["vocabulary"]
    return bert.encoder_flops(model) + model["predictions"] * head


def stored(model: Model) -> tuple[Array, ...]:
    """Return the arrays of a dataset as source `text` makes them."""
    maskable = Array(name="maskable", dtype="uint16", high=model["length"] + 1)
    return (bert.stored_tokens(model), maskable)


def arrays(recipe: Recipe, data: Data, train: bool) -> tuple[Array, ...]:
    """Return the arrays of a batch: those of `masking.masked`, and keys for dropout."""
    model = recipe["model"]
    length, most, vocabulary = model["length"], model["predictions"], model["vocabulary"]
    batch = (
        Array(name="ids", dtype="int32", shape=(length,), high=vocabulary, probe=(1,)),
        Array(name="positions", dtype="int32", shape=(most,), high=length),
        Array(name="labels", dtype="int32", shape=(most,), high=vocabulary),
        Array(name="counts", dtype="uint8", shape=(most,), high=2, blank=1),
    )
    return (*batch, KEY) if train else batch


def draws(recipe: Recipe, data: Data) -> tuple[Draw, ...]:
    """Return the draw that masking and dropout take their numbers from."""
    return (key_draw(),)


def prepare(
    rows: Mapping[str, Any], draws: Arrays, recipe: Recipe, data: Data, train: bool
) -> dict[str, np.ndarray]:
    """Mask rows of tokens."""
    continues = wordpiece.continuations(data.facts["continues"], data.facts["vocabulary"])
    how = scheme(recipe["model"], data)
    batch = masking.masked(rows["tokens"], draws["key"], continues, how)
    return {**batch, "key": draws["key"]} if train else batch


def scheme(model: Model, data: Data) -> masking.Scheme:
    """Return how a dataset's rows are masked."""
    special = data.facts["special"]
    return masking.Scheme(
        percent=model["percent"],
        most=model["predictions"],
        whole_words=model["whole_words"],
        special=tuple(special.values()),
        mask=special["mask"],
        first=max(special.values()) + 1,
        vocabulary=data.facts["vocabulary"],
    )


def weight(rows: Mapping[str, Any], recipe: Recipe, data: Data) -> np.ndarray:
    """Return how many tokens of each row are masked, whatever the draw, int64 ``(n,)``."""
    model = recipe["model"]
    return masking.wanted(rows["maskable"], model["percent"], model["predictions"])


def finish(sums: Mapping[str, float], columns: Arrays, recipe: Recipe) -> dict[str, float]:
    """Return the share of masked tokens that were predicted, and the perplexity."""
    tokens = sums["weight"]
    # Beyond float64 an untrained or diverged model's perplexity is infinite.
    mean = sums["loss"] / tokens
    perplexity = math.exp(mean) if mean < 700 else math.inf
    return {"accuracy": sums["correct"] / tokens, "perplexity": perplexity}


def check(recipe: Recipe, devices: int) -> str | None:
    """Return what is wrong with a recipe, or None."""
    model = recipe["model"]
    if not 1 <= model["percent"] <= 99:
        return f"model.percent is {model['percent']}; it must be from 1 to 99"
    if not 1 <= model["predictions"] <= model["length"]:
        return (
            f"model.predictions is {model['predictions']}; it must be from 1 to model.length, "
            f"{model['length']}"
        )
    return bert.problem(model)


def check_data(recipe: Recipe, data: Data) -> str | None:
    """Return why the model cannot learn from a dataset, or None."""
    model = recipe["model"]
    tokens = data.arrays.get("tokens")
    if tokens is None or "maskable" not in data.arrays or "continues" not in data.facts:
        return "it holds no packed rows of tokens; use one of source text"
    return bert.data_problem(model, tokens.shape[0], data.facts["vocabulary"])


def start(where: str, tensors: Arrays, model: Model) -> dict[str, np.ndarray]:
    """Return the parameters that a staged file has (`lockstep.workloads.bert_checkpoint`)."""
    return bert_checkpoint.adopted(where, tensors, parameters(model))


WORKLOAD = Workload(
    name="bert_mlm",
    summary="masked-language-model pretraining of BERT",
    recipe=recipe(
        epochs=1,
        global_batch=32,
        evaluation_batch=128,
        optimizer={
            "name": "adamw",
            "learning_rate": 0.001,
            "epsilon": 1e-6,
            "weight_decay": 0.01,
            "clip_norm": 1.0,
        },
        schedule={"name": "linear", "warmup_steps": 100},
        target={"metric": "accuracy", "value": 0.25},
        model=MODEL,
    ),
    parameters=parameters,
    forward_flops=forward_flops,
    stored=stored,
    arrays=arrays,
    draws=draws,
    prepare=prepare,
    weight=weight,
    weight_reads=("maskable",),
    weight_unit="masked token",
    metrics=(Metric(name="accuracy"), Metric(name="perplexity", higher=False, unit="")),
    finish=finish,
    check=check,
    check_data=check_data,
    start=start,
    small={
        "global_batch": 8,
        "model": {
            "size": "2x32",
            "head": 16,
            "vocabulary": 128,
            "length": 32,
            "positions": 40,
            "predictions": 5,
        },
    },
)
