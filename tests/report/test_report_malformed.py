"""Whatever one record holds, it is set apart by name, and the others are reported."""

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lockstep.errors import UserError
from lockstep.report import (
    analysis,
    build,
    compare,
    drawing,
    figures,
    figures_learning,
    load,
    page,
    proof,
    record_validation,
)
from lockstep.study import Study
from tests.report.report_studies import TWO, put_json, write

NONSENSE: tuple[Any, ...] = (None, "text", [], [None], {}, -1, float("nan"), float("inf"), True)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value within `value`, and to itself."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else ()
    for key, below in inner:
        yield from places(below, (*path, key))
    if isinstance(value, list):
        for k, below in enumerate(value[:1]):
            yield from places(below, (*path, k))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a copy of `value` with something else at a place."""
    made = copy.deepcopy(value)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return made


def _objects(value: Any) -> list[dict[str, Any]]:
    return [v for v in value.values() if isinstance(v, dict)] if isinstance(value, dict) else []


def drop(value: Any, path: tuple[Any, ...]) -> Any:
    made = copy.deepcopy(value)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return made


def test_any_nonsense_in_any_field_of_a_summary_keeps_no_other_run_from_its_report(tmp_path):
    """One study whose runs have each another nonsense in another field, and one page of it."""
    template = write(tmp_path / "template", variants=TWO, seeds=1)
    folder = template.run_folder(template.runs[0])
    whole = json.loads((folder / "summary.json").read_text())
    host = whole["contract"]["host"]
    host |= {"nodes": [dict(host)], "image": {"identity": "i"}}
    ways = [path for path in places(whole) if path[:2] != ("contract", "recipe")]
    broken = [drop(whole, path) for path in ways]
    broken += [put(whole, path, new) for path in ways for new in NONSENSE]
    study = write(tmp_path, variants=TWO, seeds=len(broken) + 3, skip=lambda run: run.seed > 2)
    for seed, summary in enumerate(broken, 3):
        run = next(r for r in template.runs if r.variant == "torch-eager")
        target = study.root / "runs" / run.name.replace("seed-0", f"seed-{seed}")
        shutil.copytree(folder, target)
        if summary.get("seed") == 0:
            summary["seed"] = seed
        (target / "summary.json").write_text(json.dumps(summary))
    found = analysis.analyse(study)
    page.render(found, figures.draw(found))
    assert found.comparisons[0].seeds[:3] == [0, 1, 2]
    assert found.comparisons[0].kind == "faster"
    assert all(r.reason for r in found.records.runs if r.status in (load.APART, load.FAILED))
    assert sum(r.status == load.APART for r in found.records.runs) > len(broken) / 2


def test_any_nonsense_in_any_field_of_a_parity_verdict_proves_nothing_at_worst(tmp_path) -> None:
    study = write(tmp_path, variants=TWO, seeds=2)
    path = study.verdict("mnist_cnn")
    whole = json.loads(path.read_text())
    whole["about"] = {"jax-jit": {"variant": dict(study.variant("jax-jit")), "seed": 0}}
    records = load.load(study)
    ways = list(places(whole))
    broken = [drop(whole, way) for way in ways]
    broken += [put(whole, way, new) for way in ways for new in NONSENSE[::2]]
    for verdict in broken:
        curves = [c["curves"] for c in _objects(verdict.get("comparisons")) if "curves" in c]
        path.write_text(json.dumps(verdict))
        try:
            read = load.judged.read(study, "mnist_cnn")
        except record_validation.Unsound as problem:
            assert str(problem)
            continue
        assert read is not None
        parity = {"mnist_cnn": read}
        again = load.Records(study=study, runs=records.runs, parity=parity, apart=())
        analysis.learning.parity(again, "mnist_cnn")
        if not any(proof.parity_problem(again, "mnist_cnn", variant) for variant in TWO):
            assert proof.claim(again, "mnist_cnn")
        if curves != [c["curves"] for c in whole["comparisons"].values()]:
            figures_learning.parity_curves("mnist_cnn", read, drawing.looks(TWO))


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("epochs.csv", lambda text: text.splitlines(keepends=True)[0], "epochs.csv has no row"),
        ("epochs.csv", lambda text: text.replace("\n0,", "\nnan,"), "a value in 'epoch'"),
        ("epochs.csv", lambda text: text.replace("\n0,", "\ninf,"), "a value in 'epoch'"),
        ("windows.csv", lambda text: text.replace(",10,", ",nan,", 1), "a value in 'steps'"),
        ("windows.csv", lambda text: text.replace(",10,", ",0,", 1), "a window without steps"),
    ],
)
def test_tables_with_values_that_cannot_be_are_set_apart(tmp_path, name, change, named) -> None:
    study = write(tmp_path, variants=TWO, seeds=2, manifests=False)
    path = study.run_folder(study.runs[0]) / name
    path.write_text(change(path.read_text()))
    found = analysis.analyse(study)
    assert found.records.runs[0].status == load.APART
    assert named in found.records.runs[0].reason


def test_a_step_time_that_the_windows_do_not_give_is_set_apart(tmp_path: Path) -> None:
    def ten_times_faster(run, summary) -> None:
        if (run.variant, run.seed) == ("jax-jit", 1):
            steps = summary["steady"]["step_seconds"]
            steps |= {name: value / 10 for name, value in steps.items()}

    study = write(tmp_path, variants=TWO, seeds=2, manifests=False, edit=ten_times_faster)
    (apart,) = load.load(study).apart
    assert "median is 0.0004" in apart[1] and "windows.csv gives 0.004" in apart[1]


@pytest.mark.parametrize("entry", [None, [], {"identity": None, "sha256": {}}, {"sha256": None}])
def test_an_entry_of_a_manifest_that_is_not_sound_binds_nothing_and_is_named(tmp_path, entry):
    study = write(tmp_path, variants=TWO, seeds=2)
    block, run = next(iter(study.blocks)), study.runs[0]
    manifest = json.loads(study.manifest(block).read_text())
    manifest["runs"][run.name] = entry
    put_json(study.manifest(block), manifest)
    records = load.load(study)
    assert records.runs[0].status == load.FINISHED
    assert records.apart == [(f"blocks/{block}.json", f"its entry of {run.name} is not sound")]


# Studies that lack something --------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"scales": ("1x1", "1x2")}, {"workloads": ("a", "b")}],
    ids=["scales", "workloads"],
)
def test_a_study_without_any_steady_state_has_a_report(tmp_path, options) -> None:
    absent = {"absent": "the run had no window after its first"}
    study = write(
        tmp_path,
        variants=TWO,
        seeds=2,
        edit=lambda run, summary: summary.update(steady=absent),
        **options,
    )
    build.build(study)
    assert "no pair of runs with a step time" in study.report().read_text()
    for part in analysis.analyse(study).workloads:
        assert all("never" not in str(row["steps"]) for row in part.tables["break-even"].rows)


def without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda config: config.pop(key)


@pytest.mark.parametrize(
    "change",
    [
        *map(without, ("blocks", "seeds", "variants", "workloads", "scales")),
        lambda config: config.update(seeds=None),
        lambda config: config.update(variants=[]),
        lambda config: config.update(report=None),
        lambda config: config["variants"]["torch-eager"].pop("precision"),
    ],
)
def test_comparing_with_the_config_of_another_version_is_one_clear_error(tmp_path, change) -> None:
    before = write(tmp_path, name="before", variants=TWO, seeds=2)
    after = write(tmp_path, name="after", variants=TWO, seeds=2)
    config = json.loads(after.path.read_text())
    change(config)
    put_json(after.path, config)
    with pytest.raises(UserError, match="study") as refused:
        compare.compare(before.root, after.root)
    assert "\n" not in str(refused.value)


def test_a_study_at_a_folder_is_read_once_it_is_whole(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO, seeds=2)
    assert len(compare.open_study(Study.at(study.root).root).runs) == 4
