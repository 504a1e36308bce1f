"""Wav2Vec2 climbs the ladder with dropout and masks on, and each way to get it wrong is named."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch.nn import functional

from lockstep import workloads
from lockstep.datasets import framing
from lockstep.datasets.reader import Reader
from lockstep.parity import compare
from lockstep.study import config
from lockstep.workloads import (
    ctc_flax,
    ctc_torch,
    recipe,
    wav2vec2,
    wav2vec2_torch,
    weights,
)
from lockstep.workloads.wav2vec2_ctc import spec
from tests import clips
from tests.conftest import ROOT
from tests.parity import climber
from tests.parity.residual import verdict

NAME = "wav2vec2_ctc"
STEPS = 4
VARIANTS = {
    "torch-eager": {"framework": "torch", "mode": "eager"},
    "torch-compile": {"framework": "torch", "mode": "compile"},
    "jax-native": {"framework": "jax", "mode": "jit"},
    "jax-im2col": {"framework": "jax", "mode": "jit", "convolution": "im2col"},
}
SIDES = ("torch-eager", "jax-im2col")
# The clipping is in force, and the warm-up is over before the climb is.
CHANGES = {"optimizer": {"clip_norm": 0.5}, "schedule": {"warmup_epochs": 0.25}}
Trace = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Climb:
    """Climbs the ladder with a small Wav2Vec2."""

    folder: Path
    caches: Path

    def __call__(
        self,
        variant: str,
        steps: int = STEPS,
        precision: str = "float64",
        processes: int = 1,
        local_means: bool = False,
        **changes: object,
    ) -> Trace:
        """Return a trace, by as many processes; with a fault of `climber` if wanted."""
        request = self.request(variant, precision, changes)
        request |= {"steps": steps, "local_means": local_means}
        return climber.climbed(request, self.folder, processes, threads=1)

    def request(self, variant: str, precision: str, changes: dict) -> dict:
        """What a process is told that climbs."""
        entry = spec.WORKLOAD.recipe
        for each in (spec.WORKLOAD.small, CHANGES, changes):
            entry = recipe.override(entry, each, where=NAME)
        state = weights.initial(spec.WORKLOAD, entry["model"], 0)
        initial = self.folder / f"{weights.digest(state)}.safetensors"
        weights.save(initial, state)
        study = {
            "study": "speech",
            "datasets": {"digits": {"source": "digits"}},
            "workloads": {"mnist_cnn": {"dataset": "digits"}},
            "variants": {variant: {**VARIANTS[variant], "precision": precision}},
        }
        return {
            "recipe": {"workload": NAME, **entry},
            "variant": config.complete(study)["variants"][variant],
            "manifest": str(clips.prepared(self.folder)),
            "seed": 0,
            "initial": str(initial),
            "batches": 1,
            "caches": str(self.caches),
            "window_steps": 25,
        }


@pytest.fixture(scope="module")
def climb(tmp_path_factory: pytest.TempPathFactory, caches: Path) -> Iterator[Climb]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}/workflow:{ROOT}")
        yield Climb(tmp_path_factory.mktemp("speech"), caches)


@pytest.fixture(scope="module")
def reference(climb: Climb) -> Trace:
    """The sound JAX side."""
    return climb("jax-im2col")


def test_both_frameworks_are_the_same(climb: Climb, reference: Trace) -> None:
    trace = climb("torch-eager")
    assert verdict(trace, reference) == ("none", None)
    rungs = compare.compare(trace, reference, ["float64"])
    assert max(rung.value for rung in rungs) < 1e-12
    assert {"float64/evaluation/character_error_rate", "float64/evaluation/word_error_rate"} <= (
        set(trace)
    )
    trained = [name for name in trace if name.startswith("float64/gradient/layers.0")]
    assert len(trained) == 15  # all but the key bias


def test_transcripts_that_cannot_be_aligned_have_no_weight(climb: Climb, reference: Trace) -> None:
    reader = Reader(clips.prepared(climb.folder), "test")
    rows = reader.take(np.arange(reader.examples), names=("samples", "needed"))
    possible = spec.weight(rows, {}, spec.Data(name="x", arrays={}))
    assert 0 < possible.sum() < len(possible)
    assert reference["float64/evaluation/weight"] == possible.sum()


@pytest.mark.slow
def test_the_family_of_group_normalisation_is_the_same(climb: Climb) -> None:
    model = {"family": "group", "mask_percent": 0, "frozen_encoder": True}
    traces = [climb(variant, model=model) for variant in ("torch-eager", "jax-native")]
    assert verdict(*traces) == ("none", None)
    assert not any("gradient/convs" in name for name in traces[0])


@pytest.mark.slow
def test_batches_of_several_lengths_are_the_same(climb: Climb) -> None:
    traces = [climb(variant, steps=12, model={"lengths": 2}) for variant in SIDES]
    assert verdict(*traces) == ("none", None)


@pytest.mark.parametrize("variant", SIDES)
def test_a_run_that_is_stopped_ends_as_if_undisturbed(climb: Climb, tmp_path, variant) -> None:
    request = climb.request(variant, "float64", {"model": {"lengths": 2}})
    engine, feed = climber.started(request)
    windows = list(feed.windows(0, 20))
    edges = np.cumsum([window.steps for window in windows]).tolist()
    assert len({window.length for window in windows[1:]}) == 2, "of both lengths after the stop"
    engine.fetch(engine.train(windows[0]))
    weights.save(tmp_path / "stopped.safetensors", engine.state())
    undisturbed = [engine.fetch(engine.train(window)) for window in windows[1:]]

    again, own_feed = climber.started(request)
    again.load(weights.load(tmp_path / "stopped.safetensors"))
    rest = list(own_feed.windows(edges[0], 20))
    for (losses, checksums), window in zip(undisturbed, rest, strict=True):
        found = again.fetch(again.train(window))
        assert (found[0].tolist(), found[1].tolist()) == (losses.tolist(), checksums.tolist())
    assert weights.digest(again.state()) == weights.digest(engine.state())


@pytest.mark.drill
def test_a_compiled_model_is_the_same(climb: Climb, reference: Trace) -> None:
    assert verdict(climb("torch-compile"), reference) == ("none", None)


@pytest.mark.drill
@pytest.mark.parametrize("family", wav2vec2.FAMILIES)
def test_three_hundred_steps_stay_the_same(climb: Climb, family: str) -> None:
    traces = [climb(variant, steps=300, epochs=50, model={"family": family}) for variant in SIDES]
    assert verdict(*traces) == ("none", None)
    losses = [trace["float64/steps/loss"] for trace in traces]
    assert len(losses[0]) == 300
    np.testing.assert_allclose(*losses, rtol=1e-11)


@pytest.mark.drill
def test_a_hundred_steps_in_float32_stay_within_the_fixed_tolerance(climb: Climb) -> None:
    traces = [climb(variant, steps=100, epochs=20, precision="float32") for variant in SIDES]
    np.testing.assert_allclose(*(t["float32/steps/loss"] for t in traces), rtol=1e-5)


@pytest.mark.slow
def test_two_processes_of_unequal_weight_make_the_same_steps(climb: Climb) -> None:
    traces = [climb(variant, steps=20, processes=2) for variant in SIDES]
    assert verdict(*traces) == ("none", None)
    alone = climb("torch-eager", steps=20)
    np.testing.assert_allclose(
        traces[0]["float64x2/steps/loss"], alone["float64/steps/loss"], rtol=1e-11
    )
    faulty = climb("torch-eager", steps=20, processes=2, local_means=True)
    assert verdict(faulty, traces[1]) == ("loss", "loss"), "a mean of local means"


@pytest.mark.slow
def test_a_run_that_changes_its_framework_goes_on_as_it_would_have(climb: Climb) -> None:
    requests = (climb.request(variant, "float64", {}) for variant in ("torch-eager", "jax-im2col"))
    found, expected = climber.changed_over(*requests)
    np.testing.assert_allclose(found, expected, rtol=1e-11)


# Faults --------------------------------------------------------------------------------------


def broken(climb: Climb, reference: Trace) -> tuple[str, str | None]:
    return verdict(climb("torch-eager"), reference)


def test_another_epsilon(climb, reference, monkeypatch) -> None:
    monkeypatch.setattr(wav2vec2, "EPSILON", 1e-6)
    assert broken(climb, reference) == ("layers", "conv_norms.0")


def test_gelu_by_tanh(climb, reference, monkeypatch) -> None:
    exact = functional.gelu
    monkeypatch.setattr(functional, "gelu", lambda x: exact(x, approximate="tanh"))
    assert broken(climb, reference) == ("layers", "convs.1")


def positions(before: int, first: int, axes: tuple[int, ...] = (0, 1)):
    """A positional convolution with so many zeros before, whose frames are kept from `first` on."""

    def forward(self, x):
        norm = self.direction.square().sum(axes, keepdim=True).sqrt()
        kernel = self.direction * (self.magnitude / norm)
        size = kernel.shape[2]
        padded = functional.pad(x, (0, 0, before, size - before))
        y = wav2vec2_torch.convolved(padded, kernel, self.bias, groups=self.groups)
        return y[:, first : first + x.shape[1]]

    return forward


@pytest.mark.parametrize(
    ("before", "first", "axes", "fault"),
    [
        (8, 0, (0, 1), False),  # as it is, to see that the stand-in is sound
        (7, 0, (0, 1), True),  # SAME
        (8, 1, (0, 1), True),  # the last frame is kept, the first one dropped
        (8, 0, (1, 2), True),  # a norm for each output, not for each place
    ],
    ids=["sound", "same-padding", "last-frame-kept", "norm-of-outputs"],
)
def test_positions(climb, reference, monkeypatch, before, first, axes, fault) -> None:
    sound = wav2vec2_torch.Positions
    monkeypatch.setattr(sound, "forward", positions(before, first, axes))
    expected = ("layers", "positions") if fault else ("none", None)
    assert broken(climb, reference) == expected


def test_padding_that_attention_reads(climb, reference, monkeypatch) -> None:
    sound = wav2vec2_torch.Layer._attention
    monkeypatch.setattr(
        wav2vec2_torch.Layer,
        "_attention",
        lambda self, x, real, random: sound(self, x, torch.ones_like(real), random),
    )
    assert broken(climb, reference) == ("layers", "layers.0.attended")


def test_padding_that_the_positions_read(climb, reference, monkeypatch) -> None:
    sound = torch.where

    def where(condition, x, other):
        padding = isinstance(other, float) and x.dim() == 3 and condition.shape[2] == 1
        return x if padding else sound(condition, x, other)

    monkeypatch.setattr(wav2vec2_torch.torch, "where", where)
    assert broken(climb, reference) == ("layers", "positions")


def test_a_mask_before_the_normalisation(climb, reference, monkeypatch) -> None:
    sound = wav2vec2_torch.Trunk.encode

    def encode(self, audio, samples, mask, random):
        if mask is None:  # in an evaluation
            return sound(self, audio, samples, mask, random)
        own = self._features
        self._features = lambda audio: own(audio) * (mask[:, :, None] == 0)
        try:
            return sound(self, audio, samples, None, random)
        finally:
            del self._features

    monkeypatch.setattr(wav2vec2_torch.Trunk, "encode", encode)
    assert broken(climb, reference) == ("layers", "projection_norm")


def test_a_normalisation_that_reads_the_padding(climb, reference, monkeypatch) -> None:
    def normalised(ragged, long):
        x = ragged.padded(long).astype(np.float64)
        return ((x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)).astype(np.float32)

    monkeypatch.setattr(spec, "normalised", normalised)
    assert broken(climb, reference) == ("batches", "the first batch")


def test_frames_of_the_padding_that_the_loss_reads(climb, reference, monkeypatch) -> None:
    sound = ctc_torch.ctc

    def ctc(logits, tokens, labels, samples):
        found = sound(logits, tokens, labels, torch.full_like(samples, clips.LONGEST))
        return torch.where(sound(logits, tokens, labels, samples) > 0, found, 0.0)

    monkeypatch.setattr(ctc_torch, "ctc", ctc)
    assert broken(climb, reference) == ("loss", "loss")


def test_an_alignment_that_is_impossible_let_through(climb, reference, monkeypatch) -> None:
    always = SimpleNamespace(count=framing.count, feasible=lambda samples, _: samples >= 0)
    monkeypatch.setattr(ctc_torch, "framing", always)
    assert broken(climb, reference)[0] in ("loss", "gradient")


@pytest.mark.slow
def test_the_ctc_of_optax(climb, monkeypatch) -> None:
    def ctc(logits, tokens, labels, samples):
        frames = ctc_flax.framing.count(samples)[:, None]
        padded = (jnp.arange(logits.shape[1]) >= frames).astype(logits.dtype)
        beyond = (jnp.arange(tokens.shape[1]) >= labels[:, None]).astype(logits.dtype)
        return optax.ctc_loss(logits, padded, tokens + 1, beyond)

    sound = climb("torch-eager")
    monkeypatch.setattr(ctc_flax, "ctc", ctc)
    assert verdict(climb("jax-im2col"), sound) == ("loss", "loss")


def test_the_mean_over_letters(climb, reference, monkeypatch) -> None:
    sound = ctc_torch.ctc

    def ctc(logits, tokens, labels, samples):
        return sound(logits, tokens, labels, samples) / labels.clamp(min=1)

    monkeypatch.setattr(ctc_torch, "ctc", ctc)
    assert broken(climb, reference) == ("loss", "loss")


def test_a_key_bias_that_is_trained(climb, reference, monkeypatch) -> None:
    model = workloads.spec(NAME).recipe["model"] | spec.WORKLOAD.small["model"]
    parameters = tuple(dataclasses.replace(p, trained=True) for p in spec.parameters(model))
    changed = dataclasses.replace(spec.WORKLOAD, parameters=lambda model: parameters)
    monkeypatch.setattr(spec, "WORKLOAD", changed)
    assert broken(climb, reference) != ("none", None)
