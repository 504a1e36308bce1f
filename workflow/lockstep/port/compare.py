"""Both sides' layers, one after the other: which is the first that differs?

It is judged as the ladder judges (`lockstep.parity`): by relative L2 distance, to 1e-11 in float64
and to ten times the distance of the closer framework's own twin in float32.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lockstep.errors import UserError
from lockstep.parity.distances import distance
from lockstep.port import align
from lockstep.port import lines as maps
from lockstep.port.lines import Line
from lockstep.port.seen import OUT, TAP, Called, Kept, Place
from lockstep.port.torch_side import TorchSide
from lockstep.port.value import BUFFER, DIFFERS, EQUAL, OUTPUT, Value, compared, held, marked
from lockstep.workloads import weights

if TYPE_CHECKING:  # of `ladder` an environment without JAX compares, too
    from lockstep.port.jax_side import JaxSide


@dataclass(frozen=True, kw_only=True)
class Run:
    """What both sides computed in one precision and mode.

    Attributes:
        together: PyTorch's places and JAX's.
        values: compared, in PyTorch's order: layers, outputs, statistics.
    """

    precision: str
    train: bool
    together: align.Pairs
    torch: Kept
    jax: Kept
    outputs: tuple[Called, Called]
    values: list[Value]

    @property
    def first(self) -> Value | None:
        """The first value that differs."""
        return next((value for value in self.values if value.status == DIFFERS), None)

    def before(self) -> Value | None:
        """Return the last value before the first one that differs."""
        found = None
        for value in self.values:
            if value.status == DIFFERS:
                return found
            found = value if value.status == EQUAL else found
        return None


class Twin(Mapping[str, np.ndarray]):
    """Weights moved by a few units in the last place of a precision, one tensor at a time."""

    def __init__(self, values: Mapping[str, np.ndarray], precision: str) -> None:
        self._values, self._precision = values, precision

    def __getitem__(self, name: str) -> np.ndarray:
        value, role = self._values[name], f"param/{name}"
        moved = weights.perturbed({role: value}, 0)[role]
        if self._precision == "bfloat16":
            return value * (1 + np.sign(moved - value) * np.float32(2**-8))
        return moved

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Comparison:
    """A pair that is ready to be compared: both sides, the map, and the weights.

    Args:
        values: PyTorch's tensors by name.
    """

    def __init__(
        self,
        torch: TorchSide,
        jax: "JaxSide",
        lines: Sequence[Line],
        values: Mapping[str, np.ndarray],
        orders: tuple[Mapping[str, int], Mapping[str, int]],
    ) -> None:
        self.torch, self.jax, self.lines, self.values = torch, jax, lines, values
        self.shapes = {name: value.shape for name, value in jax.values().items()}
        self.together = align.modules(lines)
        taps = [{p.removeprefix(TAP) for p in order if p.startswith(TAP)} for order in orders]
        self.wanted = (
            {*self.together, *taps[1]},
            {
                *(path for path, _ in self.together.values()),
                *(t.replace(".", "/") for t in taps[0]),
            },
        )

    def load(self, precision: str, *, twin: bool = False) -> None:
        """Load the weights into both sides, or those of a twin."""
        values = Twin(self.values, precision) if twin else self.values
        self.torch.load(values, precision)
        self.jax.load(maps.each_to_jax(self.lines, values, self.shapes), precision)

    def run(self, precision: str, *, train: bool = False) -> Run:
        """Run both sides, and both of their twins unless in float64, and compare.

        Raises:
            UserError: a side cannot be called, or their outputs have another structure.
        """
        sides: tuple[TorchSide | JaxSide, ...] = (self.torch, self.jax)
        recorders = [side.recorder(wanted) for side, wanted in zip(sides, self.wanted)]
        self.load(precision)
        ours = self.torch.forward(precision, recorders[0], train=train)
        theirs = self.jax.forward(precision, recorders[1], train=train)
        twins: list[tuple[Kept, Called]] = []
        if precision != "float64":
            self.load(precision, twin=True)
            for side, wanted in zip(sides, self.wanted):
                recorder = side.recorder(wanted)
                twins.append((recorder.kept, side.forward(precision, recorder, train=train)))
        kept = recorders[0].kept, recorders[1].kept
        together = align.places(self.together, kept[0], kept[1])
        run = Run(
            precision=precision,
            train=train,
            together=together,
            torch=kept[0],
            jax=kept[1],
            outputs=(ours, theirs),
            values=[],
        )
        values = [self._layer(run, twins, place) for place in together]
        values += self._outputs(run, twins)
        values += self._statistics(run, twins) if train else []
        return replace(run, values=marked(held(values, precision)))

    def again(self, run: Run, altered: contextlib.AbstractContextManager) -> Run:
        """Return a run with PyTorch altered, JAX as it was, and the tolerances of before."""
        self.load(run.precision)
        recorder = self.torch.recorder(self.wanted[0])
        ours = self.torch.forward(run.precision, recorder, train=run.train, altered=altered)
        changed = replace(run, torch=recorder.kept, outputs=(ours, run.outputs[1]))
        values = [self._layer(changed, [], place) for place in run.together]
        values += self._outputs(changed, [])
        values += self._statistics(changed, []) if run.train else []
        before = {value.place: value.tolerance for value in run.values}
        tolerated = [replace(value, tolerance=before[value.place]) for value in values]
        return replace(changed, values=marked(tolerated))

    def _layer(self, run: Run, twins: list[tuple[Kept, Called]], place: Place) -> Value:
        other = run.together[place]
        a, b = run.torch[place], run.jax[other]
        moved = []
        for kept, own, where in zip((run.torch, run.jax), twins, (place, other)):
            if where in own[0]:
                moved.append(distance(own[0][where], kept[where]))
        path = place.path.removeprefix(TAP)
        return compared(
            path if place.moment == OUT else f"input of {path}",
            place,
            a,
            b,
            moved,
            run.precision,
            (run.torch.dtypes[place], run.jax.dtypes[other]),
        )

    def _outputs(self, run: Run, twins: list[tuple[Kept, Called]]) -> list[Value]:
        ours, theirs = run.outputs[0].outputs, run.outputs[1].outputs
        if len(ours) != len(theirs) or not ours:
            said = [", ".join(f"{n} {v.shape}" for n, v in s.items()) for s in (ours, theirs)]
            raise UserError(
                f"{self.torch.pair.path}: outputs of another structure: PyTorch gives "
                f"{len(ours)} floating arrays ({said[0]}), JAX {len(theirs)} ({said[1]}); choose "
                "among them with torch_call and jax_call"
            )
        same = set(ours) == set(theirs)
        found = []
        for (name, a), other in zip(ours.items(), ours if same else theirs):
            b = theirs[other]
            moved = [
                distance(twin.outputs[own], base)
                for (_, twin), own, base in zip(twins, (name, other), (a, b))
            ]
            named = f"{OUTPUT}{name}".strip()
            dtypes = (str(a.dtype), str(b.dtype))
            place = Place(f"{OUTPUT}{name}", OUT, 0)
            found.append(compared(named, place, a, b, moved, run.precision, dtypes))
        return found

    def _statistics(self, run: Run, twins: list[tuple[Kept, Called]]) -> list[Value]:
        ours, theirs = run.outputs[0].buffers, run.outputs[1].buffers
        found = []
        for line in self.lines:
            if line.torch in ours and line.jax in theirs:
                a, b = line.to_jax(ours[line.torch]), theirs[line.jax]
                moved = [
                    distance(twin.buffers[own], base)
                    for (_, twin), own, base in zip(
                        twins, (line.torch, line.jax), (ours[line.torch], b)
                    )
                ]
                place = Place(f"{BUFFER}{line.torch}", OUT, 0)
                dtypes = (str(a.dtype), str(b.dtype))
                found.append(compared(place.path, place, a, b, moved, run.precision, dtypes))
        return found
