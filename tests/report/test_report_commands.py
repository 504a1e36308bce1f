"""What a person types: report, tell, compare."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lockstep.__main__ import main
from lockstep.errors import UserError
from lockstep.report import analysis, compare, verdicts
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


def test_report_and_tell_print_one_line_a_comparison(tmp_path: Path, capsys) -> None:
    study = write(tmp_path, seeds=3, variants=TWO)
    assert main(["tell", "--study", str(study.path)]) == 2
    assert "make the report first" in capsys.readouterr().err
    assert main(["report", "--study", str(study.path)]) == 0
    assert main(["tell", "--study", str(study.path)]) == 0
    first, verdict, last = capsys.readouterr().out.splitlines()
    assert first == "study planted: 6 runs finished"
    assert verdict.startswith("mnist_cnn at 1x1: ")
    assert last == f"report: {study.report()}"
    put_json(study.report().parent / "report.json", {"schema": "lockstep-report/3"})
    assert main(["tell", "--study", str(study.path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.endswith("make the report again\n")


def test_tell_says_what_is_flagged_below_its_verdict(tmp_path: Path, capsys) -> None:
    other = on_jax(set_at("contract.engine.cudnn", "9.1.0"))
    study = write(tmp_path, variants=TWO, seeds=2, edit=other)
    put_json(study.report().parent / "report.json", analysis.as_json(analysis.analyse(study)))
    assert main(["tell", "--study", str(study.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("mnist_cnn at 1x1: jax-jit is faster")
    assert lines[2].startswith("  flagged: cuDNN (cudnn) differs: 9.26.0 against 9.1.0")


def test_a_missing_run_is_an_error_of_one_line(tmp_path: Path, capsys) -> None:
    study = write(tmp_path, variants=TWO, seeds=3, skip=lambda run: run.seed == 2)
    assert main(["report", "--study", str(study.path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "2 of 6 runs have not ended" in error and "seed-2" in error
    assert "--partial" in error
    assert main(["report", "--study", str(study.path), "--partial"]) == 0
    html = study.report().read_text()
    assert "This is a partial report" in html and "2 of 6 runs are missing" in html
    assert not study.complete_report().exists()


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


def test_studies_with_other_data_are_not_comparable(tmp_path: Path, before) -> None:
    after = slower(tmp_path, edit=lambda run, s: s["dataset"].update(content="other"))
    found = compared(before, after)
    assert {c.kind for _, c in found.comparisons} == {verdicts.NOT_COMPARABLE}


def test_failed_parity_in_either_study_takes_the_verdict_away(tmp_path: Path, before) -> None:
    after = slower(tmp_path)
    put_json(after.verdict("mnist_cnn"), passing_verdict(after, "mnist_cnn", fails="jax-jit"))
    kinds = {variant: c.kind for variant, c in compared(before, after).comparisons}
    assert kinds == {"torch-eager": verdicts.SLOWER, "jax-jit": verdicts.NOT_COMPARABLE}


def test_studies_with_nothing_in_common_are_refused(tmp_path: Path, before) -> None:
    other = write(tmp_path, name="other", variants=TWO, seeds=1, workloads=("another",))
    with pytest.raises(UserError, match="in common"):
        compared(before, other)


def test_what_is_no_study_of_this_version_is_one_clear_error(tmp_path: Path, before) -> None:
    after = write(tmp_path, name="after", variants=TWO, seeds=1)
    texts = [None, "{}", "not json"]
    for change in (
        *(lambda c, key=key: c.pop(key) for key in ("blocks", "seeds", "variants", "scales")),
        lambda config: config.update(seeds=None),
        lambda config: config.update(variants=[]),
        lambda config: config.update(report=None),
        lambda config: config["variants"]["torch-eager"].pop("precision"),
    ):
        config = json.loads(after.path.read_text())
        change(config)
        texts.append(json.dumps(config))
    for text in texts:
        after.path.unlink() if text is None else after.path.write_text(text)
        with pytest.raises(UserError, match="study") as refused:
            compared(before, after)
        assert "\n" not in str(refused.value)
