"""Measuring in turns: a machine's speed drifts, so only neighbours in time are compared."""

import multiprocessing
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

Times = dict[str, list[float]]


def in_turns(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = 1,
    settle: float = 0.0,
    before: Callable[[], object] = lambda: None,
) -> Times:
    """Time each function once a round, in an order that is random but the same every time.

    One that returns a number has timed itself, in seconds.

    Args:
        settle: seconds to wait before each, for what the one before left running.
        before: is called before each, and not timed.

    Returns:
        Seconds of each round, without the first `warm_up` rounds.
    """
    seconds: Times = {name: [] for name in functions}
    chance = random.Random(0)
    for turn in range(warm_up + rounds):
        for name in chance.sample(list(functions), len(functions)):
            time.sleep(settle)
            before()
            begin = time.perf_counter()
            told = functions[name]()
            spent = told if isinstance(told, float) else time.perf_counter() - begin
            if turn >= warm_up:
                seconds[name].append(spent)
    return seconds


@contextmanager
def elsewhere(serve: Callable[[Connection, Any], None], argument: Any) -> Iterator[Connection]:
    """Run `serve(connection, argument)` in a fresh process; yields the other end.

    A process has one framework, as a run's has: two in one would share a heap, and the threads of
    one would spin while the other computes.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, argument), daemon=False)
    process.start()
    there.close()
    try:
        yield here
    finally:
        here.close()
        process.join(timeout=30)
        if process.is_alive():
            process.kill()
