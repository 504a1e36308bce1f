"""Clips of speech become exact integers; each that cannot be used is named, or counted."""

import io
import itertools
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy import signal

from lockstep.datasets import framing, prepare, resampling, waveform
from lockstep.datasets.manifest import read as read_manifest
from lockstep.datasets.reader import Reader
from lockstep.datasets.sources import common_voice, librispeech, speech_digits
from lockstep.errors import UserError
from lockstep.workloads.wav2vec2_ctc import spec
from tests import clips
from tests.conftest import staged
from tests.workloads.bert_models import small

RATE, LETTERS = 16000, "EFINORSVZ"
NOISE = np.random.Generator(np.random.Philox(0)).integers(-9000, 9000, 4800).astype(np.int16)


def wav(
    samples: np.ndarray = NOISE, rate: int = RATE, subtype: str = "PCM_16", **how: str
) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, subtype=subtype, **{"format": "WAV", **how})
    return stream.getvalue()


# From bytes to samples -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "notes"),
    [
        (wav(), []),
        (wav(format="FLAC"), []),
        (wav(NOISE.astype(float) / 32768, subtype="FLOAT"), ["WAV FLOAT"]),
        (wav(NOISE.astype(np.int32) << 16, subtype="PCM_24"), ["WAV PCM_24"]),
        (wav(np.stack([NOISE, NOISE], 1)), ["2 channels"]),
        (wav(format="WAVEX"), []),
    ],
    ids=["wav", "flac", "float", "24-bit", "stereo", "extensible"],
)
def test_every_format_gives_the_same_integers(content: bytes, notes: list[str]) -> None:
    samples, found = waveform.decode(content, RATE)
    assert samples.dtype == np.int16
    np.testing.assert_array_equal(samples, NOISE)
    assert [note for note in found if not note.startswith("WAVEX")] == notes


