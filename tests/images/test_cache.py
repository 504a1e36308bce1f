"""The cache of images: an entry is whole or is none, and a study's copy is the entry's."""

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from lockstep import files
from lockstep.errors import UserError
from lockstep.images import build, cache, sif
from tests.conftest import small_disk

IDENTITY = "1234" * 16


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    """An image's folder in the cache."""
    folder = tmp_path / "cache" / "torch-1234"
    folder.mkdir(parents=True)
    image = folder / cache.SIF
    image.write_bytes(bytes(range(256)) * 20_000)
    facts = {
        "sha256": files.sha256_file(image),
        "size": image.stat().st_size,
        "fingerprint": sif.fingerprint(image),
    }
    files.write_json(
        folder / cache.MANIFEST, {"schema": cache.SCHEMA, "identity": IDENTITY, "sif": facts}
    )
    return folder


def damage(folder: Path) -> str | None:
    """Return what is wrong with an entry."""
    return cache.damage(folder, IDENTITY)


def flip_a_bit(path: Path, offset: int) -> None:
    """Damage a file as a disk does: its size and times stay."""
    with open(path, "r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([byte[0] ^ 1]))


def test_a_whole_entry_is_sound(entry: Path) -> None:
    assert damage(entry) is None


def test_every_kind_of_damage_is_found(entry: Path, tmp_path: Path) -> None:
    def damaged(name: str) -> Path:
        return Path(shutil.copytree(entry, tmp_path / name))

    assert damage(tmp_path / "nowhere") == "not there"
    one = damaged("flipped")
    flip_a_bit(one / cache.SIF, 2_500_000)
    assert "instead of" in damage(one)
    one = damaged("cut")
    (one / cache.SIF).write_bytes(b"cut")
    assert "has 3 bytes instead of 5120000" in damage(one)
    one = damaged("without image")
    (one / cache.SIF).unlink()
    assert "is missing" in damage(one)
    one = damaged("without manifest")
    (one / cache.MANIFEST).unlink()
    assert "no such file" in damage(one)


@pytest.mark.parametrize("change", [("schema",), ("identity",), ("sif", "fingerprint")])
def test_a_manifest_of_another_image_is_damage(entry: Path, change: tuple[str, ...]) -> None:
    manifest = files.read_json(entry / cache.MANIFEST)
    inner = manifest["sif"] if len(change) > 1 else manifest
    inner[change[-1]] = "another"
    files.write_json(entry / cache.MANIFEST, manifest)
    assert "is not that of this image" in damage(entry)
    del inner[change[-1]]
    files.write_json(entry / cache.MANIFEST, manifest)
    assert change[-1] in damage(entry)


def test_what_a_killed_build_had_half_brought_is_removed(entry: Path) -> None:
    left = entry.with_name(f".{entry.name}.1234.tmp")
    left.mkdir()
    (left / cache.SIF).touch()
    with cache.alone(entry):
        assert not left.exists()
    assert damage(entry) is None


def test_a_cache_that_cannot_be_written_is_read(tmp_path: Path, entry: Path) -> None:
    with small_disk(tmp_path / "small", "50m") as disk:
        folder = Path(shutil.copytree(entry, disk / entry.name))
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        recipe = SimpleNamespace(folder=folder.name, identity=IDENTITY)
        settings = SimpleNamespace(cache=disk)
        assert build.ensure(recipe, settings) == folder
        recipe.folder = "torch-5678"
        with pytest.raises(UserError, match=r"read-only file system\); set images\.cache to"):
            build.ensure(recipe, settings)


def test_a_copy_for_which_there_is_no_space_is_not_begun(tmp_path: Path, entry: Path) -> None:
    with small_disk(tmp_path / "small", "2m") as disk:
        target = disk / "study"
        for how in ("copy", "hardlink"):
            with pytest.raises(UserError, match=r"a copy of torch-1234 needs.*images\.place"):
                cache.place(entry, target, how)
        assert list(target.iterdir()) == []


def test_a_disk_that_fills_during_a_copy_is_no_traceback(
    tmp_path: Path, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache.host, "require", lambda *_: None)
    with small_disk(tmp_path / "small", "2m") as disk:
        with pytest.raises(UserError, match="no space left on device"):
            cache.place(entry, disk / "study", "copy")
        assert list((disk / "study").iterdir()) == []


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
