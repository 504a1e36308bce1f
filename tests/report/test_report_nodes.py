"""Where a pair's runs were placed is named, and takes the verdict on time away if it decides."""

from pathlib import Path
from typing import Any

import pytest

from lockstep.report import analysis, verdicts
from lockstep.study.run import Run
from tests.report.planted import comparison, on_jax, text_of, threats_of
from tests.report.report_studies import TWO, Edit, write


def on_nodes(torch: tuple[str, ...], jax: tuple[str, ...], **changes: Any) -> Edit:
    """Put runs on nodes; `changes` hold for the facts of the last one on JAX's side."""

    def edit(run: Run, summary: dict[str, Any]) -> None:
        host = summary["contract"]["host"]
        nodes = [{**host, "node": n} for n in (jax if run.variant == "jax-jit" else torch)]
        if run.variant == "jax-jit":
            nodes[-1] |= changes
        summary["contract"]["host"] = nodes[0] | {"nodes": nodes, "job": host["job"]}

    return edit


@pytest.mark.parametrize(
    ("changes", "named"), [({"cpu": "Slow"}, "EPYC, Slow"), ({"cores": 4}, "16, 4")]
)
def test_another_node_than_the_first_may_be_the_slow_one(tmp_path, changes, named) -> None:
    edit = on_nodes(("n1", "n2"), ("n1", "n2"), **changes)
    c = comparison(tmp_path, edit, scales=("2x1",), seeds=3)
    assert c.kind == verdicts.NOT_COMPARABLE and named in text_of(c)


def test_equal_nodes_are_no_difference_in_whatever_order(tmp_path: Path) -> None:
    edit = on_nodes(("n1", "n2"), ("n2", "n1"))
    c = comparison(tmp_path, edit, scales=("2x1",), seeds=3)
    assert c.kind == verdicts.FASTER and c.flags == []


def test_of_two_nodes_the_other_one_may_be_the_slow_one(tmp_path: Path) -> None:
    edit = on_nodes(("n3", "n2"), ("n1", "n2"))
    found = analysis.analyse(write(tmp_path, variants=TWO, edit=edit, scales=("2x1",), seeds=3))
    (c,) = found.comparisons
    assert c.kind == verdicts.NOT_COMPARABLE and "look like a slower variant" in text_of(c)
    assert "3 nodes" in threats_of(found)["Several nodes"]


def placed(where) -> Edit:
    """Put each run on the node that `where` says."""
    return lambda run, summary: summary["contract"]["host"].update(node=where(run))


def slow_jax_after(seed: int) -> Edit:
    return placed(lambda run: "slow" if run.variant == "jax-jit" and run.seed > seed else "fast")


def test_a_variant_that_had_the_fast_node_in_nearly_all_pairs_has_no_verdict(tmp_path) -> None:
    c = comparison(tmp_path, slow_jax_after(0), seeds=10)
    assert (c.kind, c.quality_kind) == (verdicts.NOT_COMPARABLE, verdicts.EQUIVALENT)
    assert "in 9 of 10 pairs: fast against slow" in text_of(c)


def test_pairs_on_one_node_are_compared_and_the_others_left_out_by_name(tmp_path: Path) -> None:
    c = comparison(tmp_path, slow_jax_after(2))
    assert c.kind == verdicts.FASTER and c.step_time.n == c.whole_run.n == 3
    assert c.untimed == [
        (seed, "its two runs were on other nodes (slow against fast)") for seed in (3, 4)
    ]
    assert c.quality.n == 5


def test_nodes_that_served_both_sides_equally_cancel_out(tmp_path: Path) -> None:
    edit = placed(lambda run: f"node-{(run.seed + (run.variant == 'jax-jit')) % 2}")
    c = comparison(tmp_path, edit, seeds=4)
    assert c.kind == verdicts.FASTER and c.step_time.n == 4
    assert [d.fact for d in c.flags] == ["host.node"]


def test_one_slower_node_in_one_pair_is_flagged_and_the_pair_left_out(tmp_path: Path) -> None:
    def change(run: Run, summary: dict[str, Any]) -> None:
        if run.seed == 2:
            summary["contract"]["host"]["node"] = "node-0"

    c = comparison(tmp_path, on_jax(change))
    assert c.kind == verdicts.FASTER and c.step_time.n == 4
    assert [seed for seed, _ in c.untimed] == [2]
    assert [(d.fact, d.pairs, d.of) for d in c.flags] == [("host.node", 1, 5)]
