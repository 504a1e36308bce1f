"""One FLOP formula a workload, held against what both frameworks count themselves."""

import jax
import jax.numpy as jnp
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lockstep import workloads
from lockstep.workloads import recipe

BATCH = 4


def preset(name: str):
    """A workload and its small model."""
    workload = workloads.spec(name)
    return workload, recipe.override(workload.recipe, workload.small, where=name)["model"]


@pytest.mark.parametrize("name", workloads.names())
def test_torch_counts_the_same(name: str) -> None:
    import importlib

    workload, model = preset(name)
    functions = importlib.import_module(f"lockstep.workloads.{name}.torch_model")
    module = functions.build(model)
    height, width, channels = workload.example_shape(model)
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(BATCH, channels, height, width))
    formula = workload.forward_flops(model)
    assert counter.get_total_flops() / BATCH == pytest.approx(formula, rel=0.02)


@pytest.mark.parametrize("name", workloads.names())
def test_xla_counts_about_the_same(name: str) -> None:
    """XLA also counts additions of biases, comparisons and the like, and leaves out products with
    the zeros around a map, which are many in small ones: up to a tenth more or less here.
    """
    import importlib

    workload, model = preset(name)
    functions = importlib.import_module(f"lockstep.workloads.{name}.flax_model")
    module = functions.build(
        model, dtype=jnp.float32, param_dtype=jnp.float32, convolution="native", devices=1
    )
    images = jnp.zeros((BATCH, *workload.example_shape(model)))
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    compiled = jax.jit(lambda v, x: module.apply(v, x, train=False)).lower(variables, images)
    counted = compiled.compile().cost_analysis()["flops"] / BATCH
    formula = workload.forward_flops(model)
    assert formula * 0.9 <= counted <= formula * 1.1