def test_eight_bits_and_uneven_channels_are_exact() -> None:
    coarse = (NOISE >> 8) << 8
    samples, notes = waveform.decode(wav(coarse, subtype="PCM_U8"), RATE)
    np.testing.assert_array_equal(samples, coarse)
    assert notes == ["WAV PCM_U8"]
    samples, _ = waveform.decode(wav(np.stack([NOISE, NOISE * 0 + 1], 1)), RATE)
    np.testing.assert_array_equal(samples, (NOISE.astype(int) + 1) // 2)


@pytest.mark.parametrize("how", [{"format": "MP3", "subtype": "MPEG_LAYER_III"},
                                 {"format": "OGG", "subtype": "VORBIS"}])  # fmt: skip
def test_lossy_clips_are_no_longer_the_same_on_every_machine(tmp_path: Path, how: dict) -> None:
    tone = (9000 * np.sin(np.arange(16000) / 20)).astype(np.int16)
    samples, notes = waveform.decode(wav(tone, **how), RATE)
    assert notes[-1] == "lossy" and np.abs(samples[4000:8000]).max() == pytest.approx(9000, rel=0.1)
    raw = digits(tmp_path, {"5_ann_9.wav": wav(tone, **how)})
    assert made(raw, letters=LETTERS)[1]["same_on_every_machine"] is False


def streamed(content: bytes, size: int) -> bytes:
    """A WAV file whose header says that it has so many bytes of samples."""
    place = content.index(b"data") + 4
    return content[:place] + size.to_bytes(4, "little") + content[place + 4 :]


def test_a_file_that_was_written_to_a_pipe_is_read() -> None:
    samples, _ = waveform.decode(streamed(wav(), 0xFFFFFFFF), RATE)
    np.testing.assert_array_equal(samples, NOISE)


BROKEN = {
    "truncated": (wav()[:3000], "truncated", "says 9600 bytes of samples, 2956 are there"),
    "unfinished": (streamed(wav(), 0), "truncated", "has an unfinished header"),
    "empty": (wav(NOISE[:0]), "empty", "holds no samples"),
    "silent": (wav(NOISE * 0), "silent", "is silent"),
    "antiphase": (wav(np.stack([NOISE, -NOISE], 1)), "silent", "is silent"),
    "scaled": (wav(NOISE.astype(float), subtype="FLOAT"), "beyond full scale", "divide them by it"),
    "half a FLAC": (wav(format="FLAC")[:2000], "undecodable", "cannot be decoded"),
    "a page": (b"<html>no sound</html>", "undecodable", "cannot be decoded"),
    "nothing": (b"", "undecodable", "cannot be decoded"),
    "short": (wav(NOISE[:399]), "shorter than a frame", "has 399 samples; a frame needs 400"),
}


@pytest.mark.parametrize(("content", "kind", "why"), BROKEN.values(), ids=BROKEN)
def test_a_clip_that_cannot_be_used_is_named_or_counted(
    tmp_path: Path, content: bytes, kind: str, why: str
) -> None:
    raw = digits(tmp_path, {"5_ann_9.wav": content})
    with pytest.raises(UserError, match=why) as told:
        made(raw, letters=LETTERS)
    assert str(told.value).startswith(f"{raw}/recordings/5_ann_9.wav: ")
    assert "\n" not in str(told.value) and "options.broken: skip" in str(told.value)
    splits, facts = made(raw, letters=LETTERS, broken="skip")
    assert len(splits["train"]["samples"]) == 2
    assert facts["left_out"] == {"train": {kind: 1}, "test": {}}


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_resampling_is_that_of_scipy_but_exact(rate: int) -> None:
    found = resampling.resampled(NOISE, rate, RATE)
    common = np.gcd(rate, RATE)
    expected = signal.resample_poly(NOISE.astype(float), RATE // common, rate // common)
    assert len(found) == len(expected)
    apart = np.abs(found - np.clip(np.rint(expected), -32768, 32767))
    assert apart.max() <= 1 and (apart > 0).mean() < 0.01


def test_resampling_clips_and_keeps_a_constant() -> None:
    loud = np.where(np.arange(2000) % 40 < 20, 32767, -32768).astype(np.int16)
    found = resampling.resampled(loud, 8000, RATE)
    assert (found.min(), found.max()) == (-32768, 32767)
    inside = resampling.resampled(np.full(2000, 1000, np.int16), 44100, RATE)[40:-40]
    assert np.abs(inside.astype(int) - 1000).max() <= 1


# Digits --------------------------------------------------------------------------------------


def digits(folder: Path, more: dict[str, bytes] | None = None) -> Path:
    sound = {"0_ann_0.wav": wav(), "7_ann_5.wav": wav(), "5_bob_12.wav": wav(NOISE[:2000])}
    for name, content in (sound | (more or {})).items():
        path = folder / "recordings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def made(raw: Path, source=speech_digits, **options: object):
    source.check(options)
    return dict(source.read(raw, options)), source.describe(raw, options)[0]


def test_digits_are_words_and_the_first_recordings_are_for_testing(tmp_path: Path) -> None:
    splits, facts = made(digits(tmp_path), letters=LETTERS)
    letters = facts["letters"]
    assert "".join(letters) == " EFINORSVZ"
    tokens = splits["train"]["tokens"]
    spelled = "".join(letters[k] for k in tokens.values)
    assert (spelled, tokens.lengths.tolist()) == ("FIVESEVEN", [4, 5])
    assert splits["train"]["samples"].tolist() == [2000, 4800]
    assert splits["train"]["needed"].tolist() == [4, 5]


def test_letters_of_the_test_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"0_ann_0.wav: its transcript has the letter 'O', which"):
        made(digits(tmp_path))
    _, facts = made(digits(tmp_path), letters=LETTERS)
    assert len(facts["letters"]) == 10


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"readme.wav": wav()}, "readme.wav: is not named as in 7_jackson_12.wav"),
        ({"again/7_ann_5.wav": wav()}, "the clip 7_ann_5.wav is there twice, first in"),
    ],
)
def test_names_are_checked(tmp_path: Path, more: dict[str, bytes], message: str) -> None:
    with pytest.raises(UserError, match=message):
        made(digits(tmp_path, more))


def test_an_archive_gives_what_its_folder_gives(tmp_path: Path) -> None:
    raw = digits(tmp_path / "a")
    (tmp_path / "b").mkdir()
    with tarfile.open(tmp_path / "b" / speech_digits.ARCHIVE, "w:gz") as archive:
        archive.add(raw / "recordings", "recordings")
    one, other = (made(tmp_path / name, letters=LETTERS)[0] for name in "ab")
    for name in ("audio", "tokens"):
        np.testing.assert_array_equal(one["train"][name].values, other["train"][name].values)
    (tmp_path / "b" / speech_digits.ARCHIVE).write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"recordings.tar.gz: cannot be read"):
        made(tmp_path / "b")


