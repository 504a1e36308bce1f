"""What the parts of the command share: children, datasets, time and results."""

import contextlib
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.child import Child, Ended, Failed
from benchmarks.gpu.results import Results
from benchmarks.row import Values, ratio

FRAMEWORKS = ("torch", "jax")
LONGEST_OPENING = 240.0  # seconds: a program that compiles for longer is given up
OPENING = 0.45  # of the time left that one trial may take to open: others are to be measured too
LONGEST_TURN = 60.0
LONGEST_MAKING = 120.0  # seconds, of a dataset
GRACE = 15.0  # seconds that a turn which has begun may take beyond its part's time
FEWEST = 3  # turns without which there is no figure


class Deadline:
    """When a part must end (`time.monotonic`); parts that end early leave their time to others."""

    def __init__(self, at: float) -> None:
        self.at = at

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.at - time.monotonic()


@dataclass(kw_only=True)
class Session:
    """The command's state.

    Attributes:
        results: where rows go.
        scratch: folder for datasets and caches, removed at the end.
        log: what children print.
        quick: tiny sizes.
        data: folder with staged files, or None.
        environment: of the children.
        deadline: of the part that runs.
        devices: by framework that can be measured, the name of its device.
        idle: children of each framework that may be asked for something else.
        keeps: whether a child that is done becomes idle instead of ending.
        datasets: by name, the manifest and what the dataset is.
    """

    results: Results
    scratch: Path
    log: Path
    quick: bool
    data: Path | None
    environment: Mapping[str, str]
    deadline: Deadline
    devices: dict[str, str] = field(default_factory=dict)
    idle: dict[str, list[Child]] = field(default_factory=dict)
    keeps: bool = False
    datasets: dict[str, tuple[Path, str]] = field(default_factory=dict)

    @contextlib.contextmanager
    def child(self, framework: str) -> Iterator[Child]:
        """Yield a child for one framework (or for none), which then ends."""
        kept = self.idle.setdefault(framework, [])
        again = self.keeps and kept
        child = kept.pop() if again else Child(self.log, self.environment)
        try:
            yield child
        finally:
            if self.keeps and child.process.poll() is None:
                kept.append(child)
            else:
                child.close()

    @contextlib.contextmanager
    def reusing(self, wanted: bool = True) -> Iterator[None]:
        """Use children again within the block, if that is wanted: none of them is fresh then."""
        before, self.keeps = self.keeps, wanted
        try:
            yield
        finally:
            self.keeps = before
            if not before:
                self.close()

    def close(self) -> None:
        """End what children there are."""
        for kept in self.idle.values():
            while kept:
                kept.pop().close()

    def limit(self, limit: tuple[str, float]) -> tuple[str, float] | None:
        """Return a limit that is asked of figures, None at tiny sizes: there it says nothing."""
        return None if self.quick else limit

    def allowed(self, most: float) -> float:
        """Return for how many seconds a request may take, which would like to have `most`."""
        return min(most, self.deadline.left)

    def caches(self, *name: str) -> Path:
        """Return a folder for compiled programs."""
        return self.scratch.joinpath("caches", *name)

    def dataset(
        self, name: str, shape: tuple[int, ...], examples: int, tests: int, staged: bool = False
    ) -> tuple[Path, str]:
        """Return a dataset's manifest and what it is, making it on first use.

        Args:
            name: and that of the folder with staged files.
            shape, examples, tests: of noise.
            staged: use staged files where there are some.

        Raises:
            Failed: it could not be made.
        """
        if name not in self.datasets:
            if self.deadline.left <= 0:
                raise Failed("no time was left to make its dataset")
            folder = self.scratch / "data" / name
            settings = {"folder": folder, "shape": shape, "examples": examples, "tests": tests}
            raw = self.data / name if staged and self.data else None
            with self.child("") as child:
                what = self._made(child, settings, raw if raw and raw.is_dir() else None)
            self.datasets[name] = folder / "manifest.json", what
        return self.datasets[name]

    def _made(self, child: Child, settings: Mapping[str, Any], raw: Path | None) -> str:
        """Make a dataset of staged files, or of noise if that fails; returns what it is."""
        why = ""
        try:
            if raw is not None:
                return str(
                    child.ask("inputs", self.allowed(LONGEST_MAKING), staged=raw, **settings)
                )
        except Ended:
            raise
        except Failed as error:
            why = f" ({raw}: {error})"
        return str(child.ask("inputs", self.allowed(LONGEST_MAKING), **settings)) + why

    @contextlib.contextmanager
    def trials(
        self,
        part: str,
        variants: Mapping[str, Mapping[str, Any]],
        settings: Mapping[str, Any],
        what: str = "",
    ) -> Iterator[dict[str, "Trial"]]:
        """Open a trial of each variant, one after the other; yields those that came to be.

        Args:
            part: to which the rows of those that did not belong.
            variants: by name.
            settings: arguments of `benchmarks.gpu.trial.Trial` besides variant and caches.
            what: is tried, where a variant is tried several times.
        """
        running: dict[str, Trial] = {}
        with contextlib.ExitStack() as stack:
            for name, variant in variants.items():
                framework = variant["framework"]
                if framework not in self.devices:
                    continue  # the first part says why
                row = f"{name}: {what}" if what else name
                if self.deadline.left <= 0:
                    self.results.note(part, row, "not measured: no time was left")
                    continue
                child = stack.enter_context(self.child(framework))
                trial = Trial(name, child, self.devices[framework], framework)
                try:
                    trial.preparation = child.ask(
                        "open",
                        min(LONGEST_OPENING, OPENING * self.deadline.left),
                        variant=variant,
                        caches=self.caches(part, name),
                        **settings,
                    )
                except Failed as error:
                    self.results.note(part, row, f"not measured: {error}", trial.device)
                    continue
                running[name] = trial
            yield running

    def turns(
        self,
        part: str,
        what: str,
        trials: dict[str, "Trial"],
        rounds: int,
        request: str,
        seconds: float = 1e9,
        **arguments: Any,
    ) -> dict[str, list[Any]]:
        """Ask each trial once a round, in an order that is random but the same every time.

        A trial that fails is a row and is asked no more. After `seconds` no round is begun if
        there were enough of them.

        Returns:
            The answers of each trial that answered in every round.
        """
        answers: dict[str, list[Any]] = {name: [] for name in trials}
        chance = random.Random(0)
        end = time.monotonic() + self.allowed(seconds)
        for turn in range(rounds):
            if (turn >= FEWEST and time.monotonic() > end) or self.deadline.left <= 0:
                break
            for name in chance.sample(list(answers), len(answers)):
                try:
                    allowed = self.allowed(LONGEST_TURN) + GRACE
                    answers[name].append(trials[name].child.ask(request, allowed, **arguments))
                except Failed as error:
                    note = f"not measured: {error}"
                    self.results.note(part, f"{name}: {what}", note, trials[name].device)
                    del answers[name]
                    if isinstance(error, Ended):
                        del trials[name]
        return answers

    def ratios(
        self,
        part: str,
        what: str,
        seconds: Mapping[str, Values],
        reference: str,
        limit: tuple[str, float] | None = None,
    ) -> None:
        """Write the ratio of each variant's times to the reference's, pair by pair."""
        for name, values in seconds.items():
            if name == reference or reference not in seconds:
                continue
            pairs = min(len(values), len(seconds[reference]))
            row = ratio(
                f"{name} : {reference}: {what}",
                values[:pairs],
                seconds[reference][:pairs],
                limit,
            )
            self.results.figure(part, row, self._both(name, reference))

    def _both(self, *names: str) -> str:
        return " : ".join(
            dict.fromkeys(self.devices[f] for n in names for f in FRAMEWORKS if n.startswith(f))
        )


@dataclass
class Trial:
    """A trial in a child (`benchmarks.gpu.trial`).

    Attributes:
        preparation: what it took to make it ready.
    """

    name: str
    child: Child
    device: str
    framework: str
    preparation: dict[str, Any] = field(default_factory=dict)
