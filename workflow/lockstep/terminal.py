"""Where somebody watches: standard error, or the terminal that a workflow names."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

TERMINAL = "LOCKSTEP_TERMINAL"


def find() -> TextIO | None:
    """Return standard error if it is a terminal, else the workflow's own, None without one.

    A rule's standard error is its log, so a workflow on this machine says where it was started.
    """
    if sys.stderr.isatty():
        return sys.stderr
    try:
        # Not as its controlling terminal, whose end would be this process's too.
        descriptor = os.open(os.environ[TERMINAL], os.O_WRONLY | os.O_NOCTTY)
    except (KeyError, OSError):  # nobody watches, or not from where this process can see
        return None
    return open(descriptor, "w") if os.isatty(descriptor) else None


def say(text: str) -> None:
    """Print a line on standard error, which may be a log, and on the terminal if there is one."""
    print(f"lockstep: {text}", file=sys.stderr, flush=True)
    watched = find()
    if watched is not None and watched is not sys.stderr:
        print(f"lockstep: {text}", file=watched)
        watched.close()


@contextlib.contextmanager
def bar(name: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show how far something is where somebody watches; yields what is told of further steps."""
    watched = find()
    if watched is None:
        yield lambda steps: None
        return
    from tqdm import tqdm  # here: a log needs none

    shown = tqdm(total=total, desc=name, unit="step", file=watched, leave=False, dynamic_ncols=True)
    try:
        with shown:
            yield shown.update
    finally:
        if watched is not sys.stderr:
            watched.close()
