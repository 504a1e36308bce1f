"""The one exception that a person is meant to read."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake a person can mend: says what is wrong, where, and what would be right.

    The command line prints the message without a traceback and exits with status 2.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the known word closest to `word`, or lists all of them."""
    known = sorted(map(str, known))
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known are: " + ", ".join(known) if known else "none are known here"
