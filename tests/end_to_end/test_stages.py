"""Each stage by its name, what a person sees of it, and nothing done twice."""

import json
import re
from pathlib import Path

import pytest

from tests.end_to_end.checkout import BLOCKS, Checkout, small
from tests.end_to_end.conftest import Finished


def folders(names: set[str]) -> set[str]:
    """The parts of the study that files belong to."""
    return {"/".join(name.split("/")[: 3 if name.startswith("results") else 2]) for name in names}


@pytest.mark.parametrize(
    ("stage", "parts"),
    [
        ("images", {"results/small/study.json"}),
        ("datasets", {"data/datasets"}),
        ("parity", {"results/small/weights", "results/small/parity"}),
        ("runs", {f"results/small/{name}" for name in ("runs", "blocks", "states")}),
        ("report", {"results/small/report"}),
    ],
)
def test_a_stage_does_its_part_and_no_more(finished: Finished, stage: str, parts: set[str]) -> None:
    assert folders(finished.made[stage]) == parts


def test_all_runs_have_their_records(finished: Finished) -> None:
    for block in BLOCKS:
        folder = finished.checkout.results() / "runs" / block
        assert json.loads((folder / "summary.json").read_text())["status"] == "finished"
        assert not (folder / "failure.json").exists()
    report = json.loads((finished.checkout.results() / "report" / "report.json").read_text())
    assert report["runs"] == {"finished": 2}
    assert not report["partial"]


def test_a_person_sees_one_line_a_job_and_the_verdict(finished: Finished) -> None:
    assert finished.said["images"].jobs == {
        "This study has no images; images.enabled: true in its config gives it some"
    }
    assert finished.said["datasets"].jobs == {"Preprocess digits", "The datasets are there"}
    assert finished.said["runs"].jobs == {
        *(f"Train {block}" for block in BLOCKS),
        "The runs have their records",
    }
    last = finished.said["report"].text.splitlines()
    told = next(k for k, line in enumerate(last) if line == "study small: 2 runs finished")
    assert last[told + 1].startswith("mnist_cnn at 1x1: jax-jit took ")
    assert last[told + 2] == "report: results/small/report/index.html"


def test_snakemakes_own_report_has_captions_and_categories(
    finished: Finished, tmp_path: Path
) -> None:
    finished.checkout.snakemake("--report", tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    for category in ("Comparison", "Tables", "Figures"):
        assert f'"{category}": {{' in text
    assert "The comparison of study small: the verdicts" in text
    for kind in ("Table", "Figure"):
        assert f"{kind} mnist_cnn-step-time of the comparison" in text


def test_nothing_that_looks_like_an_error_is_shown_or_logged(finished: Finished) -> None:
    logs = {str(path): path.read_text() for path in finished.checkout.results().rglob("*.log")}
    shown = {stage: said.text for stage, said in finished.said.items()}
    for name, text in (logs | shown).items():
        noise = re.findall(r"(?im)^.*(?:traceback|warn|error|deprecat|exception).*$", text)
        assert noise == [], name


def test_logs_are_named_after_what_they_tell_of(finished: Finished) -> None:
    root = finished.checkout.results() / "logs"
    names = {str(path.relative_to(root)) for path in root.rglob("*.log")}
    identity = next((finished.checkout.root / "data" / "datasets").iterdir()).name
    assert names == {
        f"preprocess/{identity}.log",
        "weights/mnist_cnn/seed-0.log",
        "trace/mnist_cnn/torch-eager.log",
        "trace/mnist_cnn/jax-jit.log",
        "parity/mnist_cnn.log",
        *(f"train/{block}.log" for block in BLOCKS),
        "report.log",
    }
    for block in BLOCKS:
        assert (
            f"{block}: epoch 4  step 92  train_loss"
            in (root / "train" / f"{block}.log").read_text()
        )


def test_a_second_time_there_is_nothing_to_be_done(finished: Finished) -> None:
    before = finished.checkout.files()
    said = finished.checkout.snakemake()
    assert "Nothing to be done" in said.text
    assert said.text.splitlines()[-1] == "report: results/small/report/index.html"
    assert finished.checkout.files() == before


def test_another_study_shares_the_dataset_and_nothing_else(copied: Checkout) -> None:
    before = copied.files()
    said = copied.snakemake("parity", study=small(study="other", parity__steps=2))
    assert "Preprocess digits" not in said.jobs
    assert "Make the weights of mnist_cnn, seed 0" in said.jobs
    after = copied.files()
    assert {name for name in after if before.get(name) != after[name]} == {
        f"results/other/{name}"
        for name in (
            "study.json",
            "weights/mnist_cnn/seed-0.safetensors",
            *(f"parity/mnist_cnn/{file}" for file in ("torch-eager.npz", "jax-jit.npz")),
            *(f"parity/mnist_cnn/{file}" for file in ("verdict.json", "passed.json")),
        )
    }
    assert copied.planned(study=small()) == set()


def test_a_configured_folder_takes_everything(clone: Checkout, tmp_path: Path) -> None:
    paths = {"results": str(tmp_path / "out"), "data": str(tmp_path / "in")}
    clone.snakemake("datasets", study=small(paths=paths))
    assert clone.files() == {}
    assert (tmp_path / "out" / "small" / "study.json").is_file()
    assert list((tmp_path / "in" / "datasets").glob("digits-*/manifest.json"))


def test_what_comes_after_training_is_a_stage_for_those_who_ask(copied: Checkout) -> None:
    nothing = "This study deploys nothing; deploy: {} in its config has it do so"
    assert copied.planned("deploy") == {nothing}
    assert copied.planned("deploy", study=small(deploy={})) == {
        "Deploy mnist_cnn",
        "What comes after training is compared",
    }
    assert copied.planned("report") == {"Deploy mnist_cnn", "Make the report of study small"}
