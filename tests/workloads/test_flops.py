"""One FLOP formula a workload, held against what both frameworks count themselves."""

import importlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lockstep import workloads
from lockstep.engines import jax_module, jax_random, torch_random
from lockstep.engines.contract import Job
from lockstep.workloads import recipe

BATCH = 4
# In the smallest, what XLA counts of softmax, normalisation and GELU is a third of all.
WIDER = {
    "bert_mlm": {"model": {"size": "1x256"}},
    "bert_classify": {"model": {"size": "1x256"}},
    "wav2vec2_ctc": {"model": {"preset": "small"}},
}
VARIANT = {"precision": "float32", "convolution": "native", "attention": "written"}


@pytest.fixture(autouse=True)
def _float32() -> Iterator[None]:
    """Whatever an engine of another test has told JAX."""
    with jax.enable_x64(False):
        yield


def preset(name: str) -> Job:
    """A job of a workload's small model on blank data."""
    workload = workloads.spec(name)
    small = recipe.override(workload.recipe, workload.small, where=name)
    entry = recipe.override(small, WIDER.get(name, {}), where=name)
    data = workload.blank(entry["model"])
    return Job(workload=workload, recipe=entry, variant=VARIANT, data=data, window_steps=1)


@pytest.mark.parametrize("name", workloads.names())
def test_torch_counts_the_same(name: str) -> None:
    job = preset(name)
    functions = importlib.import_module(f"lockstep.workloads.{name}.torch_model")
    module = functions.build(job.recipe["model"], job.settings)
    batch = {name: torch.from_numpy(array) for name, array in job.blank(BATCH).items()}
    if hasattr(functions, "augment"):
        batch = functions.augment(batch, job.recipe, job.data)
    if hasattr(functions, "inputs"):
        batch = functions.inputs(batch, torch.float32)
    with FlopCounterMode(display=False) as counter:
        random = torch_random.Random(batch, train=False, native=False)
        functions.forward(module, batch, random, False)
    formula = job.workload.forward_flops(job.recipe["model"])
    assert counter.get_total_flops() / BATCH == pytest.approx(formula, rel=0.02)


@pytest.mark.parametrize("name", workloads.names())
def test_xla_counts_about_the_same(name: str) -> None:
    """XLA also counts additions of biases, comparisons and the like, and leaves out products with
    the zeros around a map, which are many in small ones: up to a tenth more or less here.
    """
    job = preset(name)
    functions = importlib.import_module(f"lockstep.workloads.{name}.flax_model")
    model = jax_module.built(functions, job.recipe["model"], job.settings, name)
    batch = {name: jnp.asarray(array) for name, array in job.blank(BATCH).items()}
    if hasattr(functions, "augment"):
        batch = functions.augment(batch, job.recipe, job.data)
    if hasattr(functions, "inputs"):
        batch = functions.inputs(batch, jnp.float32)
    names = functions.names(job.recipe["model"])
    shapes = model.shapes(batch)
    tensors = {own: jnp.zeros(shapes[native]) for own, (native, _) in names.items()}

    def forward(tensors, batch):
        random = jax_random.Random(batch, train=False, native=False)
        return model(names, tensors, batch, random, False, ()).outputs

    compiled = jax.jit(forward).lower(tensors, batch)
    counted = compiled.compile().cost_analysis()["flops"] / BATCH
    formula = job.workload.forward_flops(job.recipe["model"])
    assert formula * 0.9 <= counted <= formula * 1.1
