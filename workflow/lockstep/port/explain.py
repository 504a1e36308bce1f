"""Why the first layer differs: PyTorch alone is altered, one known way at a time.

Functions are intercepted as PyTorch calls them. Only calls between the last layer that is equal and
the first that differs are altered; if none of these explains it, those of the enclosing block, and
then of the whole model.
"""

import contextlib
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from lockstep.errors import UserError
from lockstep.port import align, causes
from lockstep.port.causes import Change, attention
from lockstep.port.compare import Run
from lockstep.port.lines import Line
from lockstep.port.seen import IN, OUT, Place
from lockstep.port.torch_side import Reached, TorchSide
from lockstep.port.value import BUFFER, OUTPUT, ROUNDED, Value

SECONDS = 120.0  # that trials may take
CLOSER = 2e-2  # a cause takes away at least 98% of the difference; rounding may be left
TURNED = 0.1  # the same of one that rounds: 8% is left of TF32 if its factors differ by 1e-6
MOST = 600  # trials


@dataclass(frozen=True, kw_only=True)
class Cause:
    """A change that makes the first differing layer agree.

    Attributes:
        before, after: the distance without and with it.
        also: how many further calls differ in the same way.
        next: what differs first once all of these are changed, None if nothing does.
    """

    kind: str
    port: str
    torch: str
    remedy: str
    before: float
    after: float
    also: int = 0
    next: str | None = None

    def __str__(self) -> str:
        return self.said("the port")

    def said(self, port: str) -> str:
        """Return it as a sentence, with a name for the side in JAX."""
        text = (
            f"{port}: {self.port}; PyTorch: {self.torch}. `{self.remedy}` in {port} takes the "
            f"difference from {self.before:.1e} to {self.after:.1e}"
        )
        if self.also:
            calls = "further call differs" if self.also == 1 else "further calls differ"
            text += f"; {self.also} {calls} in the same way"
        if self.next:
            text += f"; after that {self.next} differs"
        return text


class Compared(Protocol):
    """PyTorch beside what JAX computes: a pair that is called, or a model and a trace of JAX's."""

    @property
    def torch(self) -> TorchSide:
        """What is altered."""

    @property
    def values(self) -> Mapping[str, np.ndarray]:
        """Its tensors by name."""

    @property
    def lines(self) -> Sequence[Line]:
        """The map from them to JAX's."""

    @property
    def wanted(self) -> tuple[Collection[str], Collection[str]]:
        """The paths of its modules that are compared, then JAX's."""

    def load(self, precision: str) -> None:
        """Load the weights."""

    def again(self, run: Run, altered: "Intercept") -> Run:
        """Return a run with PyTorch altered, JAX as it was, and the tolerances of before."""


class Intercept(TorchFunctionMode):
    """Counts PyTorch's calls; notes what could be changed in each, or changes some of them."""

    def __init__(self, change: Change | None = None, at: Iterable[int] = ()) -> None:
        super().__init__()
        self.count = 0
        self.offered: dict[int, list[Change]] = {}
        self._change, self._at = change, set(at)

    def afresh(self) -> "Intercept":
        """Return another one that changes the same calls of the next call of the model."""
        return Intercept(self._change, self._at)

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        named = kwargs or {}
        if function is F.multi_head_attention_forward:
            with self:
                result = attention.written(*args, **named)
            return function(*args, **named) if result is None else result
        found = causes.given(function, args, named)
        if found is None:
            return function(*args, **named)
        number, self.count = self.count, self.count + 1
        if self._change is None:
            self.offered[number] = []
            with contextlib.suppress(Exception):  # a rule that cannot read an unusual call
                self.offered[number] += causes.offers(*found)
        elif number in self._at:
            again = causes.again(found[0], function, len(args))
            return self._change.compute(again, found[1])
        return function(*args, **named)


def explain(comparison: Compared, run: Run) -> list[Cause]:
    """Return the causes that make the first differing layer agree; one is an explanation."""
    first = run.first
    assert first is not None
    watch, moments = _recorded(comparison, run)
    trials, until = 0, time.monotonic() + SECONDS
    for numbers in _windows(run, first, moments):
        offers = _grouped(watch, numbers)
        found: dict[tuple[str, str], tuple[Cause, Change]] = {}
        near: dict[tuple[str, str], tuple[Cause, Change]] = {}
        for change, places in offers:
            trials += 1
            if trials > MOST or time.monotonic() > until:
                break
            after = _trial(comparison, run, first, change, places)
            least = max(first.tolerance, ROUNDED)
            closer = (TURNED if change.rounds else CLOSER) * first.distance
            if after <= closer and (after <= least or change.rounds):
                cause = Cause(
                    kind=change.kind,
                    port=change.port,
                    torch=change.torch,
                    remedy=change.remedy,
                    before=first.distance,
                    after=after,
                )
                exact = after <= first.tolerance or change.rounds
                (found if exact else near).setdefault(change.key, (cause, change))
        # Where something else is rounded to float32, no cause makes it quite equal.
        causes_found = list((found or near).values())
        if causes_found:
            if len(causes_found) == 1:
                return [_followed(comparison, run, watch, *causes_found[0])]
            return [cause for cause, _ in causes_found]
    return []


