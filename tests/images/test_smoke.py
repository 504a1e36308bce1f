"""What an image must be able to do before it is kept, as far as it needs no image to say so."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from lockstep import files
from lockstep.images import cache, enter, sif, smoke
from lockstep.images.study_image import StudyImage


@pytest.fixture(scope="module")
def base() -> ModuleType:
    """The smoke test of the base image, whose parts the others use."""
    spec = importlib.util.spec_from_file_location("smoke_base", smoke.SCRIPTS / "base.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_gpu_that_a_framework_does_not_see_is_a_failure(base: ModuleType, tmp_path: Path) -> None:
    control = tmp_path / "nvidiactl"
    base.require_gpu(False, control)
    control.touch()
    base.require_gpu(True, control)
    with pytest.raises(AssertionError, match="the framework cannot use it"):
        base.require_gpu(False, control)


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_both_frameworks_are_asked_for_the_gpu(name: str) -> None:
    assert "    base.require_gpu(" in (smoke.SCRIPTS / f"{name}.py").read_text()


def test_debians_packages_are_told_if_there_are_any(
    base: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert json.loads(base.report())["debian"] == {}
    query = tmp_path / "dpkg-query"
    query.write_text("#!/bin/sh\necho b=1:2=3\necho a=1\n")
    query.chmod(0o755)
    assert json.loads(base.report())["debian"] == {"a": "1", "b": "1:2=3"}


def test_a_smoke_test_is_held_to_the_driver_that_the_image_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Entered(Exception):
        pass

    def command(leave: enter.Pass, arguments: object) -> list[str]:
        raise Entered(leave.minimum_driver)

    monkeypatch.setattr(enter, "command", command)
    with pytest.raises(Entered, match="525"):
        smoke.test("torch", tmp_path / "x.sif", tmp_path, lock=None, minimum_driver="525")


def test_records_say_by_a_hash_which_debian_an_image_holds(tmp_path: Path) -> None:
    image = tmp_path / cache.SIF
    image.write_bytes(b"image")
    told = {key: key for key in ("name", "identity", "cuda_generation", "cuda", "python")}
    hashes = {"sha256": "s", "root_sha256": "r", "fingerprint": sif.fingerprint(image)}
    debian = {"libc6": "2.41"}
    files.write_json(
        tmp_path / cache.MANIFEST, {**told, "packages": {}, "sif": hashes, "debian": debian}
    )
    made = StudyImage(name="base", identity="i", folder=tmp_path, recipe=None, ready=image)
    assert made.facts()["debian"] == files.digest(debian)
