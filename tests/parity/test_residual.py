"""Residual networks climb the ladder, and each way to get them quietly wrong is named."""

import copy
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lockstep import workloads
from lockstep.cluster.launch import launch
from lockstep.engines import torch_engine, torch_optimizer
from lockstep.engines.contract import Topology
from lockstep.parity import compare
from lockstep.study import config
from lockstep.workloads import batch_norm_torch, recipe, resnet, resnet_torch, weights
from lockstep.workloads.resnet18_cifar10 import torch_model as small
from tests import pictures
from tests.parity import climber

STEPS = 4
CHANGES: dict[str, Any] = {
    "model": {"blocks": [1, 1], "width": 4, "size": 12, "classes": 10},
    "global_batch": 32,
    "optimizer": {"learning_rate": 0.05},
    "label_smoothing": 0.1,
    "augment": {"padding": 2},
}
VARIANTS = {
    "torch-eager": {"framework": "torch", "mode": "eager"},
    "torch-compile": {"framework": "torch", "mode": "compile"},
    "jax-native": {"framework": "jax", "mode": "jit"},
    "jax-im2col": {"framework": "jax", "mode": "jit", "convolution": "im2col"},
}


@dataclass(frozen=True)
class Climb:
    """Climbs the ladder with small residual networks."""

    folder: Path
    manifest: Path
    caches: Path

    def request(self, name: str, variant: str, changes: dict, steps: int, precision: str) -> dict:
        spec = workloads.spec(name)
        merged = copy.deepcopy(CHANGES)
        for key, value in changes.items():
            merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
        entry = recipe.override(spec.recipe, merged, where=name)
        problem = spec.check(entry)
        assert problem is None, problem
        state = weights.initial(spec, entry["model"], 0)
        path = self.folder / f"{weights.digest(state)}.safetensors"
        weights.save(path, state)
        study = {
            "study": "residual",
            "datasets": {"digits": {"source": "digits"}},
            "workloads": {"mnist_cnn": {"dataset": "digits"}},
            "variants": {variant: {**VARIANTS[variant], "precision": precision}},
        }
        return {
            "recipe": {"workload": name, **entry},
            "variant": config.complete(study)["variants"][variant],
            "manifest": str(self.manifest),
            "weights": str(path),
            "steps": steps,
            "caches": str(self.caches),
        }

    def __call__(
        self,
        name: str,
        variant: str,
        steps: int = STEPS,
        precision: str = "float64",
        processes: int = 1,
        **changes: object,
    ) -> dict[str, np.ndarray]:
        """Return a trace, by as many processes."""
        request = self.request(name, variant, changes, steps, precision)
        if processes == 1:
            return climber.climb(request, Topology())
        request["output"] = str(self.folder / "trace.npz")
        path = self.folder / "request.json"
        path.write_text(json.dumps(request))
        command = [sys.executable, "-m", "tests.parity.climber", str(path)]
        assert launch(command, processes=processes, threads=2) == 0
        with np.load(request["output"]) as stored:
            return dict(stored)


@pytest.fixture(scope="module")
def climb(tmp_path_factory: pytest.TempPathFactory, caches: Path) -> Iterator[Climb]:
    folder = tmp_path_factory.mktemp("residual")
    manifest = pictures.write(folder / "pictures", pictures.coloured())
    root = str(Path(__file__).resolve().parents[2])
    with pytest.MonkeyPatch.context() as patch:  # for the processes that a launcher starts
        patch.setenv("PYTHONPATH", f"{root}/workflow:{root}")
        yield Climb(folder, manifest, caches)


def verdict(trace: dict, reference: dict) -> tuple[str, str | None]:
    for rung in compare.compare(trace, reference, ["float64"]):
        if not rung.passed:
            return rung.name, rung.first
    return "none", None


@pytest.fixture(scope="module")
def basic(climb: Climb) -> dict[str, np.ndarray]:
    """The sound JAX side of basic blocks."""
    return climb("resnet18_cifar10", "jax-native")


@pytest.fixture(scope="module")
def bottleneck(climb: Climb) -> dict[str, np.ndarray]:
    """The sound JAX side of bottlenecks, with a large stem and crops that are resized."""
    return climb("resnet50_imagenet", "jax-native")


@pytest.mark.parametrize("variant", ["torch-eager", "torch-compile", "jax-im2col"])
@pytest.mark.parametrize("name", ["basic", "bottleneck"])
def test_the_sound_models_agree(climb, request, name: str, variant: str) -> None:
    reference = request.getfixturevalue(name)
    workload = {"basic": "resnet18_cifar10", "bottleneck": "resnet50_imagenet"}[name]
    trace = climb(workload, variant)
    rungs = compare.compare(trace, reference, ["float64"])
    assert verdict(trace, reference) == ("none", None)
    assert max(rung.value for rung in rungs) < 1e-12
    assert "float64/final/buffer/stage2_block1.norm1.var" in trace
    assert {"float64/evaluation/accuracy", "float64/evaluation/top5"} <= set(trace)


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["global", "device"])
def test_two_processes_agree(climb, scope: str) -> None:
    model = {"batch_norm": scope}
    traces = [
        climb("resnet18_cifar10", variant, processes=2, model=model)
        for variant in ("torch-eager", "torch-compile", "jax-native")
    ]
    # A rank's logits are of its own part of the batch, which each framework knows in its own way.
    assert verdict(traces[0], traces[2]) == ("none", None)
    assert verdict(traces[1], traces[2]) == ("none", None)
    alone = climb("resnet18_cifar10", "torch-eager")
    name = "float64/step/buffer/stem_norm.mean"
    differs = compare.distance(traces[0][name], alone[name])
    assert differs < 1e-11 if scope == "global" else differs > 1e-3


