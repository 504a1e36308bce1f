"""Named arrays of any type, fixed and ragged, come back as they were written."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from lockstep import files
from lockstep.datasets import arrays, manifest, reader, shards
from lockstep.datasets.arrays import Array, Ragged
from lockstep.datasets.reader import Reader
from lockstep.errors import UserError

ROWS = 40


def examples() -> dict[str, arrays.Stored]:
    random = np.random.default_rng(0)
    lengths = random.integers(0, 9, ROWS)
    return {
        "tokens": random.integers(0, 60000, (ROWS, 6)).astype(np.uint16),
        "score": random.normal(size=ROWS).astype(np.float32),
        "audio": Ragged(values=random.integers(-9, 9, lengths.sum(), np.int16), lengths=lengths),
    }


def written(folder: Path, parts: list[np.ndarray], stored: dict) -> Path:
    described = {name: arrays.of_values(name, values) for name, values in stored.items()}
    entries = []
    for number, rows in enumerate(parts):
        path = folder / f"train-{number:05d}.h5"
        own = {name: taken(values, rows) for name, values in stored.items()}
        content = shards.write(path, described, own, {"split": "train"})
        entries.append(manifest.entry(path, len(rows), content))
    about = {"name": "some", **manifest.said(described)}
    files.write_json(folder / "manifest.json", manifest.make(about, {"train": entries}))
    return folder / "manifest.json"


def taken(values: arrays.Stored, rows: np.ndarray) -> arrays.Stored:
    if not isinstance(values, Ragged):
        return values[rows]
    offsets = values.offsets
    parts = [values.values[offsets[row] : offsets[row + 1]] for row in rows]
    return Ragged(values=np.concatenate(parts), lengths=values.lengths[rows])


@pytest.mark.parametrize("count", [1, 3])
def test_every_type_and_raggedness_survives(tmp_path: Path, count: int) -> None:
    stored = examples()
    made = written(tmp_path, np.array_split(np.arange(ROWS), count), stored)
    rows = np.random.default_rng(1).permutation(ROWS)[:7]
    found = Reader(made, "train").take(rows)
    assert list(found) == list(stored)
    for name, values in stored.items():
        expected = taken(values, rows)
        if isinstance(expected, Ragged):
            np.testing.assert_array_equal(found[name].lengths, expected.lengths)
            expected, found[name] = expected.values, found[name].values
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected)


def test_only_the_arrays_that_are_asked_for_are_gathered(tmp_path: Path) -> None:
    made = written(tmp_path, [np.arange(ROWS)], examples())
    assert list(Reader(made, "train").take(np.arange(3), names=("score",))) == ["score"]


@pytest.mark.parametrize("which", ["audio", "offsets/audio"])
def test_damage_to_a_ragged_array_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    monkeypatch.setattr(reader, "VERIFY_AT_START", 0)
    made = written(tmp_path, [np.arange(ROWS)], examples())
    path = tmp_path / "train-00000.h5"
    with h5py.File(path) as shard:
        start = shard[which].id.get_offset() + 8
    content = bytearray(path.read_bytes())
    content[start] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"train-00000\.h5"):
        Reader(made, "train").take(np.arange(ROWS))


def test_another_type_than_the_manifests_is_refused(tmp_path: Path) -> None:
    made = written(tmp_path, [np.arange(ROWS)], examples())
    described = files.read_json(made)
    described["arrays"]["tokens"]["dtype"] = "int16"
    files.write_json(made, described)
    with pytest.raises(UserError, match=r"tokens is uint16 \(6,\), not int16 \(6,\)"):
        Reader(made, "train")


def test_a_type_of_64_bits_is_no_arrays() -> None:
    with pytest.raises(ValueError, match="ids is int64; it must be one of uint8"):
        Array(name="ids", dtype="int64")


def test_padding_fills_up_and_cuts() -> None:
    ragged = Ragged(values=np.arange(1, 7), lengths=np.array([2, 0, 4]))
    assert ragged.padded(3).tolist() == [[1, 2, 0], [0, 0, 0], [3, 4, 5]]


def test_files_are_opened_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system may have none, and answers with an error."""
    asked = []
    sound = h5py.File

    def opened(*arguments, **options):
        asked.append(options.get("locking"))
        return sound(*arguments, **options)

    monkeypatch.setattr(h5py, "File", opened)
    Reader(written(tmp_path, [np.arange(ROWS)], examples()), "train")
    assert asked == [False, False]
