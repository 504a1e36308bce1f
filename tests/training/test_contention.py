"""Which windows others disturbed, which runs have enough others, and which are hopeless."""

import numpy as np

from lockstep.training import contention
from lockstep.training.watch import Watch

NONE = float("nan")


def windows(count: int, **columns: object) -> dict[str, np.ndarray]:
    made = {
        "seconds": np.full(count, 0.1),
        "attempt": np.zeros(count),
        "run_delay_seconds": np.full(count, 0.002),
        "foreign_cpu_share": np.full(count, 0.01),
    }
    return made | {name: np.array(values, float) for name, values in columns.items()}


def rows(made: dict[str, np.ndarray], warm_up: int = 1) -> list[dict]:
    return [
        {**{n: None if np.isnan(c[k]) else float(c[k]) for n, c in made.items()}}
        | {"warm_up": int(k < warm_up)}
        for k in range(len(made["seconds"]))
    ]


def test_foreign_work_disturbs_the_windows_up_to_its_reading() -> None:
    shares = [NONE, NONE, 0.01, NONE, 0.3, 0.0, NONE]
    found = contention.disturbed(windows(7, foreign_cpu_share=shares), 2)
    assert found.tolist() == [False, False, False, True, True, False, False]


def test_a_reading_holds_for_the_windows_after_the_last_one_but_for_no_other_attempt() -> None:
    shares = [NONE, 0.4, NONE, NONE, 0.0, NONE]
    found = contention.disturbed(
        windows(6, foreign_cpu_share=shares, attempt=[0, 0, 0, 1, 1, 1]), 2
    )
    assert found.tolist() == [True, True, True, False, False, False]


def test_threads_that_wait_for_each_other_are_not_disturbed() -> None:
    """JAX's pool has more threads than CPUs: they wait alike in every window."""
    delays = np.linspace(0.25, 0.4, 20) * 0.1
    assert not contention.disturbed(windows(20, run_delay_seconds=delays), 2).any()


def test_a_window_whose_threads_waited_much_longer_than_in_the_others_is_disturbed() -> None:
    delays = np.full(20, 0.004)
    delays[7] = 0.09  # a burst that is too short for the share of half a second
    assert np.flatnonzero(contention.disturbed(windows(20, run_delay_seconds=delays), 2)) == [7]


def test_what_the_kernel_does_not_tell_disturbs_nothing() -> None:
    nothing = np.full(5, NONE)
    unknown = windows(5, run_delay_seconds=nothing, foreign_cpu_share=nothing)
    assert not contention.disturbed(unknown, 2).any()
    assert not contention.disturbed({"seconds": np.ones(5)}, 2).any(), "an older record"


def test_half_of_the_steady_windows_are_enough() -> None:
    assert contention.enough(10, 20)
    assert not contention.enough(9, 20)
    assert contention.enough(1, 1)
    assert not contention.enough(0, 0), "a run without a steady window has no step time"


def test_only_steady_windows_that_nobody_disturbed_count() -> None:
    made = contention.columns(rows(windows(4, foreign_cpu_share=[0.0, 0.0, 0.5, 0.0])))
    assert contention.counts(made, 2).tolist() == [False, True, False, True]
    assert contention.counts(contention.columns([]), 2).tolist() == []


def test_a_run_is_hopeless_after_a_minute_of_disturbed_windows_and_not_before() -> None:
    busy = windows(20, seconds=np.full(20, 4.0), foreign_cpu_share=np.full(20, 0.5))
    assert contention.hopeless(rows(busy), 2)
    assert not contention.hopeless(rows(windows(20, seconds=np.full(20, 4.0))), 2)
    brief = windows(20, foreign_cpu_share=np.full(20, 0.5))
    assert not contention.hopeless(rows(brief), 2)
    few = windows(5, seconds=np.full(5, 40.0), foreign_cpu_share=np.full(5, 0.5))
    assert not contention.hopeless(rows(few), 2)


def test_columns_hold_what_is_largest_of_the_ranks_and_nothing_where_none_could_tell() -> None:
    assert Watch.columns([1_500_000, 7, 250_000]) == {
        "run_delay_seconds": 1.5,
        "involuntary_switches": 7,
        "foreign_cpu_share": 0.25,
    }
    assert Watch.columns([-1, 7, -1])["run_delay_seconds"] is None
    assert Watch.columns([-1, 7, -1])["foreign_cpu_share"] is None


def test_nothing_is_watched_where_there_is_a_reason_not_to() -> None:
    watch = Watch([0], {}, problem="processes share CPUs")
    assert watch.told()[0] == watch.told()[2] == -1
    summary = watch.summary([], gave_up=False)
    watch.close()
    assert (summary["watched"], summary["reason"]) == (False, "processes share CPUs")
    assert summary["foreign_cpu_share"] is None
    assert summary["run_delay_seconds"] is None
