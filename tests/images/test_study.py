"""The demo study in images: every stage, on a CPU, by an ordinary user."""

import copy
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from lockstep.records import parity_verdict
from lockstep.study import Study
from tests import pictures, texts
from tests.end_to_end.test_language import STUDY as WORDS
from tests.images.conftest import REPOSITORY, Machine

CONFIG = ("demo/config.yaml", "demo/containers.yaml")  # as `make demo-containers` has them
TOLERANCE = 1e-11  # relative, of float64


@pytest.fixture(scope="module")
def snakemake(machine: Machine, cache: Path):
    """Run the workflow on the machine, on the demo's config or another; returns what it said."""

    def run(*arguments: str, config: Sequence[str] = CONFIG, status: int = 0) -> str:
        answer = machine.run(
            "env",
            f"LOCKSTEP_IMAGE_CACHE={cache}",
            *(machine.python, "-m", "snakemake", "--profile", "profiles/local"),
            *("--configfile", *config, *arguments),
            status=status,
        )
        return answer.stdout + answer.stderr

    return run


@pytest.fixture(scope="module")
def study(machine: Machine, base: Path, cache: Path) -> Path:
    """The study's results."""
    if "images" not in os.environ.get("LOCKSTEP_REQUIRE", "").split(","):
        pytest.skip("builds both CUDA images: a quarter of an hour, 24 GB; LOCKSTEP_REQUIRE=images")
    told = machine.run(
        *("env", f"LOCKSTEP_IMAGE_CACHE={cache}"),
        *("make", f"VENV={machine.venv}", "demo-containers"),
    ).stdout
    assert "FAIL" not in told
    assert re.search(r"^mnist_cnn at 1x1: ", told, re.MULTILINE)  # the verdict
    return machine.repository / "results" / "demo-containers"


def jobs(text: str) -> set[str]:
    """Return the rules of which jobs are started, by Snakemake's own table."""
    return set(re.findall(r"^(\w+) +\d+$", text, re.MULTILINE)) - {"total"}


def test_runs_say_in_which_image_they_were_made(study: Path, machine: Machine) -> None:
    paths = list(study.glob("runs/mnist_cnn/*/*/*/summary.json"))
    assert len(paths) == len(Study.load(study / "study.json").runs)
    for path in paths:
        package = path.parts[-4].partition("-")[0]
        summary = json.loads(path.read_text())
        assert summary["status"] == "finished"
        image = summary["contract"]["host"]["image"]
        (manifest,) = machine.repository.glob(f"data/images/{package}-*/manifest.json")
        made = json.loads(manifest.read_text())
        assert image["sif_sha256"] == made["sif"]["sha256"]
        assert image["packages"][package] == made["packages"][package]
        assert image["cuda"].keys() == {"runtime", "cudnn", "nccl", "minimum_driver"}
        assert summary["contract"]["determined_by"]["environment"] == {"image": made["identity"]}


def test_workers_are_quiet(study: Path) -> None:
    for log in study.glob("logs/*/**/*.log"):
        if "images" not in log.parts:
            noise = [
                line
                for line in log.read_text().splitlines()
                if re.search(r"warn|error|cuda|traceback", line, re.IGNORECASE)
            ]
            assert noise == [], log


def test_nothing_is_done_twice(study: Path, snakemake) -> None:
    assert jobs(snakemake("--dry-run", "--quiet", "host")) == set()


def test_to_look_at_all_images_takes_less_than_a_second(study: Path, machine: Machine) -> None:
    look = """if True:
        import sys, time
        from pathlib import Path
        start = time.monotonic()
        from lockstep.study import Study
        images = Study.load(Path(sys.argv[1])).images
        assert {image.facts()["identity"] for image in images.values()}
        print(time.monotonic() - start)
    """
    answer = machine.run(machine.python, "-c", look, str(study / "study.json"))
    assert float(answer.stdout) < 1


def test_touched_files_change_nothing(study: Path, machine: Machine, snakemake) -> None:
    for path in (
        *(machine.repository / "containers").rglob("*"),
        *machine.repository.glob("data/images/*/image.sif"),
    ):
        path.touch()
    assert jobs(snakemake("--dry-run", "--quiet", "host")) == set()


def test_an_edited_recipe_runs_exactly_what_depends_on_it(
    study: Path, machine: Machine, snakemake
) -> None:
    recipe = machine.repository / "containers" / "jax.def"
    before = recipe.read_text()
    recipe.write_text(before + "\n# edited\n")
    try:
        text = snakemake("--dry-run", "--quiet", "host")
    finally:
        recipe.write_text(before)
    assert jobs(text) == {"image", "trace", "compare_traces", "train", "report", "all"}
    told = re.findall(r"^Job \d+: (.*)", text, re.MULTILINE)
    assert "Trace mnist_cnn as jax-jit for parity" in told
    assert "as torch-" not in "".join(told)


