"""How far preprocessing is: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

EVERY = 30.0  # seconds between two lines in a log


def say(text: str) -> None:
    """Print a line for a person."""
    print(f"lockstep: {text}", file=sys.stderr, flush=True)


@contextmanager
def shown(name: str, total: int) -> Iterator[Callable[..., None]]:
    """Show progress; yields `advance(count, kept=False)`, `kept` for what was there before."""
    bar = _bar(name, total) if sys.stderr.isatty() else None
    begin = told = time.monotonic()
    done = before = 0

    def advance(count: int, *, kept: bool = False) -> None:
        nonlocal done, before, told
        done += count
        before += count * kept
        now = time.monotonic()
        if bar is not None:
            bar.update(count)
        elif now - told >= EVERY or done == total:
            told = now
            say(f"{name}: {_state(done, before, total, now - begin)}")

    with nullcontext() if bar is None else bar:
        yield advance


def _bar(name: str, total: int) -> Any:
    from tqdm import tqdm  # here: a log needs none

    return tqdm(
        total=total,
        desc=name,
        unit=" images",
        file=sys.stderr,
        dynamic_ncols=True,
        smoothing=0.05,
    )


def _state(done: int, before: int, total: int, seconds: float) -> str:
    speed = (done - before) / seconds if seconds > 0 else 0.0
    text = f"{done:,} of {total:,} images, {speed:,.0f} images/s"
    if before:
        text += f", {before:,} were there"
    if done < total and speed:
        text += f", {(total - done) / speed / 60:.0f} min left"
    return text
