"""Texts become rows of tokens; what is wrong with a text is told by file and line."""

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest

from lockstep.datasets import documents
from lockstep.datasets.sources import text
from lockstep.errors import UserError
from tests.conftest import staged

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
OPTIONS = {"vocabulary": 64, "length": 8, "test_every": 4}


def corpus(folder: Path) -> Path:
    """Eight documents of twenty words."""
    paragraphs = [" ".join(WORDS[k:] + WORDS[:k]) + "\n" for k in range(8)]
    (folder / "corpus.txt").write_text("\n".join(p + p for p in paragraphs))
    return folder


def told(raw: Path, **options: object) -> str:
    """What is said of a folder that cannot be read; one line."""
    text.check({**OPTIONS, **options})
    with pytest.raises(UserError) as caught:
        list(text.read(raw, {**OPTIONS, **options}))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_documents_are_packed_into_full_rows(tmp_path: Path) -> None:
    raw = corpus(tmp_path)
    splits = dict(text.read(raw, OPTIONS))
    vocabulary = text.vocabulary(raw, OPTIONS)
    begin, end = vocabulary.index("[CLS]"), vocabulary.index("[SEP]")
    for arrays in splits.values():
        tokens, maskable = arrays["tokens"], arrays["maskable"]
        assert tokens.dtype == maskable.dtype == np.uint16
        assert (tokens[:, 0] == begin).all()
        assert (tokens[:, -1] == end).all()
        np.testing.assert_array_equal(maskable, 6 - (tokens[:, 1:-1] == end).sum(axis=1))
    # Documents 0 and 4 are for testing: 40 words and what is between them.
    pieces = "".join(vocabulary[t].removeprefix("##") for t in splits["test"]["tokens"][0][1:-1])
    assert "onetwothreefour".startswith(pieces) or pieces.startswith("onetwo")
    inner = splits["test"]["tokens"][:, 1:-1].ravel()
    assert (inner == end).sum() == 1


def test_rows_do_not_depend_on_how_documents_are_stored(tmp_path: Path) -> None:
    raw = corpus(tmp_path)
    expected = dict(text.read(raw, OPTIONS))
    found = list(documents.read(raw / "corpus.txt", "plain"))
    assert len(found) == 8
    lines = "".join(json.dumps({"text": document, "id": 1}) + "\n" for document in found)
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "corpus.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    given = dict(text.read(packed, {**OPTIONS, "format": "jsonl"}))
    for split, arrays in expected.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(given[split][name], array)


def test_wikitext_documents_begin_at_titles(tmp_path: Path) -> None:
    path = tmp_path / "wiki.raw"
    path.write_text(" = A = \n\n one \n = = B = = \n\n two \n = C = \n three \n")
    found = list(documents.read(path, "wikitext"))
    assert [document.split() for document in found] == [
        ["=", "A", "=", "one", "=", "=", "B", "=", "=", "two"],
        ["=", "C", "=", "three"],
    ]


def test_lines_end_with_line_feeds_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes("\ufeffa\u2028b\x0cc\x85d\r\ne\n".encode())
    assert [line for _, line in documents.lines(path)] == ["a\u2028b\x0cc\x85d", "e"]


def test_train_and_test_may_be_files_of_their_own(tmp_path: Path) -> None:
    raw = corpus(tmp_path)
    (raw / "more.txt").write_text(" ".join(WORDS * 3))
    options = {**OPTIONS, "train": ["corpus.txt"], "test": "more.txt"}
    splits = dict(text.read(raw, options))
    assert len(splits["train"]["tokens"]) > len(splits["test"]["tokens"]) > 0
    facts, extra = text.describe(raw, options)
    assert facts["vocabulary"] == len(text.vocabulary(raw, options))
    assert bytes(extra["vocabulary"]).startswith(b"[PAD]\n[UNK]\n")


def test_a_staged_vocabulary_is_taken_as_it_is(tmp_path: Path) -> None:
    raw = corpus(tmp_path)
    pieces = ["[MASK]", "[UNK]", *WORDS, "[PAD]", "[SEP]", "[CLS]"]
    (raw / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    splits = dict(text.read(raw, {**OPTIONS, "vocabulary": "vocab.txt"}))
    assert (splits["train"]["tokens"][:, 0] == len(pieces) - 1).all()
    assert splits["train"]["maskable"].max() == 6
    assert splits["train"]["tokens"].max() < len(pieces)


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        (b"", {}, "corpus.txt: holds no text"),
        (b" \n\n\t\n", {}, "corpus.txt: holds no text"),
        (b"one\ntwo\xff\n", {}, "corpus.txt, line 2: is not UTF-8"),
        (b"one two\n", {}, "do not fill one row"),
        (b'{"text": "a"}\n{"txt": 1}\n', {"format": "jsonl"}, "line 2: has no `text`"),
        (b'{"text": "a"}\n{\n', {"format": "jsonl"}, "line 2: is not JSON"),
        (b"[1]\n", {"format": "jsonl"}, "line 1: has no `text`"),
        (b"one two", {"vocabulary": "vocab.txt"}, "vocab.txt: no such file"),
        (b"one two", {"train": "other*"}, r"other\*: no such file"),
    ],
)
def test_a_wrong_text_is_told_in_one_line(
    tmp_path: Path, content: bytes, options: dict, expected: str
) -> None:
    (tmp_path / "corpus.txt").write_bytes(content)
    assert re.search(expected, told(tmp_path, **options))


def test_a_line_without_an_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "LONGEST", 1 << 20)
    (tmp_path / "corpus.txt").write_bytes(b"short\n" + b"long " * (1 << 18) + b"\n")
    assert "corpus.txt, line 2: is longer than 1 MiB" in told(tmp_path)


def test_a_damaged_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt.gz").write_bytes(gzip.compress(b"one two " * 99)[:-20])
    assert "corpus.txt.gz: damaged" in told(tmp_path)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"lenght": 8}, "options.lenght is unknown; did you mean 'length'?"),
        ({"length": 7}, "options.length is 7; it must be a whole number from 8"),
        ({"format": "text"}, "options.format is 'text'"),
        ({"vocabulary": True}, "options.vocabulary is True"),
        ({"train": "../x"}, "options.train is '../x'; it must be the name of a file in raw"),
        ({"test": []}, "options.test is []"),
        ({"lower": "no"}, "options.lower is 'no'"),
    ],
)
def test_options_are_checked_before_anything_is_read(options: dict, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        text.check(options)
    assert expected in str(caught.value)


def test_a_real_corpus_fills_thousands_of_rows() -> None:
    raw = staged("text")
    options = {"train": "tinyshakespeare.txt", "vocabulary": 2000, "length": 64}
    splits = dict(text.read(raw, options))
    assert splits["train"]["tokens"].shape[0] > 4000
    unknown = text.vocabulary(raw, options).index("[UNK]")
    assert not (splits["test"]["tokens"] == unknown).any()
