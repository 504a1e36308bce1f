"""Clicks in tab-separated files as Criteo published them, parsed by whole blocks with NumPy.

A line has 40 fields and no header: a label, 13 integers, which may be negative, and 26 categories,
each of up to eight hexadecimal digits. A field may be empty, at the end of a line, too. Files whose
names end with ``.gz`` are decompressed.
"""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np

from lockstep.datasets import staged
from lockstep.errors import UserError

NUMBERS, CATEGORIES = 13, 26
FIELDS = 1 + NUMBERS + CATEGORIES
MISSING = -1  # as a category
BLOCK = 1 << 22  # bytes that are parsed at once
LONGEST = 1 << 20  # bytes of a line
SPARE = 16  # bytes behind a block that a field may seem to reach into

_NIBBLES = np.full(256, 255, np.uint8)
for _digit in "0123456789abcdefABCDEF":
    _NIBBLES[ord(_digit)] = int(_digit, 16)


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some lines of a file.

    Attributes:
        click: 0 or 1, uint8 ``(N,)``.
        numbers: int32 ``(N, 13)``, 0 where one is missing.
        categories: values of 32 bits, or `MISSING`, int64 ``(N, 26)``.
    """

    click: np.ndarray
    numbers: np.ndarray
    categories: np.ndarray


def read(path: Path) -> Iterator[Block]:
    """Yield the blocks of a file.

    Raises:
        UserError: by file and line: it cannot be read, or a line is not as it should be.
    """
    line, rest = 1, b""
    try:
        with _opened(path) as stream:
            while data := stream.read(BLOCK):
                data = rest + data
                end = data.rfind(b"\n") + 1
                rest = data[end:]
                if len(rest) > LONGEST:
                    raise _wrong(path, line + data.count(b"\n"), "is longer than a line of clicks")
                if end:
                    block = _parsed(data[:end], path, line)
                    line += len(block.click)
                    yield block
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged ({error}); fetch it again") from error
    except OSError as error:
        raise staged.unreadable(path, error) from error
    if rest:
        yield _parsed(rest + b"\n", path, line)
    elif line == 1:
        raise UserError(f"{path}: holds no lines")


def _opened(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _parsed(data: bytes, path: Path, first: int) -> Block:
    """Return what whole lines say; `first` is the number of the first one."""
    text = np.frombuffer(data + bytes(SPARE), np.uint8)
    (places,) = np.nonzero((text[: len(data)] == ord("\t")) | (text[: len(data)] == ord("\n")))
    (lines,) = np.nonzero(text[places] == ord("\n"))
    counts = np.diff(lines, prepend=-1)
    if (counts != FIELDS).any():
        row = int(np.argmax(counts != FIELDS))
        raise _wrong(
            path, first + row, f"has {counts[row]} fields, not {FIELDS}; tabs separate them"
        )
    starts = np.concatenate([[0], places[:-1] + 1]).reshape(-1, FIELDS)
    ends = places.reshape(-1, FIELDS).copy()
    ends[:, -1] -= text[ends[:, -1] - 1] == ord("\r")

    def refuse(wrong: np.ndarray, column: int, what: str) -> None:
        """Name the first field, row by row, that is wrong."""
        if wrong.any():
            row, field = np.unravel_index(np.argmax(wrong), wrong.shape)
            start, end = starts[row, column + field], ends[row, column + field]
            found = data[start : min(end, start + 40)].decode("utf-8", "replace")
            where = f"field {column + field + 1} is {found!r}"
            raise _wrong(path, first + int(row), f"{where}; {what}")

    label = text[starts[:, :1]] - np.uint8(ord("0"))
    width = ends - starts
    refuse((width[:, :1] != 1) | (label > 1), 0, "the label must be 0 or 1")
    numbers, wrong = _integers(text, starts[:, 1 : 1 + NUMBERS], width[:, 1 : 1 + NUMBERS])
    refuse(wrong, 1, "it must be an integer of 32 bits, or empty")
    categories, wrong = _hexadecimals(text, starts[:, 1 + NUMBERS :], width[:, 1 + NUMBERS :])
    refuse(wrong, 1 + NUMBERS, "it must be up to eight hexadecimal digits, or empty")
    return Block(click=label[:, 0], numbers=numbers, categories=categories)


def _wrong(path: Path, line: int, what: str) -> UserError:
    return UserError(f"{path}, line {line}: {what}")


def _integers(
    text: np.ndarray, starts: np.ndarray, width: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return decimal integers, int32, 0 for empty fields; and which fields are none."""
    negative = (text[starts] == ord("-")) & (width > 0)
    places, digits = starts + negative, width - negative
    wrong = (digits > 10) | (negative & (digits == 0))
    values = np.zeros(starts.shape, np.int64)
    for k in range(min(10, int(digits.max(initial=0)))):
        (rows, columns) = np.nonzero(digits > k)
        digit = text[places[rows, columns] + k] - np.uint8(ord("0"))
        wrong[rows, columns] |= digit > 9
        values[rows, columns] = values[rows, columns] * 10 + digit
    values = np.where(negative, -values, values)
    wrong |= (values < -(1 << 31)) | (values >= 1 << 31)
    return values.astype(np.int32), wrong


def _hexadecimals(
    text: np.ndarray, starts: np.ndarray, width: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return hexadecimal integers, int64, `MISSING` for empty fields; and which fields are none."""
    wrong = width > 8
    values = np.zeros(starts.shape, np.uint32)
    for k in range(min(8, int(width.max(initial=0)))):
        nibble, inside = _NIBBLES[text[starts + k]], width > k
        wrong |= inside & (nibble > 15)
        values = np.where(inside, values << np.uint32(4) | nibble, values)
    return np.where(width == 0, MISSING, values.astype(np.int64)), wrong
