"""The cache of images: an entry is whole or is none, and a study's copy is the entry's."""

import shutil
from pathlib import Path

import pytest

from lockstep import files
from lockstep.errors import UserError
from lockstep.images import cache, sif


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    """An image's folder in the cache."""
    folder = tmp_path / "cache" / "torch-1234"
    folder.mkdir(parents=True)
    image = folder / cache.SIF
    image.write_bytes(bytes(range(256)) * 20_000)
    facts = {"size": image.stat().st_size, "fingerprint": sif.fingerprint(image)}
    files.write_json(
        folder / cache.MANIFEST, {"sif": {**facts, "sha256": files.sha256_file(image)}}
    )
    return folder


def flip_a_bit(path: Path, offset: int) -> None:
    """Damage a file as a disk does: its size and times stay."""
    with open(path, "r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([byte[0] ^ 1]))


def test_a_whole_entry_is_sound(entry: Path) -> None:
    assert cache.damage(entry) is None


def test_every_kind_of_damage_is_found(entry: Path, tmp_path: Path) -> None:
    def damaged(name: str) -> Path:
        return Path(shutil.copytree(entry, tmp_path / name))

    assert cache.damage(tmp_path / "nowhere") == "not there"
    one = damaged("flipped")
    flip_a_bit(one / cache.SIF, 2_500_000)
    assert "instead of" in cache.damage(one)
    one = damaged("cut")
    (one / cache.SIF).write_bytes(b"cut")
    assert "has 3 bytes instead of 5120000" in cache.damage(one)
    one = damaged("without image")
    (one / cache.SIF).unlink()
    assert "is missing" in cache.damage(one)
    one = damaged("without manifest")
    (one / cache.MANIFEST).unlink()
    assert "no such file" in cache.damage(one)


@pytest.mark.parametrize("how", ["hardlink", "copy", "symlink"])
def test_a_study_gets_the_same_image_whatever_was_there(
    entry: Path, tmp_path: Path, how: str
) -> None:
    target = tmp_path / "study" / "torch-1234"
    for _ in range(2):
        cache.place(entry, target, how)
        assert files.sha256_file(target / cache.SIF) == files.sha256_file(entry / cache.SIF)
        cache.check(target / cache.SIF, files.read_json(target / cache.MANIFEST))
        assert sorted(path.name for path in target.iterdir()) == [cache.SIF, cache.MANIFEST]
    assert (target / cache.SIF).is_symlink() == (how == "symlink")
    assert (target / cache.SIF).samefile(entry / cache.SIF) == (how != "copy")


def test_a_job_finds_an_image_that_was_cut_or_replaced(entry: Path, tmp_path: Path) -> None:
    target = tmp_path / "study"
    cache.place(entry, target, "copy")
    manifest = files.read_json(target / cache.MANIFEST)
    for content in (b"another", (entry / cache.SIF).read_bytes()[:-1]):
        (target / cache.SIF).write_bytes(content)
        with pytest.raises(UserError, match=r"damaged or replaced\); remove .* and run the stage"):
            cache.check(target / cache.SIF, manifest)
