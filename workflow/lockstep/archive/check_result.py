"""What verifying found: one line per check, and one per finding."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Check:
    """One of the things that are checked.

    Attributes:
        name: of the check.
        says: what holds.
        wrong: what does not hold, each naming the file and, where it is of one, the run.
        skipped: whether it could not be checked; `says` then has the reason.
    """

    name: str
    says: str
    wrong: Sequence[str] = ()
    skipped: bool = False

    @property
    def status(self) -> str:
        """`holds`, `FAILS` or `skipped`."""
        return "FAILS" if self.wrong else "skipped" if self.skipped else "holds"

    def lines(self) -> list[str]:
        """Return what a person sees."""
        if not self.wrong:
            return [f"{self.status:7}  {self.name}: {printable(self.says)}"]
        more = [f"and {len(self.wrong) - SHOWN} more"] if len(self.wrong) > SHOWN else []
        count = f"{len(self.wrong)} finding{'s' * (len(self.wrong) > 1)}"
        found = [*self.wrong[:SHOWN], *more]
        return [f"FAILS    {self.name}: {count}", *(f"           {printable(w)}" for w in found)]


def printable(text: str) -> str:
    """Return a text of an archive as a terminal may be given it: nothing in it is a command."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def reason(error: OSError) -> str:
    """Return why the system refused, as it stands in the middle of a sentence."""
    return (error.strerror or str(error)).lower()


def guarded(where: str, check: Callable[..., Iterable[str]], *given: Any) -> Iterator[str]:
    """Yield what `check` finds of one file.

    Whatever a damaged file raises in it is a finding, but for a disk that cannot be read.
    """
    try:
        yield from check(*given)
    except (OSError, ImportError):
        raise
    except Exception as error:
        yield f"{where}: cannot be used ({error!r:.300})"
