"""WordPiece vocabularies: trained deterministically or staged, and the ids of texts.

A vocabulary is a tuple of pieces; a piece's id is its place. Texts are normalised and split as in
BERT: control characters removed, CJK characters set apart, and where `lower` is set, lower case
without accents; then split at white space and punctuation. What trains and encodes is the
`tokenizers` library, which is imported late: a login node need not have it.
"""

import base64
import functools
import hashlib
import importlib
import importlib.metadata
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.datasets import staged
from lockstep.errors import UserError

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PREFIX = "##"  # of a piece that continues a word
LARGEST = 1 << 20
LONGEST_WORD = 100  # letters; longer words are unknown, as in BERT
AT_ONCE = 1024  # texts that are encoded at once

Vocabulary = tuple[str, ...]


def train(texts: Callable[[], Iterable[str]], size: int, lower: bool) -> Vocabulary:
    """Train a vocabulary: equal texts in any order give equal vocabularies on every machine.

    By itself the trainer numbers the letters inside words in an order that differs from process to
    process, and merges tie by these numbers. Here they are numbered first, in the order of their
    code points (huggingface/tokenizers issue 1794).

    Args:
        texts: gives the texts, from their beginning each time it is called.
        size: pieces of the vocabulary; fewer if the texts have no more.
        lower: whether case and accents are removed.

    Raises:
        UserError: the texts have more letters than the vocabulary has room for.
    """
    inside = sorted(_letters_inside(texts(), lower))
    tokenizer = _tokenizer(None, lower)
    trainer = _library().trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*SPECIALS, *(PREFIX + letter for letter in inside)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    ids = tokenizer.get_vocab()
    if len(ids) > size:
        raise UserError(
            f"options.vocabulary is {size}, but the text's letters alone are {len(ids)} pieces; "
            "choose more, or set lower: true"
        )
    return tuple(sorted(ids, key=ids.__getitem__))


def _letters_inside(texts: Iterable[str], lower: bool) -> set[str]:
    """Return every letter that stands after another one in a word."""
    tokenizer, letters = _tokenizer(None, lower), set[str]()
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text)
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal):
            letters.update(word[1:])
    return letters


def _tokenizer(vocabulary: Vocabulary | None, lower: bool) -> Any:
    """Return a tokenizer without special tokens: a "[MASK]" in a text is a text."""
    library = _library()
    pieces = {piece: number for number, piece in enumerate(vocabulary or SPECIALS)}
    model = library.models.WordPiece(
        pieces, unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD
    )
    tokenizer = library.Tokenizer(model)
    tokenizer.normalizer = library.normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _library() -> Any:
    try:
        return importlib.import_module("tokenizers")
    except ModuleNotFoundError as error:
        raise UserError(
            "the package tokenizers is not installed, which makes tokens of texts; pip install "
            "--require-hashes -r requirements/cpu.txt, or set images.enabled to true"
        ) from error


def encoded(texts: Iterable[str], vocabulary: Vocabulary, lower: bool) -> Iterator[np.ndarray]:
    """Yield the ids of each text, of `id_type(vocabulary)` and without special tokens."""
    tokenizer, coming, kind = _tokenizer(vocabulary, lower), iter(texts), id_type(vocabulary)
    while some := list(islice(coming, AT_ONCE)):
        for encoding in tokenizer.encode_batch_fast(some, add_special_tokens=False):
            yield np.array(encoding.ids, kind)


def id_type(vocabulary: Sequence[str]) -> np.dtype:
    """Return the smallest type that holds every id: uint16 or uint32."""
    return np.dtype(np.uint16 if len(vocabulary) <= 1 << 16 else np.uint32)


@functools.lru_cache(maxsize=4)
def read(path: Path) -> Vocabulary:
    """Read a staged vocabulary: a piece a line, such as BERT's ``vocab.txt``.

    Raises:
        UserError: by file and line: it is not UTF-8, a special piece is missing, or one is doubled.
    """
    lines = staged.read(path).split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    known: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        try:
            piece = line.decode().removesuffix("\r")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, line {number}: is not UTF-8 ({error.reason})") from error
        if piece in known:
            raise UserError(
                f"{path}, line {number}: {piece!r} is in line {known[piece]} already; each piece "
                "must be there once"
            )
        known[piece] = number
    missing = [piece for piece in SPECIALS if piece not in known]
    if missing:
        raise UserError(
            f"{path}: the vocabulary has no {missing[0]}; it needs {', '.join(SPECIALS)}, each on "
            "a line of its own"
        )
    if len(known) > LARGEST:
        raise UserError(f"{path}: has {len(known)} pieces; at most {LARGEST} can be used")
    return tuple(known)


def content(vocabulary: Vocabulary) -> bytes:
    """Return a vocabulary as the content of a ``vocab.txt``."""
    return "".join(f"{piece}\n" for piece in vocabulary).encode()


def facts(vocabulary: Vocabulary, lower: bool) -> dict[str, Any]:
    """Return what a workload needs to know of a vocabulary, for the dataset's manifest.

    `continues` holds a bit for each piece, whether it continues a word (`continuations` reads it).
    """
    inside = np.array([piece.startswith(PREFIX) for piece in vocabulary])
    return {
        "tokenizers": importlib.metadata.version("tokenizers"),
        "vocabulary": len(vocabulary),
        "vocabulary_sha256": hashlib.sha256(content(vocabulary)).hexdigest(),
        "lower": lower,
        "special": {piece[1:-1].lower(): vocabulary.index(piece) for piece in SPECIALS},
        "continues": base64.b64encode(np.packbits(inside).tobytes()).decode(),
    }


@functools.lru_cache(maxsize=4)
def continuations(continues: str, size: int) -> np.ndarray:
    """Return which pieces continue a word, bool ``(size,)``, from a manifest's `continues`."""
    bits = np.frombuffer(base64.b64decode(continues), np.uint8)
    table = np.unpackbits(bits, count=size).astype(bool)
    table.flags.writeable = False
    return table