def test_a_longest_clip_is_a_rule_with_a_count(tmp_path: Path) -> None:
    raw = digits(tmp_path, {"0_bob_1.wav": wav(NOISE[:3000])})
    splits, facts = made(raw, letters=LETTERS, longest=4799)
    assert splits["train"]["samples"].tolist() == [2000]
    assert facts["left_out"] == {split: {"longer than options.longest": 1} for split in splits}
    with pytest.raises(UserError, match="test holds no clip that can be used"):
        made(raw, letters=LETTERS, longest=2000)


def test_transcripts_of_other_clips_are_refused(tmp_path: Path) -> None:
    raw = digits(tmp_path, {"3_ann_9.wav": wav(NOISE[:800])})  # THREE needs six frames of two
    with pytest.raises(UserError, match="the transcripts of 1 of 3 train clips need more frames"):
        made(raw, letters="EFHINORSTVZ")
    _, facts = made(raw, letters="EFHINORSTVZ", infeasible=40)
    assert facts["infeasible"] == {"train": 1, "test": 0}


# LibriSpeech ---------------------------------------------------------------------------------


def books(folder: Path, lines: str = "1-2-0000 THE CAT\n1-2-0001 CAN'T  HE\n") -> Path:
    for split in ("train-clean-100", "dev-clean"):
        chapter = folder / split / "1" / "2"
        chapter.mkdir(parents=True)
        prefix = "1-2" if split.startswith("train") else "1-3"
        for number in range(2):
            content = wav(format="FLAC")
            (chapter / f"{prefix}-{number:04}.flac").write_bytes(content)
        (chapter / f"{prefix}.trans.txt").write_text(lines.replace("1-2", prefix))
    return folder


