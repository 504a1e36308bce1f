"""Clicks in Criteo's format are read as published; mistakes are told by file and line."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from lockstep import auc
from lockstep.datasets import clicks, prepare
from lockstep.datasets.reader import Reader, read_manifest
from lockstep.datasets.sources import click_log, criteo
from lockstep.errors import UserError


def line(label: object = 0, numbers: dict | None = None, categories: dict | None = None) -> str:
    """A line whose numbers are 0 to 12 and whose categories 100 to 125, but for some fields."""
    dense = [str((numbers or {}).get(k, k)) for k in range(13)]
    sparse = [str((categories or {}).get(k, f"{100 + k:08x}")) for k in range(26)]
    return "\t".join([str(label), *dense, *sparse])


def folder(path: Path, *lines: str) -> Path:
    (path / "train.txt").write_text("\n".join(lines) + "\n")
    return path


def whole(path: Path) -> clicks.Block:
    parts = list(clicks.read(path))
    names = ("click", "numbers", "categories")
    return clicks.Block(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})


def test_fields_are_read_as_published(tmp_path: Path) -> None:
    rows = [
        line(1, {0: "", 1: -2, 2: 2**31 - 1}, {0: "e8b83407", 1: "", 25: ""}),
        line(0, {12: ""}, {2: "ff", 3: "ABCDEF01"}),
    ]
    found = whole(folder(tmp_path, *rows) / "train.txt")
    assert found.click.tolist() == [1, 0]
    assert found.numbers[0, :4].tolist() == [0, -2, 2**31 - 1, 3]
    assert found.numbers[1, 11:].tolist() == [11, 0]
    assert found.categories[0, :3].tolist() == [0xE8B83407, clicks.MISSING, 102]
    assert found.categories[0, 25] == clicks.MISSING
    assert found.categories[1, 2:4].tolist() == [0xFF, 0xABCDEF01]


def test_line_ends_and_compression_do_not_matter(tmp_path: Path) -> None:
    expected = whole(folder(tmp_path, line(), line(1)) / "train.txt")
    (tmp_path / "other.txt").write_bytes(f"{line()}\r\n{line(1)}".encode())
    (tmp_path / "packed.gz").write_bytes(gzip.compress(f"{line()}\n{line(1)}\n".encode()))
    for name in ("other.txt", "packed.gz"):
        found = whole(tmp_path / name)
        for one, other in zip(vars(found).values(), vars(expected).values()):
            np.testing.assert_array_equal(one, other)


def test_blocks_meet_within_lines(tmp_path: Path, monkeypatch) -> None:
    rows = [line(k % 2, {0: k}) for k in range(50)]
    expected = whole(folder(tmp_path, *rows) / "train.txt")
    monkeypatch.setattr(clicks, "BLOCK", 1000)
    assert len(list(clicks.read(tmp_path / "train.txt"))) > 5
    np.testing.assert_array_equal(whole(tmp_path / "train.txt").numbers, expected.numbers)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (line() + "\t", "line 3: has 41 fields, not 40"),
        (line().rpartition("\t")[0], "line 3: has 39 fields, not 40"),
        ("", "line 3: has 1 fields, not 40"),
        (line(2), "line 3: field 1 is '2'; the label must be 0 or 1"),
        (line(""), "line 3: field 1 is ''; the label must be"),
        (line(0, {4: "x"}), "line 3: field 6 is 'x'; it must be an integer"),
        (line(0, {4: "-"}), "line 3: field 6 is '-'; it must be an integer"),
        (line(0, {4: "1.5"}), "line 3: field 6 is '1.5'"),
        (line(0, {4: 2**31}), "line 3: field 6 is '2147483648'; it must be an integer of 32 bits"),
        (line(0, {}, {1: "xyz"}), "line 3: field 16 is 'xyz'; it must be up to eight hexadecimal"),
        (line(0, {}, {1: "123456789"}), "line 3: field 16 is '123456789'"),
        (line(0, {}, {1: "é"}), "line 3: field 16 is 'é'"),
    ],
)
@pytest.mark.parametrize("size", [1 << 22, 400])
def test_a_wrong_line_is_told(tmp_path: Path, monkeypatch, wrong, expected: str, size: int) -> None:
    monkeypatch.setattr(clicks, "BLOCK", size)
    raw = folder(tmp_path, line(), line(1), wrong, line())
    with pytest.raises(UserError) as caught:
        list(criteo.read(raw, {}))
    assert f"train.txt, {expected}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none_are_told(tmp_path: Path) -> None:
    for content, expected in (
        (b"", "holds no lines"),
        (b"x" * (clicks.LONGEST + 1), "line 1: is longer than a line of clicks"),
    ):
        (tmp_path / "train.txt").write_bytes(content)
        with pytest.raises(UserError, match=expected):
            list(criteo.read(tmp_path, {}))
    (tmp_path / "train.gz").write_bytes(gzip.compress(line().encode())[:-8])
    with pytest.raises(UserError, match=r"train.gz: damaged"):
        list(criteo.read(tmp_path, {"train": "train.gz"}))
    with pytest.raises(UserError, match="no such file"):
        list(criteo.read(tmp_path, {"train": "other.txt"}))


def test_a_split_needs_lines_and_both_labels(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing is left for test"):
        list(criteo.read(folder(tmp_path, *[line(k % 2) for k in range(6)]), {}))
    with pytest.raises(UserError, match="all 6 labels of train are 0"):
        list(criteo.read(folder(tmp_path, *[line()] * 6, line(1)), {}))


def test_the_last_lines_are_for_testing(tmp_path: Path) -> None:
    raw = folder(tmp_path, *[line(k % 2, {0: k}) for k in range(20)])
    splits = dict(criteo.read(raw, {"test_part": 5}))
    assert [len(arrays["click"]) for arrays in splits.values()] == [16, 4]
    dense = np.concatenate([arrays["dense"][:, 0] for arrays in splits.values()])
    np.testing.assert_array_equal(dense, np.log1p(np.arange(20.0)).astype(np.float32))


def test_categories_become_rows_by_hashing(tmp_path: Path) -> None:
    rows = [line(0, {1: -2}, {0: ""}), line(1, {}, {0: "ffffffff"}), line(), line(1)]
    given = {"rows": [10 + k for k in range(26)], "test_part": 2}
    ids = np.concatenate([a["ids"] for _, a in criteo.read(folder(tmp_path, *rows), given)])
    assert ids.dtype == np.int32
    assert ids[:3, 0].tolist() == [0, 1 + 0xFFFFFFFF % 9, 1 + 100 % 9]
    assert (ids[:, 1:] > 0).all()
    assert (ids < np.array(given["rows"])).all()
    assert criteo.describe(tmp_path, given)[0] == {"rows": given["rows"]}


def test_a_shared_table_tells_columns_apart(tmp_path: Path) -> None:
    rows = [line(k % 2, {}, dict.fromkeys(range(26), "000000ff")) for k in range(8)]
    given = {"rows": 1 << 22, "shared": True, "test_part": 2}
    ids = dict(criteo.read(folder(tmp_path, *rows), given))["train"]["ids"]
    assert len(set(ids[0].tolist())) == 26
    assert criteo.describe(tmp_path, given)[0] == {"rows": [1 << 22]}


def test_categories_become_rows_by_a_dictionary_of_the_training_file(tmp_path: Path) -> None:
    values = ["a", "b", "b", "c", "c", "d", "", "e"]
    raw = folder(tmp_path, *[line(k % 2, {}, {0: v}) for k, v in enumerate(values)])
    (tmp_path / "test.txt").write_text(f"{line(0, {}, {0: 'f'})}\n{line(1, {}, {0: 'c'})}\n")
    given = {"encoding": "dictionary", "test": "test.txt", "rows": 5}
    splits = dict(criteo.read(raw, given))
    # b and c are the most frequent, then a: the smallest of the others, for which there is room.
    assert splits["train"]["ids"][:, 0].tolist() == [4, 2, 2, 3, 3, 1, 0, 1]
    assert splits["test"]["ids"][:, 0].tolist() == [1, 3]
    assert criteo.describe(raw, given)[0]["rows"][0] == 5
    rare = {**given, "threshold": 2, "rows": 100}
    assert dict(criteo.read(raw, rare))["train"]["ids"][:, 0].tolist() == [1, 2, 2, 3, 3, 1, 0, 1]
    assert criteo.describe(raw, rare)[0]["rows"][0] == 4


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"rows": [10, 10]}, "options.rows has 2 numbers; it must be one, or"),
        ({"rows": 2}, "options.rows is 2; it must be a whole number from 3"),
        ({"encoding": "hash"}, "options.encoding is 'hash'"),
        ({"shared": True, "encoding": "dictionary"}, "needs options.encoding: hashed"),
        ({"train": "../x"}, "options.train is '../x'"),
        ({"test_part": 1}, "options.test_part is 1"),
        ({"row": 1}, "options.row is unknown; did you mean"),
    ],
)
def test_options_are_checked_before_anything_is_read(options: dict, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        criteo.check(options)
    assert expected in str(caught.value)


def test_the_log_is_that_of_its_planted_model(tmp_path: Path) -> None:
    options = {"examples": 3000, "values": 40, "rows": 50}
    click_log.check(options)
    entry = {"source": "click_log", "options": options}
    for name in ("one", "two"):
        prepare.prepare("log", entry, "0" * 64, tmp_path / "none", tmp_path / name)
    shards = [sorted((tmp_path / name).glob("*.h5")) for name in ("one", "two")]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*shards, strict=True))
    manifest = read_manifest(tmp_path / "one" / "manifest.json")
    log = click_log.planted(3000, 40)
    assert manifest["facts"]["rows"] == [50] * 26
    assert manifest["facts"]["best_auc"] == pytest.approx(
        auc.area(log.logit[2500:], log.click[2500:]), abs=1e-6
    )
    assert manifest["facts"]["best_auc"] > 0.8
    rows = Reader(tmp_path / "one" / "manifest.json", "train").take(np.arange(2500))
    np.testing.assert_array_equal(rows["click"], log.click[:2500])
    assert ((rows["ids"] == 0) == log.empty[:2500, 13:]).all()
    assert ((rows["dense"] == 0) >= log.empty[:2500, :13]).all()
