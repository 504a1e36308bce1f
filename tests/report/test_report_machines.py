"""Times are compared only where runs had their machine to themselves, and equal nodes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockstep.report import analysis, page, sentences, verdicts
from lockstep.study.run import Run
from tests.report.planted import analysed, comparison, threats_of, update
from tests.report.report_studies import Edit


def busy(*seeds: int, windows: int = 1_000):
    """Return an edit: in PyTorch's runs of these seeds other programs took the cores."""

    def edit(run: Run, rows: list[dict[str, Any]]) -> None:
        if run.variant == "torch-eager" and run.seed in seeds:
            for row in rows[1 : 1 + windows]:
                row["seconds"] *= 50
                row["foreign_cpu_share"] = 0.9

    return edit


def seen(root: Path, **options: Any) -> tuple[analysis.Analysis, list[str], Any]:
    """Return an analysis, what the terminal says, and PyTorch's row of step times."""
    found = analysed(root, **options)
    lines = sentences.terminal_lines(analysis.as_json(found)["verdicts"][0])
    return found, lines, found.workloads[0].tables["step-time"].rows[0]


def test_a_study_on_a_busy_machine_has_no_verdict_on_time_and_says_why(tmp_path: Path) -> None:
    found, lines, row = seen(tmp_path, seeds=3, edit_windows=busy(0, 1, 2, windows=12))
    (c,) = found.comparisons
    assert c.kind == verdicts.NOT_COMPARABLE and c.quality_kind != verdicts.NOT_COMPARABLE
    why = "torch-eager: other programs used its CPU cores: only 2 of its 14 timed windows"
    assert "are not comparable in time" in lines[0] and why in lines[0]
    assert why in page.render(found, {})
    assert "other programs" in str(row["step_median"])
    torch, jax = found.workloads[0].tables["time-to-target"].rows
    assert "other programs" in str(torch["median"]) and "other programs" in str(torch["wall"])
    assert torch["n"] == torch["reached"] == 3 and jax["median"] > 0
    assert c.to_target is None and c.whole_run is None
    assert "In 3 of 6 runs other programs disturbed too many" in threats_of(found)["Disturbed runs"]


def test_a_disturbed_run_among_others_is_left_out_of_time_by_name(tmp_path: Path) -> None:
    found, lines, _ = seen(tmp_path, edit_windows=busy(2))
    (c,) = found.comparisons
    assert c.kind == verdicts.FASTER
    assert c.step_time.n == c.to_target.n == c.whole_run.n == 4
    assert 0.48 < c.step_time.value < 0.52
    assert any("left out of step time: seed 2: torch-eager" in line for line in lines)
    assert "Seed 2 is left out of step time: torch-eager" in page.render(found, {})


def test_disturbed_windows_do_not_count(tmp_path: Path) -> None:
    quiet = comparison(tmp_path / "quiet")
    found, _, row = seen(tmp_path, edit_windows=busy(0, 1, 2, 3, 4, windows=5))
    (c,) = found.comparisons
    assert c.kind == verdicts.FASTER and not c.untimed and row["disturbed"] == 25
    assert c.step_time.value == pytest.approx(quiet.step_time.value, rel=0.02)


@pytest.mark.parametrize(
    ("contention", "why"),
    [
        (None, "the records are older than this measurement"),
        ({"watched": False, "reason": "this kernel has no schedstat"}, "this kernel has no"),
        ({"watched": True}, None),
    ],
)
def test_where_contention_was_not_watched_the_verdict_says_so(tmp_path, contention, why) -> None:
    text = sentences.sentence(comparison(tmp_path, update(contention=contention)))
    assert f" Contention was not watched: {why}" in text if why else "watched" not in text


def test_a_run_that_gave_up_on_a_busy_machine_has_not_failed_to_learn(tmp_path: Path) -> None:
    def edit(run: Run, summary: dict[str, Any]) -> None:
        if (run.variant, run.seed) == ("jax-jit", 0):
            summary |= {"status": "failed", "reason": "gave up: the machine is busy"}
            summary["contention"]["gave_up"] = True

    found = analysed(tmp_path, seeds=3, edit=edit)
    (_, row) = found.workloads[0].tables["time-to-target"].rows
    assert (row["variant"], row["n"], row["failed"]) == ("jax-jit", 2, 0)
    assert "the machine is busy" in found.comparisons[0].left_out[0][1]


# Nodes ----------------------------------------------------------------------------------------


def on_nodes(torch: tuple[str, ...], jax: tuple[str, ...], **changes: Any) -> Edit:
    """Put runs on nodes; `changes` hold for the facts of the last one on JAX's side."""

    def edit(run: Run, summary: dict[str, Any]) -> None:
        host = summary["contract"]["host"]
        nodes = [{**host, "node": n} for n in (jax if run.variant == "jax-jit" else torch)]
        if run.variant == "jax-jit":
            nodes[-1] |= changes
        summary["contract"]["host"] = nodes[0] | {"nodes": nodes, "job": host["job"]}

    return edit


def placed(where: Callable[[int, bool], str]) -> Edit:
    """Put each run on the node that `where` says, of its seed and whether it is JAX's."""
    return lambda run, summary: summary["contract"]["host"].update(
        node=where(run.seed, run.variant == "jax-jit")
    )


def slow_jax_after(last: int) -> Edit:
    return placed(lambda seed, jax: "slow" if jax and seed > last else "fast")


BOTH, SEVERAL = ("n1", "n2"), {"scales": ("2x1",), "seeds": 3}
SWAPPED = placed(lambda seed, jax: f"node-{(seed + jax) % 2}")


@pytest.mark.parametrize(
    ("edit", "options", "named"),
    [
        (on_nodes(BOTH, BOTH, cpu="Slow"), SEVERAL, "EPYC, Slow"),  # the second node's
        (on_nodes(("n3", "n2"), BOTH), SEVERAL, "look like a slower variant"),
        (slow_jax_after(0), {"seeds": 10}, "in 9 of 10 pairs: fast against slow"),
    ],
)
def test_where_a_node_may_be_the_slower_one_there_is_no_verdict_on_time(
    tmp_path, edit, options, named
) -> None:
    c = comparison(tmp_path, edit, **options)
    assert (c.kind, c.quality_kind) == (verdicts.NOT_COMPARABLE, verdicts.EQUIVALENT)
    assert named in sentences.sentence(c)


@pytest.mark.parametrize(
    ("edit", "options", "untimed", "flagged"),
    [
        (on_nodes(BOTH, ("n2", "n1")), SEVERAL, [], []),  # in whatever order
        (SWAPPED, {"seeds": 4}, [], [("host.node", 4, 4)]),  # each served both sides equally
        (slow_jax_after(2), {}, [3, 4], [("host.node", 2, 5)]),
    ],
)
def test_pairs_on_other_nodes_are_left_out_by_name_unless_the_nodes_cancel_out(
    tmp_path, edit, options, untimed, flagged
) -> None:
    c = comparison(tmp_path, edit, **options)
    assert c.kind == verdicts.FASTER
    assert [seed for seed, _ in c.untimed] == untimed
    assert all(why.startswith("its two runs were on other nodes (") for _, why in c.untimed)
    assert c.step_time.n == c.whole_run.n == len(c.seeds) - len(untimed)
    assert c.quality.n == len(c.seeds)
    assert [(d.fact, d.pairs, d.of) for d in c.flags] == flagged
