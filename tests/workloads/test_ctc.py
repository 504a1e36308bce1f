"""The loss and gradient of CTC, held to a recursion of more digits; error rates, held to jiwer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from lockstep.datasets import framing, keys
from lockstep.workloads import ctc_flax, ctc_torch, transcripts

OUTPUTS = 32


def samples(frames: int) -> int:
    return framing.FRAME + (frames - 1) * framing.STEP


def reference(logits: np.ndarray, tokens: np.ndarray) -> tuple[float, np.ndarray]:
    """Loss and gradient of one example, by forward and backward recursions in 80 bits.

    Args:
        logits: ``(T, outputs)``.
        tokens: letters of the transcript.
    """
    wide = logits.astype(np.longdouble)
    shares = wide - np.logaddexp.reduce(wide, axis=1, keepdims=True)
    states = np.zeros(2 * len(tokens) + 1, int)
    states[1::2] = tokens + 1
    direct = np.zeros(len(states), bool)
    direct[3::2] = tokens[1:] != tokens[:-1]
    told, none = shares[:, states], np.longdouble(-np.inf)

    def forward(told: np.ndarray, direct: np.ndarray) -> np.ndarray:
        found = np.full(told.shape, none)
        found[0, :2] = told[0, :2]
        for t in range(1, len(told)):
            one = np.concatenate([[none], found[t - 1, :-1]])
            two = np.where(direct, np.concatenate([[none] * 2, found[t - 1]])[: len(one)], none)
            found[t] = np.logaddexp(np.logaddexp(found[t - 1], one), two) + told[t]
        return found

    into = np.concatenate([direct[2:], [False] * 2])[: len(direct)]  # from a state, two further
    alpha, beta = forward(told, direct), forward(told[::-1, ::-1], into[::-1])[::-1, ::-1]
    total = np.logaddexp.reduce(alpha[-1, -2:])
    through = np.exp(alpha + beta - told - total)
    expected = np.exp(shares)
    for state, output in enumerate(states):
        expected[:, output] -= through[:, state]
    return float(-total), expected


def on_torch(logits: np.ndarray, *rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    given = torch.from_numpy(logits).requires_grad_()
    loss = ctc_torch.ctc(given, *map(torch.from_numpy, rest))
    loss.sum().backward()
    return loss.detach().numpy(), given.grad.numpy()


def on_jax(logits: np.ndarray, *rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with jax.enable_x64(logits.dtype == np.float64):

        def total(given):
            loss = ctc_flax.ctc(given, *map(jnp.asarray, rest))
            return loss.sum(), loss

        gradient, loss = jax.jit(jax.grad(total, has_aux=True))(jnp.asarray(logits))
    return np.asarray(loss), np.asarray(gradient)


def example(dtype: str, frames: int, letters: int, scale: float) -> list[np.ndarray]:
    logits = scale * keys.normal(frames * OUTPUTS, "logits", frames).reshape(1, frames, OUTPUTS)
    tokens = keys.words(letters, "letters") % np.uint64(OUTPUTS - 1)
    tokens[1:3] = tokens[0]  # needs blanks
    counts = [np.array([n], np.int32) for n in (letters, samples(frames))]
    return [logits.astype(dtype), tokens.astype(np.int32)[None], *counts]


@pytest.mark.parametrize(
    ("side", "dtype", "tolerance"),
    [
        (on_torch, "float64", 1e-12),
        (on_torch, "float32", 1e-7),
        (on_jax, "float64", 1e-14),
        (on_jax, "float32", 5e-6),
    ],
    ids=["torch-float64", "torch-float32", "jax-float64", "jax-float32"],
)
def test_loss_and_gradient_are_those_of_more_digits(side, dtype, tolerance) -> None:
    logits, tokens, *counts = example(dtype, frames=100, letters=30, scale=3.0)
    loss, gradient = side(logits, tokens, *counts)
    expected, exact = reference(logits[0], tokens[0])
    assert loss.dtype == gradient.dtype == dtype
    assert loss[0] == pytest.approx(expected, rel=1e-14 if dtype == "float64" else 1e-6)
    assert np.linalg.norm(gradient[0] - exact) < tolerance * np.linalg.norm(exact.astype(float))


@pytest.mark.parametrize("side", [on_torch, on_jax])
def test_what_cannot_be_aligned_has_no_loss_and_no_gradient(side) -> None:
    """A transcript that needs a frame more than there are, and no frames at all."""
    tokens = np.array([[1, 1, 2], [1, 1, 2], [3, 0, 0], [3, 0, 0], [5, 6, 6]], np.int32)
    labels = np.array([3, 3, 1, 0, 2], np.int32)
    clips = np.array([samples(3), samples(4), 399, samples(2), samples(2)], np.int32)
    logits = keys.normal(5 * 6 * 9, "logits").reshape(5, 6, 9)
    loss, gradient = side(logits, tokens, labels, clips)
    assert (loss > 0).tolist() == [False, True, False, True, True]
    assert (np.abs(gradient).sum((1, 2)) > 0).tolist() == [False, True, False, True, True]
    assert np.isfinite(gradient).all()
    for row, frames in ((1, 4), (3, 2), (4, 2)):
        expected, exact = reference(logits[row, :frames], tokens[row, : labels[row]])
        assert loss[row] == pytest.approx(expected, rel=1e-14)
        np.testing.assert_allclose(gradient[row, :frames], exact.astype(float), atol=1e-14)
        assert not gradient[row, frames:].any()


@pytest.mark.parametrize("frames", [1, 399, 400, 719, 720, 16000, 160000])
def test_frames_are_those_of_seven_convolutions(frames: int) -> None:
    from lockstep.workloads.wav2vec2 import KERNELS, STRIDES

    long = frames
    for kernel, stride in zip(KERNELS, STRIDES):
        long = max(0, (long - kernel) // stride + 1)
    assert max(0, framing.count(frames)) == long


def test_repetitions_are_one_letter_and_blanks_none() -> None:
    best = np.array([0, 3, 3, 0, 3, 1, 1, 2, 0, 0])
    assert transcripts.decoded(best).tolist() == [2, 2, 0, 1]
    assert transcripts.decoded(np.zeros(4, int)).tolist() == []


def test_error_rates_are_those_of_jiwer() -> None:
    jiwer = pytest.importorskip("jiwer", reason="jiwer is not installed")
    letters = " abcd"
    texts, rows = [], []
    for number in range(60):
        drawn = (keys.words(24, "text", number) % np.uint64(5)).astype(int)
        meant = [int(k) for k in drawn[: 4 + number % 9]]
        said = [k for k in meant if (k + number) % 4] + [
            int(k) for k in drawn[20 : 20 + number % 3]
        ]
        # As the reader spells them: single spaces, none around.
        meant, said = ([letters.index(x) for x in " ".join("".join(
            letters[k] for k in each).split())] for each in (meant, said))  # fmt: skip
        if meant:
            texts.append(["".join(letters[k] for k in each) for each in (meant, said)])
            rows.append((meant, said))
    best = np.zeros((len(rows), 60), np.int32)
    tokens = np.zeros((len(rows), 14), np.int32)
    for row, (meant, said) in enumerate(rows):
        best[row, 1 : 2 * len(said) + 1 : 2] = np.array(said, int) + 1  # blanks between
        tokens[row, : len(meant)] = meant
    labels = np.array([len(meant) for meant, _ in rows])
    counts = transcripts.counted(best, tokens, labels)
    meant, said = map(list, zip(*texts))
    found = transcripts.rates(counts)
    assert found["word_error_rate"] == pytest.approx(jiwer.wer(meant, said), abs=0)
    assert found["character_error_rate"] == pytest.approx(jiwer.cer(meant, said), abs=0)
    assert 0 < found["character_error_rate"] < 1
