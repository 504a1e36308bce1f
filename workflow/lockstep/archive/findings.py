"""What verifying found: one line a check."""

from collections.abc import Sequence
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
        if not self.wrong:
            return [f"{self.status:5}  {self.name}: {self.says}"]
        shown = [f"{self.status:5}  {self.name}: {problem}" for problem in self.wrong[:SHOWN]]
        more = len(self.wrong) - SHOWN
        return [*shown, f"       {self.name}: and {more} more"] if more > 0 else shown
