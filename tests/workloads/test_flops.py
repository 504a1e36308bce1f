"""One FLOP formula a workload, held against what both frameworks count themselves."""

import jax
import jax.numpy as jnp
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lockstep import workloads

BATCH = 4


@pytest.mark.parametrize("name", workloads.names())
def test_torch_counts_the_same(name: str) -> None:
    import importlib

    workload = workloads.spec(name)
    functions = importlib.import_module(f"lockstep.workloads.{name}.torch_model")
    module = functions.build(workload.recipe["model"])
    height, width, channels = workload.example_shape
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(BATCH, channels, height, width))
    formula = workload.forward_flops(workload.recipe["model"])
    assert counter.get_total_flops() / BATCH == pytest.approx(formula, rel=0.02)


@pytest.mark.parametrize("name", workloads.names())
def test_xla_counts_about_the_same(name: str) -> None:
    """XLA also counts additions of biases, comparisons and the like: up to a tenth more here."""
    import importlib

    workload = workloads.spec(name)
    functions = importlib.import_module(f"lockstep.workloads.{name}.flax_model")
    model = functions.build(
        workload.recipe["model"], dtype=jnp.float32, param_dtype=jnp.float32, convolution="native"
    )
    images = jnp.zeros((BATCH, *workload.example_shape))
    variables = model.init(jax.random.key(0), images)
    compiled = jax.jit(lambda v, x: model.apply(v, x, train=False)).lower(variables, images)
    counted = compiled.compile().cost_analysis()["flops"] / BATCH
    formula = workload.forward_flops(workload.recipe["model"])
    assert formula * 0.98 <= counted <= formula * 1.1
