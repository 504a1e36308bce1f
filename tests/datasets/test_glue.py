"""Tab-separated sentences are read as GLUE publishes them; mistakes are told by file and line."""

from pathlib import Path

import numpy as np
import pytest

from lockstep.datasets.sources import glue
from lockstep.errors import UserError
from tests.conftest import staged

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "na", "null", '"', "c", "d"]
OPTIONS = {"length": 8}
HEADER = "sentence\tlabel\n"


def folder(path: Path, train: str, dev: str = HEADER + "a\t1\n") -> Path:
    (path / "vocab.txt").write_text("\n".join(PIECES))
    (path / "train.tsv").write_bytes(train.encode())
    (path / "dev.tsv").write_bytes(dev.encode())
    return path


def read(raw: Path, **options: object) -> dict[str, np.ndarray]:
    glue.check({**OPTIONS, **options})
    return dict(glue.read(raw, {**OPTIONS, **options}))["train"]


def words(arrays: dict[str, np.ndarray]) -> list[str]:
    return [" ".join(PIECES[t] for t in row).split(" [PAD]")[0] for row in arrays["tokens"]]


def test_quotes_missing_values_and_odd_line_ends_are_words(tmp_path: Path) -> None:
    rows = 'a " b\t1\nNA\t0\nnull\t1\n"a\t0\na\u2028b\x0c\t1\n'
    arrays = read(folder(tmp_path, HEADER + rows))
    assert words(arrays) == [
        '[CLS] a " b [SEP]',
        "[CLS] na [SEP]",
        "[CLS] null [SEP]",
        '[CLS] " a [SEP]',
        "[CLS] a b [SEP]",
    ]
    assert arrays["label"].tolist() == [1, 0, 1, 0, 1]
    assert arrays["label"].dtype == np.int32
    assert arrays["first"].tolist() == [5, 3, 3, 4, 4]
    assert not arrays["second"].any()


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    assert words(read(folder(tmp_path, "\ufeff" + HEADER + "a\t1\r\n"))) == ["[CLS] a [SEP]"]


def test_files_without_a_header_have_columns_by_number(tmp_path: Path) -> None:
    row = "x\t1\t*\ta b\n"
    raw = folder(tmp_path, row, row)
    arrays = read(raw, header=False, columns=[3], label=1)
    assert words(arrays) == ["[CLS] a b [SEP]"]


def test_pairs_are_cut_at_the_longer_sentence(tmp_path: Path) -> None:
    header = "one\ttwo\tlabel\n"
    rows = "a a a a a a\tb\t0\na\tb b b b b b\t1\na a a a a\tb b b b b\t0\na\tb\t1\n"
    raw = folder(tmp_path, header + rows, header + "a\tb\t1\n")
    arrays = read(raw, columns=["one", "two"])
    assert words(arrays) == [
        "[CLS] a a a a [SEP] b [SEP]",
        "[CLS] a [SEP] b b b b [SEP]",
        "[CLS] a a a [SEP] b b [SEP]",
        "[CLS] a [SEP] b [SEP]",
    ]
    assert arrays["first"].tolist() == [6, 3, 5, 3]
    assert arrays["second"].tolist() == [2, 5, 3, 2]


def test_a_long_sentence_is_cut(tmp_path: Path) -> None:
    assert words(read(folder(tmp_path, HEADER + "a " * 20 + "\t1\n"))) == [
        "[CLS] a a a a a a [SEP]"
    ]


@pytest.mark.parametrize(
    ("train", "options", "expected"),
    [
        (HEADER + "a\t1\nb\n", {}, "train.tsv, line 3: has 1 columns, but column 2 is needed"),
        (HEADER + "a\t1\n\n", {}, "train.tsv, line 3: has 1 columns"),
        (HEADER + "a\t2\n", {}, "train.tsv, line 2: the label is '2'"),
        ("text\tlabel\na\t1\n", {}, "line 1: no column is named 'sentence'"),
        (HEADER, {}, "train.tsv: holds no rows"),
        ("", {}, "train.tsv: holds no rows"),
        (HEADER + "a\t1\n", {"train": "x.tsv"}, "x.tsv: no such file"),
        (HEADER + "a\t1\n", {"vocabulary": "v.txt"}, "v.txt: no such file"),
    ],
)
def test_a_wrong_row_is_told_in_one_line(
    tmp_path: Path, train: str, options: dict, expected: str
) -> None:
    with pytest.raises(UserError) as caught:
        read(folder(tmp_path, train), **options)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_utf8_is_told(tmp_path: Path) -> None:
    raw = folder(tmp_path, "")
    (raw / "train.tsv").write_bytes(HEADER.encode() + b"a\xe9\t1\n")
    with pytest.raises(UserError, match=r"train.tsv, line 2: is not UTF-8"):
        read(raw)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"columns": ["a", "b", "c"]}, "list of one column or two"),
        ({"columns": [0]}, "options.columns is 0; it must be a text"),
        ({"header": False}, "options.columns is 'sentence'; it must be a whole number"),
        ({"labels": ["1"]}, "two labels or more"),
        ({"labels": ["1", "1"]}, "two labels or more"),
        ({"vocabulary": {"vocabulary": 1}}, "options.vocabulary is 1"),
    ],
)
def test_options_are_checked_before_anything_is_read(options: dict, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        glue.check(options)
    assert expected in str(caught.value)


def test_the_vocabulary_may_be_that_of_a_text(tmp_path: Path) -> None:
    raw = folder(tmp_path, HEADER + "a b\t1\n")
    (raw / "corpus.txt").write_text("\n\n".join(["a b c d"] * 20))
    of_text = {"train": "corpus.txt", "vocabulary": 32, "length": 8}
    facts, extra = glue.describe(raw, {**OPTIONS, "vocabulary": of_text})
    assert facts["vocabulary"] == len(bytes(extra["vocabulary"]).splitlines())
    assert read(raw, vocabulary=of_text)["first"].tolist() == [4]


def test_real_sentences_are_read() -> None:
    raw = staged("text")
    of_text = {"train": "tinyshakespeare.txt", "vocabulary": 2000}
    options = {
        "train": "sotu_era/train.tsv",
        "test": "sotu_era/dev.tsv",
        "vocabulary": of_text,
        "length": 64,
    }
    splits = dict(glue.read(raw, options))
    assert {split: len(arrays["label"]) for split, arrays in splits.items()} == {
        "train": 41_582,
        "test": 7_085,
    }
    assert abs(splits["test"]["label"].mean() - 0.5) > 0.1
