"""A SIF depends on its content, not on when and where it was made."""

import hashlib
import struct
from pathlib import Path

import pytest

from lockstep.errors import UserError
from lockstep.images import sif

DEFINITION = b"Bootstrap: oci\nFrom: root\n"
ROOT = bytes(range(256)) * 64


def raw(path: Path, *, identifier: bytes, time: int, label: bytes) -> Path:
    """Write a SIF as Apptainer does: with an identifier, times, and an object that holds a date."""
    content = bytearray(36864 + len(ROOT))
    objects = [(0x4001, 32176, DEFINITION), (0x4007, 33000, label), (0x4004, 36864, ROOT)]
    for row, (kind, offset, data) in enumerate(objects):
        fields = (kind, True, row + 1, 1, 0, offset, len(data), len(data), time, time, 0, 0)
        sif.DESCRIPTOR.pack_into(content, 4096 + row * 585, *fields, b"name", b"extra")
        content[offset : offset + len(data)] = data
    sizes = (45, 48, 4096, 48 * 585, 32176, len(content) - 32176)
    launch = b"#!/usr/bin/env run-singularity\n"
    sif.HEADER.pack_into(
        content, 0, launch, sif.MAGIC, b"01\0", b"02\0", identifier, time, time, *sizes
    )
    path.write_bytes(content)
    return path


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A SIF."""
    return raw(tmp_path / "one.sif", identifier=b"a" * 16, time=1, label=b"Monday")


def test_two_builds_of_one_content_become_the_same_file(one: Path, tmp_path: Path) -> None:
    two = raw(tmp_path / "two.sif", identifier=b"b" * 16, time=2, label=b"Wednesday")
    hashes = {sif.normalise(path, path.with_suffix(".out"), epoch=5) for path in (one, two)}
    assert len(hashes) == 1
    assert one.with_suffix(".out").read_bytes() == two.with_suffix(".out").read_bytes()


def test_what_is_kept_is_kept_whole(one: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.sif"
    whole_hash, root_hash = sif.normalise(one, out, epoch=5)
    assert whole_hash == hashlib.sha256(out.read_bytes()).hexdigest()
    found = {part.kind: b"".join(sif.content(out, part)) for part in sif.parts(out)}
    assert found == {sif.DEFINITION: DEFINITION, sif.PARTITION: ROOT}
    assert sif.root_sha256(out) == sif.root_sha256(one) == root_hash
    assert sif.partition(out).offset % sif.ALIGNMENT == 0


def test_a_cut_image_is_found(one: Path) -> None:
    one.write_bytes(one.read_bytes()[:-1])
    with pytest.raises(UserError, match="ends too early"):
        sif.parts(one)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.sif"
    path.write_bytes(b"#!/bin/sh\n" * 100)
    with pytest.raises(UserError, match="not a SIF"):
        sif.partition(path)
    path.write_bytes(struct.pack("<q", 1))
    with pytest.raises(UserError, match="not a SIF"):
        sif.partition(path)


def test_a_fingerprint_follows_the_content_not_the_time(one: Path) -> None:
    before = sif.fingerprint(one)
    one.touch()
    assert sif.fingerprint(one) == before
    one.write_bytes(one.read_bytes() + b"x")
    assert sif.fingerprint(one) != before
