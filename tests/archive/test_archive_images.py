"""Archives of studies that ran in images: what the records say of them, and the images themselves.

The study is the one without images, whose records are made to say that they ran in some: images
that can train take a quarter of an hour to build.
"""

import json
import shutil
from pathlib import Path

import pytest

from lockstep import files
from lockstep.study import Study
from tests.archive import tamper
from tests.archive.archived import Archived, ask, findings, holds, make
from tests.end_to_end.checkout import Checkout
from tests.report.planted import changed


@pytest.fixture(scope="module")
def contained(archived: Archived, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The study, as if its runs had been made in finished images; their blocks and the report, made
    without, are gone.
    """
    folder = tmp_path_factory.mktemp("contained")
    checkout = archived.checkout.duplicate(folder / "lockstep")
    ready = {name: str(folder / f"{name}.sif") for name in ("base", "torch", "jax")}
    for name, path in ready.items():
        Path(path).write_bytes(name.encode() * 5000)
    config = checkout.results() / "study.json"
    changed(config, lambda told: told["images"].update(enabled=True, ready=ready))
    study, ran_in = Study.load(checkout.results()), {}
    for name, image in study.images.items():
        made = checkout.root / "data" / "images" / image.folder.name
        made.mkdir(parents=True)
        (made / "image.sif").symlink_to(ready[name])
        named = {"name": name, "identity": image.identity}
        sha256 = files.sha256_file(Path(ready[name]))
        told = {**named, "determined_by": {"ready": ready[name]}, "sif": {"sha256": sha256}}
        (made / "manifest.json").write_text(json.dumps(told))
        ran_in[name] = {**named, "sif_sha256": sha256}
    for run in study.runs:
        image = ran_in[study.framework(run)[0]]
        summary = study.run_folder(run) / "summary.json"
        changed(summary, lambda told, image=image: told["contract"]["host"].update(image=image))
    for name in ("blocks", "report"):
        shutil.rmtree(checkout.results() / name)
    return checkout


@pytest.fixture(scope="module")
def without(contained: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its archive without the images."""
    output = tmp_path_factory.mktemp("without") / "x.zip"
    return make(contained, output=str(output), partial=True)[0]


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


def test_images_are_archived_if_asked_for(contained: Checkout, without: Path) -> None:
    ask(contained, include={"images": True})
    whole, _ = make(contained, partial=True)
    assert sum(name.endswith("image.sif") for name in tamper.load(whole)) == 3
    assert holds(whole)


def test_an_image_of_another_hash_is_found(without: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(without, tmp_path))
    name = next(name for name in tamper.load(file) if name.startswith("data/images/jax"))
    other = {"sha256": "0" * 64}
    tamper.forge(file, lambda c: tamper.edit_json(c, name, lambda told: told["sif"].update(other)))
    says = "its image's sha256 is not that of data/images"
    assert any(says in problem for problem in findings(file))


def test_an_image_that_is_not_built_yet_is_not_told_of(contained: Checkout, tmp_path: Path) -> None:
    begun = contained.duplicate(tmp_path / "begun")
    shutil.rmtree(begun.results() / "runs")
    (image,) = (begun.root / "data" / "images").glob("jax-*")
    shutil.rmtree(image)
    file, _ = make(begun, partial=True)
    missing = tamper.about(file)["missing"]
    assert "data/images/jax-*/manifest.json" in missing  # no record says which
    assert "containerImage" not in tamper.graph(file)["#trace-mnist_cnn-jax-jit"]
    assert holds(file)
