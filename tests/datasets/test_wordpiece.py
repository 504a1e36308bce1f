"""A WordPiece vocabulary is the same on every machine, and a staged one is checked by line."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lockstep.datasets import wordpiece
from lockstep.errors import UserError
from tests.conftest import environment

TEXTS = ["The quick brown fox jumps over the lazy dog.", "Pack my box; five dozen liquor jugs!"] * 3

TRAINS = """
from lockstep.datasets import wordpiece
from tests.datasets.test_wordpiece import TEXTS
texts = TEXTS[::{step}]
print(wordpiece.content(wordpiece.train(lambda: texts, 120, True)).hex())
"""


def trained_elsewhere(step: int, threads: str) -> bytes:
    env = {**environment(), "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": "random"}
    env["PYTHONPATH"] += f":{Path(__file__).resolve().parents[2]}"
    command = [sys.executable, "-c", TRAINS.format(step=step)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return bytes.fromhex(done.stdout)


def test_trainings_in_several_processes_give_equal_bytes() -> None:
    here = wordpiece.content(wordpiece.train(lambda: TEXTS, 120, True))
    assert {trained_elsewhere(1, "1"), trained_elsewhere(-1, "2"), here} == {here}


def test_a_vocabulary_begins_with_the_special_pieces_and_reads_back(tmp_path: Path) -> None:
    vocabulary = wordpiece.train(lambda: TEXTS, 80, True)
    assert vocabulary[:5] == wordpiece.SPECIALS
    assert len(set(vocabulary)) == len(vocabulary) == 80
    path = tmp_path / "vocab.txt"
    path.write_bytes(wordpiece.content(vocabulary))
    assert wordpiece.read(path) == vocabulary


def test_texts_that_look_like_special_pieces_are_texts() -> None:
    vocabulary = wordpiece.train(lambda: [*TEXTS, "[ mask ] # e"], 120, True)
    [ids] = wordpiece.encoded(["[MASK] ##e"], vocabulary, True)
    mask = vocabulary.index("[MASK]")
    assert mask not in ids
    assert vocabulary.index("[") == ids[0]
    assert ids.dtype == np.uint16


def test_what_training_never_saw_is_unknown() -> None:
    vocabulary = wordpiece.train(lambda: TEXTS, 120, True)
    [ids] = wordpiece.encoded(["北京 the"], vocabulary, True)
    assert list(ids[:2]) == [vocabulary.index("[UNK]")] * 2


def test_more_letters_than_pieces_are_refused() -> None:
    with pytest.raises(UserError, match="letters alone are"):
        wordpiece.train(lambda: TEXTS, 32, True)


def test_case_and_accents_go_only_if_asked() -> None:
    vocabulary = wordpiece.train(lambda: ["Émile Ém"] * 3, 40, False)
    assert "É" in vocabulary
    assert not any("É" in piece for piece in wordpiece.train(lambda: ["Émile"] * 3, 40, True))


def test_facts_say_which_pieces_continue_a_word() -> None:
    vocabulary = wordpiece.train(lambda: TEXTS, 90, True)
    facts = wordpiece.facts(vocabulary, True)
    table = wordpiece.continuations(facts["continues"], facts["vocabulary"])
    assert [piece.startswith("##") for piece in vocabulary] == table.tolist()
    assert facts["special"] == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}


GOOD = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("\n".join(p for p in GOOD if p != "[MASK]").encode(), r"vocab.txt: .* no \[MASK\]"),
        ("\n".join([*GOOD, "a"]).encode(), "line 7: 'a' is in line 6 already"),
        ("\n".join(GOOD).encode() + b"\n\xff\n", "line 7: is not UTF-8"),
    ],
)
def test_a_wrong_vocabulary_is_refused_by_file_and_line(
    tmp_path: Path, content: bytes, told: str
) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=told) as caught:
        wordpiece.read(path)
    assert "\n" not in str(caught.value)


def test_large_vocabularies_have_larger_ids() -> None:
    assert wordpiece.id_type(range(1 << 16)) == np.uint16
    assert wordpiece.id_type(range((1 << 16) + 1)) == np.uint32


def test_a_machine_without_the_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match="the package tokenizers is not installed"):
        wordpiece.train(lambda: TEXTS, 120, True)