def broken(climb: Climb, reference: dict, name: str = "resnet18_cifar10", **changes: object):
    return verdict(climb(name, "torch-eager", **changes), reference)


def test_another_epsilon(climb, basic, monkeypatch) -> None:
    monkeypatch.setattr(batch_norm_torch, "EPSILON", 1e-6)
    assert broken(climb, basic) == ("forward", "logits")


def test_another_momentum_of_running_statistics(climb, basic, monkeypatch) -> None:
    monkeypatch.setattr(batch_norm_torch, "MOMENTUM", 0.01)  # flax's 0.99, the other way round
    assert broken(climb, basic) == ("step", "buffer/stem_norm.mean")


def test_a_biased_running_variance(climb, basic, monkeypatch) -> None:
    def biased(x, mean, var, weight, bias, training, momentum, eps):
        before, n = var.clone(), x.numel() // x.shape[1]
        y = sound(x, mean, var, weight, bias, training, momentum, eps)
        if training:
            with torch.no_grad():
                fresh = (var - (1 - momentum) * before) * ((n - 1) / n)
                var.copy_((1 - momentum) * before + fresh)
        return y

    sound = functional.batch_norm
    monkeypatch.setattr(batch_norm_torch.functional, "batch_norm", biased)
    assert broken(climb, basic) == ("step", "buffer/stem_norm.var")


def test_padding_that_is_the_same_but_asymmetric(climb, basic, monkeypatch) -> None:
    def same(layer):
        convolution = sound(layer)
        if layer.size == 3 and layer.stride == 2:
            convolution.padding = (0, 0)
            return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), convolution)
        return convolution

    sound = resnet_torch._convolution
    names = {
        neutral: (target.replace("layer2.0.conv1.", "layer2.0.conv1.1."), layout)
        for neutral, (target, layout) in small.names({**CHANGES["model"]}).items()
    }
    monkeypatch.setattr(resnet_torch, "_convolution", same)
    monkeypatch.setattr(small, "names", lambda model: names)
    assert broken(climb, basic) == ("forward", "logits")


def test_decay_on_norms_and_biases(climb, basic, monkeypatch) -> None:
    def make(job, parameters):
        optimizer = sound(job, parameters)
        for group in optimizer.param_groups:
            group["weight_decay"] = job.recipe["optimizer"]["weight_decay"]
        return optimizer

    sound = torch_optimizer.make
    monkeypatch.setattr(torch_optimizer, "make", make)
    assert broken(climb, basic) == ("step", "momentum/stem_norm.scale")


def test_decoupled_decay_for_coupled(climb, basic) -> None:
    rung, first = broken(climb, basic, optimizer={"learning_rate": 0.05, "decay": "decoupled"})
    assert (rung, first) == ("step", "momentum/stem.kernel")


def test_no_nesterov(climb, basic) -> None:
    rung, first = broken(climb, basic, optimizer={"learning_rate": 0.05, "nesterov": False})
    assert (rung, first) == ("step", "param/stem.kernel")


def test_other_label_smoothing(climb, basic) -> None:
    assert broken(climb, basic, label_smoothing=0.1 + 1e-6) == ("loss", "loss")


def test_an_evaluation_by_the_batchs_own_statistics(climb, basic, monkeypatch) -> None:
    def evaluate(self, batches):
        monkeypatch.setattr(self.module, "eval", self.module.train)
        return sound(self, batches)

    sound = torch_engine.TorchEngine.evaluate
    monkeypatch.setattr(torch_engine.TorchEngine, "evaluate", evaluate)
    assert broken(climb, basic)[0] == "evaluation"


def test_a_stride_in_the_first_convolution(climb, bottleneck, monkeypatch) -> None:
    """Version 1 of the bottleneck: the same parameters in the same shapes."""

    def first(family, place, inner, middle, stride):
        block = sound(family, place, inner, middle, stride)
        strides = (stride, 1, 1)
        branch = tuple(
            resnet.Layer(**{**vars(layer), "stride": s}) for layer, s in zip(block.branch, strides)
        )
        return resnet.Block(**{**vars(block), "branch": branch})

    sound = resnet._block
    monkeypatch.setattr(resnet, "_block", first)
    assert broken(climb, bottleneck, "resnet50_imagenet") == ("forward", "logits")


def test_pooling_that_pads_otherwise(climb, bottleneck, monkeypatch) -> None:
    def pool(x, *_):
        return sound(functional.pad(x, (0, 1, 0, 1)), 3, 2)

    sound = functional.max_pool2d
    monkeypatch.setattr(resnet_torch.functional, "max_pool2d", pool)
    assert broken(climb, bottleneck, "resnet50_imagenet") == ("forward", "logits")


@pytest.mark.slow
def test_a_scope_other_than_the_others(climb) -> None:
    traces = [
        climb("resnet18_cifar10", "torch-eager", processes=2, model={"batch_norm": scope})
        for scope in ("global", "device")
    ]
    assert verdict(*traces)[0] == "forward"


def test_float32_stays_within_the_tolerance_and_then_the_envelope(climb: Callable) -> None:
    from lockstep.parity import trace as ladder

    traces = []
    for variant in ("torch-eager", "jax-native"):
        exact = climb("resnet18_cifar10", variant, precision="float32", steps=12)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(weights, "load", lambda path: weights.perturbed(load(path), 0))
            twin = climb("resnet18_cifar10", variant, precision="float32", steps=12)
        arrays = {key.replace("float32/", "twin/"): array for key, array in twin.items()}
        traces.append({**exact, **arrays})
    assert "twin" in ladder.PRECISIONS
    rungs = compare.compare(*traces, ["float32"])
    assert [(rung.name, rung.first) for rung in rungs if not rung.passed] == []


load = weights.load