def one(found: list[Cause]) -> Cause | None:
    """Return the explanation: a single cause, or the first of several of a single kind."""
    return found[0] if found and len({cause.kind for cause in found}) == 1 else None


def _recorded(comparison: Compared, run: Run) -> tuple[Intercept, dict[Place, int]]:
    """Call PyTorch once more; returns its calls, and how many came before each place."""
    watch, moments = Intercept(), dict[Place, int]()

    def told(place: Place) -> None:
        moments[place] = watch.count

    recorder = comparison.torch.recorder(comparison.wanted[0], told)
    comparison.load(run.precision)
    comparison.torch.forward(run.precision, recorder, train=run.train, altered=watch)
    return watch, moments


def _windows(run: Run, first: Value, moments: dict[Place, int]) -> Iterator[range]:
    """Yield the calls that may be the cause, narrow to wide."""
    last = max(moments.values(), default=0)
    end = moments.get(first.place, 1 << 30)
    if first.place.path.startswith(BUFFER):
        path = first.place.path.removeprefix(BUFFER).rpartition(".")[0]
        starts = [n for place, n in moments.items() if place.path == path and place.moment == IN]
        ends = [n for place, n in moments.items() if place.path == path and place.moment == OUT]
        yield range(min(starts, default=0), max(ends, default=last) + 1)
        yield range(0, 1 << 30)
        return
    before = run.before()
    start = moments.get(before.place, 0) if before else 0
    yield range(start, end)
    equal = {v.place for v in run.values if v.status == "equal"}
    path = first.place.path
    while "." in path:
        path = path.rpartition(".")[0]
        entered = Place(path, IN, 0)
        if entered in equal and entered in moments:
            yield range(moments[entered], end)
            break
    yield range(0, end)


def _grouped(watch: Intercept, numbers: range) -> list[tuple[Change, set[int]]]:
    """Return the changes of single calls, and of all calls that could be changed alike."""
    alike: dict[tuple[str, str], list[tuple[Change, int]]] = {}
    for number, offered in watch.offered.items():
        if number in numbers:
            for change in offered:
                alike.setdefault(change.key, []).append((change, number))
    found = []
    for members in alike.values():
        found.append((members[0][0], {number for _, number in members}))
        if 1 < len(members) <= 4:
            found += [(change, {number}) for change, number in members]
    return found


def _trial(comparison: Compared, run: Run, first: Value, change: Change, places: set[int]) -> float:
    """Return the first differing value's distance with some calls changed; infinity if it fails."""
    side, target = comparison.torch, first.place

    def told(place: Place) -> None:
        if place == target:
            raise Reached

    own = not target.path.startswith((OUTPUT, BUFFER))
    recorder = side.recorder({target.path} if own else (), told)
    if run.train:
        side.load(comparison.values, run.precision)  # training has changed the statistics
    called = None
    try:
        called = side.forward(
            run.precision, recorder, train=run.train, altered=Intercept(change, places)
        )
    except Reached:
        pass
    except UserError:  # what is changed no longer fits what comes after it
        return float("inf")
    if own:
        if target not in recorder.kept:
            return float("inf")
        return align.apart(recorder.kept[target], run.jax[run.together[target]])[0]
    assert called is not None
    if target.path.startswith(BUFFER):
        name = target.path.removeprefix(BUFFER)
        line = next(line for line in comparison.lines if line.torch == name)
        theirs = run.outputs[1].buffers[line.jax or ""]
        return align.apart(line.to_jax(called.buffers[name]), theirs)[0]
    name = target.path.removeprefix(OUTPUT)
    names = list(run.outputs[0].outputs)
    theirs_all = run.outputs[1].outputs
    other = name if set(names) == set(theirs_all) else list(theirs_all)[names.index(name)]
    return align.apart(called.outputs[name], theirs_all[other])[0]


def _followed(
    comparison: Compared, run: Run, watch: Intercept, cause: Cause, change: Change
) -> Cause:
    """Change every call that can be changed alike, and say what differs then."""
    alike = {n for n, offered in watch.offered.items() for c in offered if c.key == change.key}
    if len(alike) < 2:
        return cause
    altered = Intercept(change, alike)
    with contextlib.suppress(UserError):
        again = comparison.again(run, altered)
        if again.first is None:
            return replace(cause, also=len(alike) - 1)
    return cause
