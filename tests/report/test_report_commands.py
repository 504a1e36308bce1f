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
from tests.report.planted import changed
from tests.report.report_studies import STEP_SECONDS, TWO, passing_verdict, put_json, write


def test_report_and_tell_print_one_line_a_comparison(tmp_path: Path, capsys) -> None:
    study = write(tmp_path, seeds=3)
    assert main(["report", "--study", str(study.path)]) == 0
    assert main(["tell", "--study", str(study.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "study planted: 9 runs finished"
    assert sum(line.startswith("mnist_cnn at 1x1: ") for line in lines) == 3
    assert lines[-1] == f"report: {study.report()}"


def test_tell_says_what_is_flagged_below_its_verdict(tmp_path: Path, capsys) -> None:
    def other(run, summary) -> None:
        if run.variant == "jax-jit":
            summary["contract"]["engine"]["cudnn"] = "9.1.0"

    study = write(tmp_path, variants=TWO, seeds=2, edit=other)
    put_json(study.report().parent / "report.json", analysis.as_json(analysis.analyse(study)))
    assert main(["tell", "--study", str(study.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("mnist_cnn at 1x1: jax-jit is faster")
    assert lines[2].startswith("  flagged: cuDNN (cudnn) differs: 9.26.0 against 9.1.0")


def test_tell_without_a_report_says_what_to_do(tmp_path: Path, capsys) -> None:
    study = write(tmp_path, seeds=1)
    assert main(["tell", "--study", str(study.path)]) == 2
    assert "make the report first" in capsys.readouterr().err


def test_a_missing_run_is_an_error_of_one_line(tmp_path: Path, capsys) -> None:
    study = write(tmp_path, seeds=2, skip=lambda run: run.seed == 1)
    assert main(["report", "--study", str(study.path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--partial" in error
    assert main(["report", "--study", str(study.path), "--partial"]) == 0


def test_the_report_imports_no_framework() -> None:
    code = (
        "import sys, lockstep.report.build, lockstep.report.compare;"
        "print(sorted({'torch', 'jax', 'flax', 'snakemake'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Two studies ----------------------------------------------------------------------------------


def slower(root: Path, factor: float, **options):
    times = {name: factor * seconds for name, seconds in STEP_SECONDS.items()}
    return write(root, name="after", variants=TWO, step_seconds=times, rng=2, **options)


def test_two_studies_are_compared_variant_by_variant(tmp_path: Path, capsys) -> None:
    before = write(tmp_path, name="before", variants=TWO)
    after = slower(tmp_path, 1.2)
    target = tmp_path / "out.json"
    assert main(["compare", str(before.root), str(after.root), "--json", str(target)]) == 0
    text = capsys.readouterr().out
    assert "torch-eager of after is slower" in text and "jax-jit of after is slower" in text
    assert [c["kind"] for c in json.loads(target.read_text())["comparisons"]] == ["slower"] * 2


def test_another_cluster_and_library_are_what_is_compared_and_are_listed(tmp_path: Path) -> None:
    def elsewhere(run, summary):
        summary["contract"]["host"] |= {"node": "far", "cpu": "Grace"}
        summary["contract"]["engine"]["torch"] = "2.16.0"
        summary["contract"]["determined_by"]["code"] = "changed"

    before = write(tmp_path, name="before", variants=TWO)
    after = slower(tmp_path, 1.2, edit=elsewhere)
    found = compare.compare(before.root, after.root)
    assert [c.kind for _, c in found.comparisons] == [verdicts.SLOWER] * 2
    text = "\n".join(compare.lines(found))
    assert "host.cpu: EPYC -> Grace" in text and "engine.torch: 2.15.0 -> 2.16.0" in text


def test_studies_with_other_data_are_not_comparable(tmp_path: Path) -> None:
    before = write(tmp_path, name="before", variants=TWO)
    after = slower(tmp_path, 1.2, edit=lambda run, s: s["dataset"].update(content="other"))
    found = compare.compare(before.root, after.root)
    assert {c.kind for _, c in found.comparisons} == {verdicts.NOT_COMPARABLE}


def test_failed_parity_in_either_study_takes_the_verdict_away(tmp_path: Path) -> None:
    before = write(tmp_path, name="before", variants=TWO)
    after = slower(tmp_path, 1.2)
    put_json(after.verdict("mnist_cnn"), passing_verdict(after, "mnist_cnn", fails="jax-jit"))
    kinds = {variant: c.kind for variant, c in compare.compare(before.root, after.root).comparisons}
    assert kinds == {"torch-eager": verdicts.SLOWER, "jax-jit": verdicts.NOT_COMPARABLE}


def test_a_study_may_have_been_moved(tmp_path: Path) -> None:
    before = write(tmp_path / "here", name="before", variants=TWO)
    moved = tmp_path / "elsewhere"
    shutil.move(before.root, moved)
    found = compare.compare(moved, slower(tmp_path, 1.2).root)
    assert all(c.seeds == [0, 1, 2, 3, 4] for _, c in found.comparisons)


def test_what_only_one_study_has_is_named(tmp_path: Path) -> None:
    before = write(tmp_path, name="before")
    after = slower(tmp_path, 1.2)
    assert compare.compare(before.root, after.root).only == [
        "only before has mnist_cnn torch-compile 1x1"
    ]


@pytest.mark.parametrize("content", [None, "{}", "not json"])
def test_what_is_no_study_is_refused(tmp_path: Path, content: str | None) -> None:
    before = write(tmp_path, name="before", variants=TWO, seeds=1)
    other = tmp_path / "other"
    other.mkdir()
    if content is not None:
        (other / "study.json").write_text(content)
    with pytest.raises(UserError):
        compare.compare(before.root, other)


def test_studies_with_nothing_in_common_are_refused(tmp_path: Path) -> None:
    before = write(tmp_path, name="before", variants=TWO, seeds=1)
    other = write(tmp_path, name="other", variants=TWO, seeds=1, workloads=("another",))
    with pytest.raises(UserError, match="in common"):
        compare.compare(before.root, other.root)


@pytest.mark.parametrize(
    "change",
    [
        *(lambda c, key=key: c.pop(key) for key in ("blocks", "seeds", "variants", "scales")),
        lambda config: config.update(seeds=None),
        lambda config: config.update(variants=[]),
        lambda config: config.update(report=None),
        lambda config: config["variants"]["torch-eager"].pop("precision"),
    ],
)
def test_comparing_with_the_config_of_another_version_is_one_clear_error(tmp_path, change) -> None:
    before = write(tmp_path, name="before", variants=TWO, seeds=1)
    after = write(tmp_path, name="after", variants=TWO, seeds=1)
    assert len(compare.open_study(Study.at(after.root).root).runs) == 2
    changed(after.path, change)
    with pytest.raises(UserError, match="study") as refused:
        compare.compare(before.root, after.root)
    assert "\n" not in str(refused.value)
