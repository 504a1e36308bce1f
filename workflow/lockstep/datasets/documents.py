"""Texts from staged files, document by document.

`plain`     documents are separated by blank lines.
`wikitext`  a document begins at a line ``= Title =``; headings of its sections have more signs.
`jsonl`     a JSON object a line, a document its `text`.

Lines end with a line feed alone: what Python's `splitlines` takes for ends, such as a form feed or
U+2028, is part of many texts. A file whose name ends with ``.gz`` is decompressed.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from lockstep.datasets import staged
from lockstep.errors import UserError

KINDS = ("plain", "wikitext", "jsonl")
LONGEST = 1 << 26  # bytes of a line: what is longer was written without line ends
_TITLE = re.compile(r" ?= [^=].* = ?")
_BLANK = " \t\r"


def read(path: Path, kind: str) -> Iterator[str]:
    """Yield the documents of a file, none of them blank.

    Raises:
        UserError: by file and line: it cannot be read, is not UTF-8, has a line that is too long,
            or holds no document.
    """
    found = False
    for document in {"plain": _plain, "wikitext": _wikitext, "jsonl": _jsonl}[kind](path):
        if document.strip():
            found = True
            yield document
    if not found:
        raise UserError(f"{path}: holds no text")


def _plain(path: Path) -> Iterator[str]:
    document: list[str] = []
    for _, line in lines(path):
        if line.strip(_BLANK):
            document.append(line)
        elif document:
            yield "\n".join(document)
            document = []
    yield "\n".join(document)


def _wikitext(path: Path) -> Iterator[str]:
    document: list[str] = []
    for _, line in lines(path):
        if document and _TITLE.fullmatch(line):
            yield "\n".join(document)
            document = []
        if line.strip(_BLANK):
            document.append(line)
    yield "\n".join(document)


def _jsonl(path: Path) -> Iterator[str]:
    for number, line in lines(path):
        if not line.strip(_BLANK):
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: is not JSON ({error})") from error
        text = entry.get("text") if isinstance(entry, dict) else None
        if not isinstance(text, str):
            raise UserError(
                f"{path}, line {number}: has no `text`; each line must be an object such as "
                '{"text": "…"}'
            )
        # Half of a surrogate pair can be written in JSON, but is no text.
        yield text.encode("utf-8", "replace").decode()


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file with their numbers, without their ends.

    Raises:
        UserError: by file and line; see `read`.
    """
    number = 0
    try:
        with _opened(path) as stream:
            while line := stream.readline(LONGEST + 1):
                number += 1
                if len(line) > LONGEST:
                    raise UserError(
                        f"{path}, line {number}: is longer than {LONGEST >> 20} MiB; is it a text "
                        "with a line end after each paragraph?"
                    )
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                yield number, line.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}, line {number}: is not UTF-8 ({error.reason}); convert the file, with iconv "
            "for instance"
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged ({error}); fetch it again") from error
    except OSError as error:
        raise staged.unreadable(path, error) from error


def _opened(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")
