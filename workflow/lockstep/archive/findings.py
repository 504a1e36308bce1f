"""What verifying found: one line a check."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

HOLDS, FAILS, OPEN = "holds", "FAILS", "open"
SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: what.
        says: what holds, or why it was not checked.
        wrong: what does not hold, each naming the file.
        open: whether it could not be checked.
    """

    name: str
    says: str
    wrong: Sequence[str] = field(default_factory=tuple)
    open: bool = False

    @property
    def status(self) -> str:
        """`holds`, `FAILS` or `open`."""
        return FAILS if self.wrong else OPEN if self.open else HOLDS

    def lines(self) -> list[str]:
        """Return what a person sees."""
        said = self.wrong[:SHOWN] or [self.says]
        shown = [f"{self.status:5}  {self.name}: {printable(text)}" for text in said]
        more = len(self.wrong) - SHOWN
        return [*shown, f"       {self.name}: and {more} more"] if more > 0 else shown


def printable(text: str) -> str:
    """Return a text of an archive as a terminal may be given it: nothing in it is a command."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def reason(error: OSError) -> str:
    """Return why the system refused, as it stands in the middle of a sentence."""
    return (error.strerror or str(error)).lower()


# What damage becomes --------------------------------------------------------------------------


def attempted(name: str, check: Callable[[], Check]) -> Check:
    """Return what a check found; whatever a damaged archive raises in it is a finding."""
    try:
        return check()
    except Exception as error:
        return Check(name=name, says="", wrong=[_damage(name, error)])


def guarded(where: str, problems: Iterable[str]) -> Iterator[str]:
    """Yield what is wrong with one file; whatever it raises while it is looked at is so too."""
    try:
        yield from problems
    except Exception as error:
        yield _damage(where, error)


def _damage(where: str, error: Exception) -> str:
    return f"{where}: not sound ({error!r:.300})"
