"""The recommender's loss is exact for confident logits; what does not fit it is told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import yaml

from lockstep import auc, workloads
from lockstep.datasets.arrays import Array
from lockstep.datasets.sources import click_log
from lockstep.study import config
from lockstep.workloads import recipe
from lockstep.workloads.contract import Data
from lockstep.workloads.dlrm import flax_model, spec, torch_model
from tests.conftest import ROOT

LOGITS = np.array([-700, -40, -30, -17, -5, -1e-3, 0, 1e-3, 5, 17, 30, 40, 700.0])


@pytest.mark.parametrize("click", [0, 1])
def test_the_loss_is_exact_where_another_form_cancels(click: int) -> None:
    exact = np.logaddexp(0, -LOGITS if click else LOGITS)
    clicks = np.full(len(LOGITS), click, np.uint8)
    logits = torch.tensor(LOGITS, requires_grad=True)
    found = torch_model.loss({"logits": logits}, {"click": torch.from_numpy(clicks)}, {})["loss"]
    found.sum().backward()
    np.testing.assert_allclose(found.detach().numpy(), exact, rtol=1e-15)
    with jax.enable_x64(True):

        def loss(logits):
            batch = {"click": jnp.asarray(clicks)}
            each = flax_model.loss({"logits": logits}, batch, {})["loss"]
            return each.sum(), each

        gradient, each = jax.grad(loss, has_aux=True)(jnp.asarray(LOGITS))
    np.testing.assert_allclose(each, exact, rtol=1e-15)
    np.testing.assert_allclose(gradient, logits.grad.numpy(), rtol=1e-14)
    assert gradient[6] == 0.5 - click


def test_the_demos_target_is_nine_tenths_of_the_way_to_the_planted_model() -> None:
    study = config.complete(yaml.safe_load((ROOT / "demo" / "clicks.yaml").read_text()))
    options = {**click_log.DEFAULTS, **study["datasets"]["clicks"]["options"]}
    log = click_log.planted(options["examples"], options["values"])
    tested = options["examples"] // options["test_part"]
    best = auc.area(log.logit[-tested:], log.click[-tested:])
    target = study["workloads"]["dlrm"]["target"]
    assert target == {"metric": "auc", "value": round(0.5 + 0.9 * (best - 0.5), 3)}


@pytest.mark.parametrize("preset", spec.PRESETS)
def test_every_preset_has_its_parameters(preset: str) -> None:
    model = {"preset": preset, "tables": []}
    shape, found = spec.shape(model), spec.parameters(model)
    tables = [p for p in found if p.ids]
    assert [p.shape for p in tables] == [(rows, shape.width) for rows in shape.tables]
    assert shape.dense["top.0"][0] == shape.width + shape.vectors * (shape.vectors - 1) // 2
    assert not any(p.decay for p in tables)
    assert all(p.column is None for p in tables) == shape.shared


def data(rows: list[int], numbers: int = 13, lookups: int = 26) -> Data:
    arrays = {
        "dense": Array(name="dense", dtype="float32", shape=(numbers,)),
        "ids": Array(name="ids", dtype="int32", shape=(lookups,)),
        "click": Array(name="click", dtype="uint8"),
    }
    return Data(name="clicks", arrays=arrays, facts={"rows": rows})


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (data([1000] * 26), None),
        (data([1000] * 25 + [1001]), "its table 25 has 1001 rows, that of the model 1000"),
        (data([9] * 5, 1, 5), "it has 1 dense numbers, the model 13"),
        (data([9] * 5, 13, 5), "it has 5 tables, the model 26"),
        (Data(name="digits", arrays={}), "it holds no clicks"),
    ],
)
def test_a_dataset_that_does_not_fit_is_told(found: Data, expected: str | None) -> None:
    said = spec.check_data(spec.WORKLOAD.recipe, found)
    assert (said is None) if expected is None else (expected in (said or ""))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"preset": "huge"}, "model.preset is 'huge'; it must be one of tiny"),
        ({"tables": [10, 1]}, "must be a list of rows, each of at least 2"),
        ({"tables": [10, "x"]}, "must be a list of rows"),
        ({"preset": "criteo1tb_small", "tables": [9, 9]}, "has 2 tables, but criteo1tb_small has"),
    ],
)
def test_a_model_that_cannot_be_is_told(model: dict, expected: str) -> None:
    entry = recipe.override(spec.WORKLOAD.recipe, {"model": model}, where="dlrm")
    assert expected in (spec.WORKLOAD.check(entry, 1) or "")


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (
            {"groups": {"tables": {"name": "adamw"}}},
            "but adamw changes rows that no batch looks up",
        ),
        ({"groups": {"tables": {"name": "sgd", "momentum": 0.9}}}, "but momentum changes rows"),
        ({"groups": {"main": {"update": "touched_rows"}}}, "bottom.0.kernel is no table"),
        ({"name": "rowwise_adagrad"}, "optimizer.name is rowwise_adagrad, but bottom.0.kernel is"),
        ({"groups": {"other": {}}}, "'other' is no group of parameters"),
        ({"groups": {"tables": {"nesterov": True}}}, "groups.tables.nesterov needs a momentum"),
        ({"groups": {"main": {"name": "adamw", "beta1": 1.0}}}, "groups.main.beta1 is 1.0"),
        ({"groups": {"tables": {"rate": 0.5}}}, None),
    ],
)
def test_groups_whose_optimizer_does_not_fit_are_told(optimizer: dict, expected) -> None:
    entry = recipe.override(spec.WORKLOAD.recipe, {"optimizer": optimizer}, where="dlrm")
    said = recipe.problem(entry, workloads.spec("dlrm"))
    assert (said is None) if expected is None else (expected in (said or "")), said
