"""Where somebody watches: standard error, or the terminal that a workflow names."""

import os
import sys
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