def test_librispeech_has_a_line_for_each_clip(tmp_path: Path) -> None:
    splits, facts = made(books(tmp_path), librispeech)
    assert "".join(facts["letters"]) == " 'ACEHNT"
    tokens = splits["train"]["tokens"]
    assert "".join(facts["letters"][k] for k in tokens.values) == "THE CATCAN'T HE"
    assert facts["same_on_every_machine"] is True


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("1-2-0000 A\n1-2-0007 B\n", r"1-2.trans.txt, line 2: the clip .*1-2-0007.flac is not"),
        ("1-2-0000 A\n", r"1-2.trans.txt: has no line for the clip 1-2-0001.flac"),
        ("1-2-0000 A\n1-2-0001\n", r"1-2.trans.txt, line 2: has an empty transcript"),
        ("1-2-0000 A\n1-2-0000 A\n", r"line 2: the clip .*1-2-0000.flac is not there"),
    ],
    ids=["no clip", "no line", "empty", "twice"],
)
def test_librispeech_is_checked(tmp_path: Path, lines: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        made(books(tmp_path, lines), librispeech)


# Common Voice --------------------------------------------------------------------------------


def test_common_voice_is_tabs_and_quotes_are_letters(tmp_path: Path) -> None:
    raw = clips.write(tmp_path)
    sentence = '"Ab\u0301 a"\tx\n'
    (raw / "train.tsv").write_text(f"path\tsentence\tage\n7.wav\t{sentence}")
    (raw / "dev.tsv").write_text(f"path\tsentence\tage\n8.wav\t{sentence}")
    splits, facts = made(raw, common_voice, case="lower", infeasible=100)
    assert "".join(facts["letters"]) == ' "ab\u0301'
    assert splits["train"]["tokens"].lengths.tolist() == [7]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path\ttext\n", r"train.tsv, line 1: has no column 'sentence'"),
        ("", r"train.tsv: is empty"),
        ("path\tsentence\n1.wav\tA\nx.wav\tB\n", r"train.tsv, line 3: the clip .*x.wav is not"),
        ("path\tsentence\n1.wav\n", r"train.tsv, line 2: has 1 columns"),
        ("path\tsentence\n1.wav\tA\n1.wav\tB\n", r"train.tsv, line 3: the clip 1.wav is there t"),
        ("path\tsentence\n1.wav\tA\n2.wav\t  \n", r"train.tsv, line 3: has an empty transcript"),
    ],
    ids=["column", "empty", "no clip", "short", "twice", "no text"],
)
def test_common_voice_is_checked(tmp_path: Path, content: str, message: str) -> None:
    raw = clips.write(tmp_path)
    (raw / "train.tsv").write_text(content)
    with pytest.raises(UserError, match=message):
        made(raw, common_voice)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 100}, r"options.rate is 100; it must be a whole number from 4000"),
        ({"longest": "1 s"}, r"options.longest is '1 s'"),
        ({"case": "title"}, r"options.case is 'title'"),
        ({"borken": "skip"}, r"options.borken is unknown; .*broken"),
        ({"clips": "../x"}, r"options.clips is '../x'"),
    ],
)
def test_options_are_checked(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        common_voice.check(options)


# The dataset ---------------------------------------------------------------------------------


def test_a_prepared_dataset_is_what_the_workload_asks_for(tmp_path: Path) -> None:
    manifest = clips.prepared(tmp_path)
    told = read_manifest(manifest)
    data = spec.Data.of(told)
    recipe = small("wav2vec2_ctc")
    assert spec.check_data(recipe, data) is None
    assert data.facts["longest"] <= clips.LONGEST and sum(data.facts["infeasible"].values())
    rows = Reader(manifest, "train").take(np.arange(5))
    again = clips.spoken(3)
    edges = rows["audio"].offsets
    np.testing.assert_array_equal(rows["audio"].values[edges[3] : edges[4]], again[1])
    json.dumps(told["facts"])


def mean_and_spread(audio: np.ndarray, samples: np.ndarray) -> list[tuple[float, float]]:
    return [(row[:n].mean(), row[:n].std()) for row, n in zip(audio.astype(float), samples)]


def test_clips_are_normalised_and_padded_with_zeros(tmp_path: Path) -> None:
    rows = Reader(clips.prepared(tmp_path), "train").take(np.arange(8))
    audio = spec.normalised(rows["audio"], clips.LONGEST)
    for mean, spread in mean_and_spread(audio, rows["samples"]):
        assert abs(mean) < 1e-6 and spread == pytest.approx(1, abs=1e-4)
    assert not audio[np.arange(clips.LONGEST) >= rows["samples"][:, None]].any()
    one = spec.normalised(rows["audio"], clips.LONGEST + 320)
    np.testing.assert_array_equal(one[:, : clips.LONGEST], audio)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"letters": list("ABCDEFGHIJ")}, "set model.letters: 10"),
        ({"longest": 3300}, r"set model.samples: 3520, or .* options.longest"),
    ],
)
def test_a_dataset_that_does_not_fit_is_told(tmp_path: Path, facts: dict, message: str) -> None:
    told = read_manifest(clips.prepared(tmp_path))
    data = spec.Data.of({**told, "facts": {**told["facts"], **facts}})
    assert re.search(message, spec.check_data(small("wav2vec2_ctc"), data) or "")


def test_the_staged_digits_are_read_whole(tmp_path: Path) -> None:
    raw = staged("speech_digits")
    entry = {"source": "speech_digits", "options": {}}
    prepare.prepare("digits", entry, "0" * 64, raw, tmp_path / "d")
    told = read_manifest(tmp_path / "d" / "manifest.json")
    assert {name: split["examples"] for name, split in told["splits"].items()} == {
        "train": 2700,
        "test": 300,
    }
    assert told["facts"]["longest"] == 36524 and told["facts"]["infeasible"]["train"] == 0
    assert told["facts"]["converted"]["train"] == {"8000 Hz": 2700}


def test_lengths_leave_the_least_padding() -> None:
    durations = (0, 9, 1, 0, 5, 0, 1)

    def padding(lengths: tuple[int, ...]) -> int:
        return sum(
            count * min(length for length in lengths if length >= (k + 1) * framing.STEP)
            for k, count in enumerate(durations)
            if count
        )

    last = len(durations)
    for most in range(1, 6):
        found = framing.lengths(durations, most)
        tried = (
            (*(framing.STEP * k for k in chosen), framing.STEP * last)
            for count in range(most)
            for chosen in itertools.combinations(range(1, last), count)
        )
        assert len(found) <= most and found == tuple(sorted(found))
        assert padding(found) == min(map(padding, tried))
