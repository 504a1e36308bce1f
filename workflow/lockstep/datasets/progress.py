"""How far preprocessing is: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

EVERY = 30.0  # seconds between two lines in a log


def say(text: str) -> None:
    """Print a line for a person."""
    print(f"lockstep: {text}", file=sys.stderr, flush=True)


@contextmanager
def shown(name: str, total: int) -> Iterator[Callable[..., None]]:
    """Show progress; yields `advance(count, kept=False)`, `kept` for what was there before."""
    bar = tqdm(
        total=total,
        desc=name,
        unit=" images",
        file=sys.stderr,
        disable=not sys.stderr.isatty(),
        dynamic_ncols=True,
        smoothing=0.05,
    )
    begin = told = time.monotonic()
    done = before = 0

    def advance(count: int, *, kept: bool = False) -> None:
        nonlocal done, before, told
        done += count
        before += count * kept
        bar.update(count)
        now = time.monotonic()
        if bar.disable and (now - told >= EVERY or done == total):
            told = now
            say(f"{name}: {_state(done, before, total, now - begin)}")

    with bar:
        yield advance


def _state(done: int, before: int, total: int, seconds: float) -> str:
    speed = (done - before) / seconds if seconds > 0 else 0.0
    text = f"{done:,} of {total:,} images, {speed:,.0f} images/s"
    if before:
        text += f", {before:,} were there"
    if done < total and speed:
        text += f", {(total - done) / speed / 60:.0f} min left"
    return text
