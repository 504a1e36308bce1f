"""What would make a proof worthless is refused in one line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from flax import linen as nn
from torch.nn import functional

from lockstep import engines, workloads
from lockstep.datasets.reader import Reader, read_manifest
from lockstep.engines.contract import Job
from lockstep.errors import UserError
from lockstep.parity import climb, position
from lockstep.study import Study
from lockstep.training.feed import SharedFeed
from lockstep.workloads import weights
from lockstep.workloads.contract import Data
from lockstep.workloads.mnist_cnn import flax_model, torch_model

VARIANTS = {
    "torch-eager": {"framework": "torch", "mode": "eager"},
    "torch-compile": {"framework": "torch", "mode": "compile"},
    "jax-jit": {"framework": "jax", "mode": "jit"},
}


@pytest.fixture
def study(study_of: Callable[..., Study]) -> Study:
    return study_of(variants=VARIANTS)


def job_of(study: Study, variant: str) -> Job:
    return Job(
        workload=workloads.spec("mnist_cnn"),
        recipe=study.workload("mnist_cnn"),
        variant={**study.variant(variant), "precision": "float64"},
        data=Data.of(read_manifest(study.dataset_manifest("digits"))),
        window_steps=5,
    )


def climbed(study: Study, variant: str) -> dict[str, np.ndarray]:
    """The first rungs of the ladder."""
    job = job_of(study, variant)
    engine = engines.start(job)
    feed = SharedFeed(job, Reader(study.dataset_manifest("digits"), "train"), 0)
    state = weights.load(study.weights("mnist_cnn", 0))
    general = position.general(job.workload, job.recipe, 0)
    found = {}
    for name, array in climb.climb(engine, feed, [], state, general, steps=1):
        found[name] = array
        if name.startswith("gradient/"):
            break
    return found


def test_a_pytorch_model_with_dropout(study: Study, monkeypatch) -> None:
    sound = torch_model.MnistCnn.forward
    monkeypatch.setattr(
        torch_model.MnistCnn,
        "forward",
        lambda self, x: functional.dropout(sound(self, x), 0.1, self.training),
    )
    with pytest.raises(UserError, match="mnist_cnn: two forward passes from one state"):
        climbed(study, "torch-eager")


def test_a_flax_model_with_dropout(study: Study, monkeypatch) -> None:
    def pooled(x, lowering):  # within the model's compact method
        return nn.Dropout(0.1, deterministic=False)(sound(x, lowering))

    sound = flax_model.max_pool_2x2
    monkeypatch.setattr(flax_model, "max_pool_2x2", pooled)
    with pytest.raises(UserError, match="its Flax model draws random numbers of its own"):
        climbed(study, "jax-jit")


def test_a_flax_model_is_initialised_with_what_its_inputs_are(study: Study, monkeypatch) -> None:
    """A first layer that wants integers, such as an embedding."""
    seen = []
    sound, inputs = flax_model.MnistCnn.__call__, flax_model.inputs

    def call(self, images, train=True):
        seen.append(images.dtype.name)
        return sound(self, images.astype(self.param_dtype) / 255, train)

    monkeypatch.setattr(flax_model, "inputs", lambda batch, dtype: batch)
    monkeypatch.setattr(flax_model.MnistCnn, "__call__", call)
    engines.start(job_of(study, "jax-jit"))
    assert set(seen) == {"uint8"}
    assert inputs is not flax_model.inputs


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("jax-jit", "JAX_DISABLE_JIT"),
        ("torch-compile", "TORCH_COMPILE_DISABLE"),
        ("torch-compile", "TORCHDYNAMO_DISABLE"),
    ],
)
def test_a_variable_that_switches_compilation_off(
    study: Study, monkeypatch, variant: str, name: str
) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(UserError, match=f"{name}=1 is set in the environment"):
        engines.start(job_of(study, variant))
    engines.start(job_of(study, "torch-eager"))
    monkeypatch.setenv(name, "0")
    engines.environment.refuse(job_of(study, variant))


def test_a_compiled_variant_that_was_not_compiled(
    study: Study, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    torch._dynamo.utils.counters.clear()  # other tests of this process compile
    engine = engines.start(job_of(study, "torch-compile"))
    engine.load(weights.load(study.weights("mnist_cnn", 0)))
    with pytest.raises(UserError, match="torch.compile compiled nothing and runs op by op"):
        engine.prepare()
