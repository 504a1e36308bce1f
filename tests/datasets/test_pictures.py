"""One picture: which conversions are counted, and that no damage is more than a refusal."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lockstep.datasets import pictures
from lockstep.datasets.survey import Undecodable
from tests.datasets import pictures as drawn

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PALETTE = (b"PLTE", bytes(range(240)) + bytes(48))


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(depth: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 8x8 pixels, as its standard has it and no writer is needed for."""
    row = b"\0" + bytes(range(8 * CHANNELS[colour] * depth // 8))
    header = struct.pack(">IIBBBBB", 8, 8, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(row * 8)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


KINDS = {
    "colour": (png(8, 2), ""),
    "grey": (png(8, 0), "grayscale"),
    "black and white": (png(1, 0), "grayscale"),
    "grey, transparent": (png(8, 4), "grayscale, transparent"),
    "colour, transparent": (png(8, 6), "transparent"),
    "palette": (png(8, 3, PALETTE), "palette"),
    "palette, transparent": (png(8, 3, PALETTE, (b"tRNS", b"\0\xff")), "palette, transparent"),
    "one colour transparent": (png(8, 2, (b"tRNS", b"\0\1\0\2\0\3")), "transparent"),
    "deep": (png(16, 2), "16 bits a channel"),
    "deep, transparent": (png(16, 6), "16 bits a channel, transparent"),
    "deep grey, transparent": (png(16, 4), "16 bits a channel, grayscale, transparent"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_dropped_or_converted_is_counted(kind: str) -> None:
    content, counted = KINDS[kind]
    pixels, notes = pictures.square(content, 8)
    assert ", ".join(sorted(set(notes) - {"PNG"})) == counted
    assert pixels.shape == (8, 8, 3)


def several(kind: str) -> bytes:
    stream = io.BytesIO()
    first, second = (Image.fromarray(drawn.pixels(seed, 8, 8)) for seed in (1, 2))
    first.save(stream, kind, save_all=True, append_images=[second])
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["MPO", "PNG"])  # a phone's, which is a JPEG; an animation
def test_of_several_pictures_in_a_file_the_first_is_taken_and_counted(kind: str) -> None:
    pixels, notes = pictures.square(several(kind), 8)
    assert "several pictures" in notes
    first, second = (abs(pixels - drawn.pixels(s, 8, 8).astype(int)).mean() for s in (1, 2))
    assert first < second / 2


def test_of_sixteen_bits_the_upper_eight_are_kept() -> None:
    pixels, _ = pictures.square(png(16, 2), 8)
    np.testing.assert_array_equal(pixels[0].reshape(-1), np.arange(0, 48, 2))


def test_grayscale_of_sixteen_bits_is_refused_in_words() -> None:
    with pytest.raises(Undecodable, match="is grayscale of 16 bits; convert it to 8 bits"):
        pictures.square(png(16, 0), 8)


def test_a_palette_that_is_missing_is_damage_like_any_other() -> None:
    """Pillow raises AssertionError."""
    with pytest.raises(Undecodable, match="damaged"):
        pictures.square(png(8, 3, (b"tRNS", b"\xff\0\xff\xff")), 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_flipped_bit_is_seen_or_decodes(kind: str) -> None:
    content = drawn.jpeg(drawn.pixels(1, 40, 30), kind=kind)
    for position in range(0, min(len(content), 900), 3):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        try:
            assert pictures.square(bytes(damaged), 8)[0].shape == (8, 8, 3)
        except Undecodable as error:
            assert str(error)
