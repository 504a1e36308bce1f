"""Archives of studies that ran in images: what the records say of them, and the images themselves.

The study is the one without images, whose records are made to say that they ran in some: images
that can train take a quarter of an hour to build.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lockstep import files
from lockstep.images.sif import fingerprint
from lockstep.study import Study
from lockstep.study.run import Run
from tests.archive import tamper
from tests.archive.archived import Archived, ask, findings, holds, make
from tests.end_to_end.checkout import Checkout

NAMES = ("base", "torch", "jax")


@pytest.fixture(scope="module")
def contained(archived: Archived, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The study, as if every stage had run in a finished image."""
    folder = tmp_path_factory.mktemp("contained")
    checkout = archived.checkout.duplicate(folder / "lockstep")
    ready = {name: str(folder / f"{name}.sif") for name in NAMES}
    for name, path in ready.items():
        Path(path).write_bytes(name.encode() * 5000)

    def asked(config: dict) -> None:
        config["images"] |= {"enabled": True, "ready": ready}

    edit(checkout.results() / "study.json", asked)
    study = Study.at(checkout.results())
    study.data = checkout.root / "data"
    told = {name: manifest(name, image.identity, Path(ready[name]),
                           checkout.root / "data" / "images" / image.folder.name)
            for name, image in study.images.items()}  # fmt: skip
    for run in study.runs:
        edit_run(study, run, told[study.framework(run)[0]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCKSTEP_INSIDE", study.images["base"].identity)
        checkout.lockstep("report", "--study", "results/small/study.json")
    return checkout


def edit(path: Path, change: Callable[[dict], object]) -> None:
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


def manifest(name: str, identity: str, image: Path, folder: Path) -> dict:
    """Put an image and its manifest to where a study has them."""
    sif = {"sha256": files.sha256_file(image), "fingerprint": fingerprint(image)}
    told = {"name": name, "identity": identity, "determined_by": {"ready": str(image)}, "sif": sif}
    folder.mkdir(parents=True)
    (folder / "image.sif").symlink_to(image)
    (folder / "manifest.json").write_text(json.dumps(told))
    return told


def edit_run(study: Study, run: Run, image: dict) -> None:
    """Make a run's records say that it ran in an image."""
    path = study.run_folder(run) / "summary.json"
    named = {"name": image["name"], "identity": image["identity"]}

    def inside(summary: dict) -> None:
        contract = summary["contract"]
        contract["host"]["image"] = {**named, "sif_sha256": image["sif"]["sha256"]}
        contract["determined_by"]["environment"] = {"image": image["identity"]}
        summary["identity"] = files.digest(contract["determined_by"])

    def bound(block: dict) -> None:
        entry = block["runs"][run.name]
        entry["identity"] = files.read_json(path)["identity"]
        entry["sha256"]["summary.json"] = files.sha256_file(path)

    edit(path, inside)
    edit(study.manifest(run.name), bound)


@pytest.fixture(scope="module")
def without(contained: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its archive without the images."""
    return make(contained, output=str(tmp_path_factory.mktemp("without") / "x.zip"))[0]


@pytest.fixture(scope="module")
def whole(without: Path, contained: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its archive with the images."""
    ask(contained, include={"images": True})
    return make(contained, output=str(tmp_path_factory.mktemp("whole") / "x.zip"))[0]


def test_images_are_named_by_identity_and_hash(contained: Checkout, without: Path) -> None:
    contents = tamper.load(without)
    held = [name for name in contents if name.startswith("data/images/")]
    assert len(held) == 3 and all(name.endswith("/manifest.json") for name in held)
    graph = tamper.graph(without)
    image = graph["#train-mnist_cnn/jax-jit/1x1/seed-0"]["containerImage"]["@id"]
    assert image.startswith("#image-jax-") and graph[image]["@type"] == "ContainerImage"
    assert holds(without)
    for name, content in contents.items():
        assert str(contained.root.parent).encode() not in content, name


def test_archived_images_are_those_of_their_manifests(whole: Path, tmp_path: Path) -> None:
    held = [name for name in tamper.load(whole) if name.endswith("image.sif")]
    assert len(held) == 3 and holds(whole)
    file = Path(shutil.copy(whole, tmp_path))
    other = next(name for name in held if "/jax" in name)
    tamper.forge(file, lambda contents: contents.update({other: b"another image"}))
    assert f"{other}: is not what its manifest has the hash of" in findings(file)


def test_an_image_of_another_hash_is_found(without: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(without, tmp_path))
    name = next(name for name in tamper.load(file) if name.startswith("data/images/jax"))
    other = {"sha256": "0" * 64}
    tamper.forge(file, lambda c: tamper.edit_json(c, name, lambda told: told["sif"].update(other)))
    says = "its image's sha256 is not that of data/images"
    assert any(says in problem for problem in findings(file))


def test_an_image_that_is_not_built_yet_is_not_told_of(contained: Checkout, tmp_path: Path) -> None:
    begun = contained.duplicate(tmp_path / "begun")
    for name in ("runs", "blocks", "report"):
        shutil.rmtree(begun.results() / name)
    (image,) = (begun.root / "data" / "images").glob("jax-*")
    shutil.rmtree(image)
    file, _ = make(begun, partial=True)
    missing = tamper.about(file)["missing"]
    assert "data/images/jax-*/manifest.json" in missing  # no record says which
    assert "containerImage" not in tamper.graph(file)["#trace-mnist_cnn-jax-jit"]
    assert holds(file)
