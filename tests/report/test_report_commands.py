"""What a person types: report, tell, compare."""

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lockstep.__main__ import main
from lockstep.errors import UserError
from lockstep.report import compare, verdicts
from lockstep.study import Study
from tests.report.planted import on_jax, set_at
from tests.report.report_studies import (
    STEP_SECONDS,
    TWO,
    VARIANTS,
    passing_verdict,
    put_json,
    write,
)


def one_line(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(word in error for word in words)


def test_report_and_tell_print_one_line_a_comparison_and_its_flags(tmp_path: Path, capsys) -> None:
    other = on_jax(set_at("contract.engine.cudnn", "9.1.0"))
    study = write(tmp_path, seeds=3, variants=TWO, edit=other)
    report, tell = ([command, "--study", str(study.path)] for command in ("report", "tell"))
    assert main(tell) == 2
    one_line(capsys, "make the report first")
    assert main(report) == 0 and main(tell) == 0
    first, verdict, flagged, last = capsys.readouterr().out.splitlines()
    assert first == "study planted: 6 runs finished"
    assert verdict.startswith("mnist_cnn at 1x1: jax-jit is faster")
    assert flagged.startswith("  flagged: cuDNN (cudnn) differs: 9.26.0 against 9.1.0")
    assert last == f"report: {study.report()}"
    put_json(study.report().parent / "report.json", {"schema": "lockstep-report/3"})
    assert main(tell) == 2
    one_line(capsys, "'lockstep-report/3'", "make the report again")


def test_a_missing_run_is_an_error_of_one_line(tmp_path: Path, capsys) -> None:
    study = write(tmp_path, variants=TWO, seeds=3, skip=lambda run: run.seed == 2)
    assert main(["report", "--study", str(study.path)]) == 2
    one_line(capsys, "2 of 6 runs have not ended", "seed-2", "--partial")
    assert main(["report", "--study", str(study.path), "--partial"]) == 0
    assert "2 of 6 runs are missing" in study.report().read_text()


def test_the_report_imports_no_framework() -> None:
    code = (
        "import sys, lockstep.report.build, lockstep.report.compare;"
        "print(sorted({'torch', 'jax', 'flax', 'snakemake'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Two studies ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Study:
    return write(tmp_path_factory.mktemp("before"), name="before", variants=TWO)


def slower(root: Path, **options) -> Study:
    times = {name: 1.2 * seconds for name, seconds in STEP_SECONDS.items()}
    return write(root, **{"name": "after", "variants": TWO, **options}, step_seconds=times, rng=2)


def compared(one: Study, other: Study) -> compare.StudyComparison:
    return compare.compare(one.root, other.root, called=("a", "b"))


def test_two_studies_are_compared_variant_by_variant(tmp_path: Path, before, capsys) -> None:
    """Another cluster and library are what is compared, and are listed; one had been moved."""

    def elsewhere(run, summary):
        summary["contract"]["host"] |= {"node": "far", "cpu": "Grace"}
        summary["contract"]["engine"]["torch"] = "2.16.0"
        summary["contract"]["determined_by"]["code"] = "changed"

    after = slower(tmp_path, edit=elsewhere, variants=VARIANTS)
    moved, target = tmp_path / "elsewhere", tmp_path / "out.json"
    shutil.copytree(before.root, moved)
    assert main(["compare", str(moved), str(after.root), "--json", str(target)]) == 0
    text = capsys.readouterr().out
    for words in (
        "torch-eager of after is slower",
        "jax-jit of after is slower",
        "host.cpu: EPYC -> Grace",
        "engine.torch: 2.15.0 -> 2.16.0",
        "only after has mnist_cnn torch-compile 1x1",
    ):
        assert words in text
    found = json.loads(target.read_text())["comparisons"]
    assert [(c["kind"], c["seeds"]) for c in found] == [("slower", [0, 1, 2, 3, 4])] * 2


def test_other_data_or_failed_parity_in_either_study_takes_the_verdict_away(tmp_path, before):
    def kinds(after: Study) -> dict[str, str]:
        return {variant: c.kind for variant, c in compared(before, after).comparisons}

    after = slower(tmp_path / "data", edit=lambda run, s: s["dataset"].update(content="other"))
    assert set(kinds(after).values()) == {verdicts.NOT_COMPARABLE}
    after = slower(tmp_path)
    put_json(after.verdict("mnist_cnn"), passing_verdict(after, "mnist_cnn", fails="jax-jit"))
    assert kinds(after) == {"torch-eager": verdicts.SLOWER, "jax-jit": verdicts.NOT_COMPARABLE}


def test_what_is_no_study_of_this_version_is_one_clear_error(tmp_path: Path, before) -> None:
    other = write(tmp_path, name="other", variants=TWO, seeds=1, workloads=("another",))
    with pytest.raises(UserError, match="in common"):
        compared(before, other)
    whole = json.loads(other.path.read_text())
    broken = [{**whole, key: None} for key in ("blocks", "seeds", "variants", "scales", "report")]
    broken += [{**whole, "variants": []}, copy.deepcopy(whole)]
    del broken[-1]["variants"]["torch-eager"]["precision"]
    for text in (*map(json.dumps, broken), "{}", "not json", None):
        other.path.unlink() if text is None else other.path.write_text(text)
        with pytest.raises(UserError, match="study") as refused:
            compared(before, other)
        assert "\n" not in str(refused.value)
