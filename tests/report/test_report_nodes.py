"""Where a pair's runs were placed is named, and takes the verdict on time away if it decides."""

from typing import Any

import pytest

from lockstep.report import verdicts
from lockstep.study.run import Run
from tests.report.planted import comparison, on_jax, set_at, text_of
from tests.report.report_studies import Edit


def on_nodes(torch: tuple[str, ...], jax: tuple[str, ...], **changes: Any) -> Edit:
    """Put runs on nodes; `changes` hold for the facts of the last one on JAX's side."""

    def edit(run: Run, summary: dict[str, Any]) -> None:
        host = summary["contract"]["host"]
        nodes = [{**host, "node": n} for n in (jax if run.variant == "jax-jit" else torch)]
        if run.variant == "jax-jit":
            nodes[-1] |= changes
        summary["contract"]["host"] = nodes[0] | {"nodes": nodes, "job": host["job"]}

    return edit


def placed(where) -> Edit:
    """Put each run on the node that `where` says, of its seed and whether it is JAX's."""
    return lambda run, summary: summary["contract"]["host"].update(
        node=where(run.seed, run.variant == "jax-jit")
    )


def slow_jax_after(last: int) -> Edit:
    return placed(lambda seed, jax: "slow" if jax and seed > last else "fast")


BOTH, SEVERAL = ("n1", "n2"), {"scales": ("2x1",), "seeds": 3}
SWAPPED = placed(lambda seed, jax: f"node-{(seed + jax) % 2}")
OTHER = on_jax(set_at("contract.host.node", "node-0"), seed=2)


@pytest.mark.parametrize(
    ("edit", "options", "named"),
    [
        (on_nodes(BOTH, BOTH, cpu="Slow"), SEVERAL, "EPYC, Slow"),  # the second node's
        (on_nodes(BOTH, BOTH, cores=4), SEVERAL, "16, 4"),
        (on_nodes(("n3", "n2"), BOTH), SEVERAL, "look like a slower variant"),
        (slow_jax_after(0), {"seeds": 10}, "in 9 of 10 pairs: fast against slow"),
    ],
)
def test_where_a_node_may_be_the_slower_one_there_is_no_verdict_on_time(
    tmp_path, edit, options, named
) -> None:
    c = comparison(tmp_path, edit, **options)
    assert (c.kind, c.quality_kind) == (verdicts.NOT_COMPARABLE, verdicts.EQUIVALENT)
    assert named in text_of(c)


@pytest.mark.parametrize(
    ("edit", "options", "untimed", "flagged"),
    [
        (on_nodes(BOTH, ("n2", "n1")), SEVERAL, [], []),  # in whatever order
        (SWAPPED, {"seeds": 4}, [], [("host.node", 4, 4)]),  # each served both sides equally
        (slow_jax_after(2), {}, [3, 4], [("host.node", 2, 5)]),
        (OTHER, {}, [2], [("host.node", 1, 5)]),
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