def test_a_fresh_clone_takes_its_images_from_the_cache(
    study: Path, machine: Machine, snakemake
) -> None:
    for path in machine.repository.glob("data/images/*/*"):
        path.unlink()
    text = snakemake("--quiet", "host", "--", "images")
    assert "image" in jobs(text)
    for log in study.glob("logs/images/*.log"):
        assert "building" not in log.read_text()
    assert jobs(snakemake("--dry-run", "--quiet", "host")) == set()


def test_the_study_is_archived_with_its_images(study: Path, machine: Machine, snakemake) -> None:
    more = machine.repository / "more.yaml"
    more.write_text("archive: {include: {images: true, checkpoints: true}}\n")
    machine.give(more)
    try:
        text = snakemake(more.name, "--quiet", "host", "--", "archive")
    finally:
        more.unlink()
    assert jobs(text) == {"archive"}  # how a study is archived makes none of it again
    file = study.with_name(f"{study.name}.crate.zip")
    said = machine.run(machine.python, "-m", "lockstep", "verify", str(file)).stdout
    assert said.endswith(f"{file}: holds\n"), said
    with zipfile.ZipFile(file) as archive:
        images = [name for name in archive.namelist() if name.endswith(".sif")]
    assert len(images) == 3, images
    file.unlink()


def test_photographs_climb_over_two_processes(study: Path, machine: Machine, snakemake) -> None:
    config = yaml.safe_load((REPOSITORY / "demo" / "cifar10.yaml").read_text())
    raw = pictures.cifar10(machine.make_folder("photographs"), 64, 10)
    config["datasets"]["cifar10"]["raw"] = str(raw)
    config["workloads"]["resnet18_cifar10"]["model"] = {"blocks": [1, 1], "width": 8}
    config |= {
        "study": "photographs",
        "scales": ["1x2"],
        "images": {"enabled": True},
        "parity": {"steps": 5, "float32_steps": 3},
    }
    path = machine.repository / "photographs.yaml"
    path.write_text(yaml.safe_dump(config))
    machine.give(raw, path)
    snakemake("--", "parity", config=(path.name,))
    verdict = study.with_name("photographs") / "parity" / "resnet18_cifar10" / "verdict.json"
    (compared,) = json.loads(verdict.read_text())["comparisons"].values()
    rungs = {(rung["precision"], rung["name"]): rung["passed"] for rung in compared["rungs"]}
    assert set(rungs.values()) == {True}
    assert rungs.keys() >= parity_verdict.OVER_SEVERAL


def test_bert_learns_from_text(study: Path, machine: Machine, snakemake) -> None:
    raw = texts.write(machine.make_folder("texts"))
    config = copy.deepcopy(WORDS) | {"images": {"enabled": True}}
    config["datasets"]["corpus"]["raw"] = str(raw)
    path = machine.repository / "words.yaml"
    path.write_text(yaml.safe_dump(config))
    machine.give(raw, path)
    snakemake("--", "archive", config=(path.name,))
    made = study.with_name(config["study"])
    report = json.loads((made / "report" / "report.json").read_text())
    assert not report["partial"]
    assert made.with_name(f"{made.name}.crate.zip").is_file()


@pytest.mark.parametrize("variant", ["torch-eager", "jax-jit"])
def test_float64_is_the_same_inside_and_outside(
    study: Path, machine: Machine, tmp_path: Path, variant: str
) -> None:
    framework = variant.partition("-")[0]
    pytest.importorskip(framework)
    # The same study, with this machine's own packages: same dataset, same weights.
    config = json.loads((study / "study.json").read_text())
    config["images"]["enabled"] = False
    config["paths"] = {name: str(tmp_path / name) for name in ("results", "data")}
    outside = tmp_path / "results" / study.name
    outside.mkdir(parents=True)
    (outside / "study.json").write_text(json.dumps(config))
    for command in (
        ["preprocess", "--dataset", "digits"],
        ["weights", "--workload", "mnist_cnn", "--seed", "0"],
        ["trace", "--workload", "mnist_cnn", "--variant", variant],
    ):
        line = [sys.executable, "-m", "lockstep", *command, "--study", outside / "study.json"]
        package = str(REPOSITORY / "workflow")
        subprocess.run(line, check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": package})
    assert (
        differences(
            study / "parity" / "mnist_cnn" / f"{variant}.npz",
            outside / "parity" / "mnist_cnn" / f"{variant}.npz",
        )
        == {}
    )


def differences(one: Path, other: Path) -> dict[str, float]:
    """Return the float64 arrays of two traces that differ by more than the tolerance."""
    found = {}
    with np.load(one) as ours, np.load(other) as theirs:
        assert ours.files == theirs.files
        for name in ours.files:
            if name.startswith("float64/") and ours[name].dtype == np.float64:
                scale = max(np.linalg.norm(ours[name]), 1e-6)
                found[name] = float(np.linalg.norm(ours[name] - theirs[name]) / scale)
    assert len(found) > 10
    print(f"largest difference: {max(found.values()):.1e}")
    return {name: value for name, value in found.items() if value > TOLERANCE}
