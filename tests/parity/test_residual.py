"""Residual networks climb the ladder, and each way to get them quietly wrong is named."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lockstep import workloads
from lockstep.engines import torch_engine, torch_optimizer
from lockstep.engines.contract import types
from lockstep.parity import compare, distances
from lockstep.parity.trace import BATCHES
from lockstep.workloads import batch_norm_torch, resnet, resnet_torch, weights
from lockstep.workloads.resnet18_cifar10 import torch_model as small
from tests import pictures
from tests.parity.residual import CHANGES, Climb, climbing, verdict


@pytest.fixture(scope="module")
def climb(tmp_path_factory: pytest.TempPathFactory, caches: Path) -> Iterator[Climb]:
    folder = tmp_path_factory.mktemp("residual")
    manifest = pictures.write(folder / "pictures", pictures.coloured())
    with climbing(folder, manifest, caches) as it:
        yield it


@pytest.fixture(scope="module")
def basic(climb: Climb) -> dict[str, np.ndarray]:
    """The sound JAX side of basic blocks."""
    return climb("resnet18_cifar10", "jax-native")


@pytest.fixture(scope="module")
def bottleneck(climb: Climb) -> dict[str, np.ndarray]:
    """The sound JAX side of bottlenecks, with a large stem and crops that are resized."""
    return climb("resnet50_imagenet", "jax-native")


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("basic", "torch-eager"),
        ("basic", "jax-im2col"),
        ("bottleneck", "torch-eager"),
    ],
)
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
def test_two_processes_agree_for_an_epoch(climb, scope: str) -> None:
    changes = {"model": {"batch_norm": scope, "blocks": [1]}, "global_batch": 16}
    traces = [
        climb("resnet18_cifar10", variant, steps=89, processes=2, **changes)
        for variant in ("torch-eager", "jax-native")
    ]
    assert verdict(*traces) == ("none", None)
    alone = climb("resnet18_cifar10", "torch-eager", global_batch=16, model={"blocks": [1]})
    name = "step/buffer/stem_norm.mean"
    differs = distances.distance(traces[0][f"float64x2/{name}"], alone[f"float64/{name}"])
    assert differs < 1e-11 if scope == "global" else differs > 1e-3


@pytest.mark.slow
def test_compiled_processes_agree_with_eager_ones(climb) -> None:
    model = {"blocks": [1]}
    traces = [
        climb("resnet18_cifar10", variant, processes=2, model=model)
        for variant in ("torch-compile", "torch-eager")
    ]
    assert verdict(*traces) == ("none", None)


def broken(climb: Climb, reference: dict, name: str = "resnet18_cifar10", **changes: object):
    return verdict(climb(name, "torch-eager", **changes), reference)


def test_another_epsilon(climb, basic, monkeypatch) -> None:
    monkeypatch.setattr(batch_norm_torch, "EPSILON", 1e-6)
    assert broken(climb, basic) == ("layers", "stem_norm")


def test_another_momentum_of_running_statistics(climb, basic, monkeypatch) -> None:
    monkeypatch.setattr(batch_norm_torch, "MOMENTUM", 0.01)  # flax's 0.99, the other way round
    assert broken(climb, basic) == ("step", "buffer/stem_norm.mean")


def test_a_biased_running_variance(climb, basic, monkeypatch) -> None:
    def biased(x, mean, var, weight, bias, training, momentum, eps):
        before, n = var.clone(), x.numel() // x.shape[1]
        y = sound(x, mean, var, weight, bias, training, momentum, eps)
        if training:
            fresh = (var - (1 - momentum) * before) * ((n - 1) / n)
            var.data.copy_((1 - momentum) * before + fresh)  # behind autograd's back
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
    assert broken(climb, basic) == ("layers", "stage2_block1.conv1")


def test_decay_on_norms_and_biases(climb, basic, monkeypatch) -> None:
    def make(self, settings, described, parameters):
        sound(self, settings, [replace(p, decay=True) for p in described], parameters)

    sound = torch_optimizer.Optimizer.__init__
    monkeypatch.setattr(torch_optimizer.Optimizer, "__init__", make)
    assert broken(climb, basic) == ("step", "param/stem_norm.scale")


def test_decoupled_decay_for_coupled(climb, basic) -> None:
    rung, first = broken(climb, basic, optimizer={"learning_rate": 0.05, "decay": "decoupled"})
    assert (rung, first) == ("step", "param/stem.kernel")


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
    assert broken(climb, bottleneck, "resnet50_imagenet") == ("layers", "stage2_block1.conv1")


def test_pooling_that_pads_otherwise(climb, bottleneck, monkeypatch) -> None:
    def pool(x, *_):
        return sound(functional.pad(x, (0, 1, 0, 1)), 3, 2)

    sound = functional.max_pool2d
    monkeypatch.setattr(resnet_torch.functional, "max_pool2d", pool)
    assert broken(climb, bottleneck, "resnet50_imagenet") == ("layers", "stage1_block1.conv1")


@pytest.mark.slow
def test_processes_sum_gradients_in_the_type_that_the_record_states(climb) -> None:
    """One process's gradient in bfloat16 is of values that bfloat16 has; a float32 sum is not."""
    assert types("bfloat16")["gradient_communication_dtype"] == "float32"
    for processes in (1, 2):
        trace = climb(
            "resnet18_cifar10",
            "torch-eager",
            steps=1,
            precision="bfloat16",
            processes=processes,
            model={"blocks": [1]},
        )
        kernels = {
            name: bool((array.view(np.uint32) & 0xFFFF).any())
            for name, array in trace.items()
            if name.startswith("bfloat16/gradient/") and name.endswith(".kernel")
        }
        assert kernels
        assert set(kernels.values()) == {processes == 2}, kernels


def float32(climb: Climb, variant: str, steps: int) -> dict[str, np.ndarray]:
    """Climb in float32, also from a twin's weights."""

    def climbed() -> dict[str, np.ndarray]:
        told = {"precision": "float32", "steps": steps, "batches": BATCHES}
        return climb("resnet18_cifar10", variant, **told)

    sound, exact = weights.load, climbed()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "load", lambda path: weights.perturbed(sound(path), 0))
        twin = climbed()
    return {**exact, **{key.replace("float32/", "twin/"): array for key, array in twin.items()}}


def float32_failures(trace: dict, reference: dict) -> list[tuple[str, str | None]]:
    firm_steps = workloads.spec("resnet18_cifar10").firm_steps
    rungs = compare.compare(trace, reference, ["float32"], firm_steps=firm_steps)
    return [(rung.name, rung.first) for rung in rungs if not rung.passed]


def test_float32_stays_within_the_tolerance_and_then_the_envelope(climb) -> None:
    ours, theirs = (float32(climb, variant, steps=6) for variant in ("torch-eager", "jax-native"))
    assert float32_failures(ours, theirs) == []


def test_a_float32_gradient_that_is_less_exact_is_found(climb, monkeypatch) -> None:
    """Although a unit that turns moves it by more: it is less exact in each batch."""

    def rounded(gradient: torch.Tensor) -> torch.Tensor:
        return (gradient.view(torch.int32) & ~0x1FFF).view(torch.float32)  # as TF32 has it

    def convolution(layer):
        made = sound(layer)
        made.weight.register_hook(rounded)
        return made

    reference, sound = float32(climb, "jax-native", steps=2), resnet_torch._convolution
    monkeypatch.setattr(resnet_torch, "_convolution", convolution)
    (rung, first), *_ = float32_failures(float32(climb, "torch-eager", steps=2), reference)
    assert rung == "gradient" and ".kernel" in first
