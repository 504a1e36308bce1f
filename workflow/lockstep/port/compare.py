"""Both sides' layers, one after the other: which is the first that differs?

It is judged as the ladder judges (`lockstep.parity`): by relative L2 distance, to 1e-11 in float64
and to ten times the distance of the closer framework's own twin in float32.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lockstep.errors import UserError
from lockstep.parity import rung
from lockstep.parity.distances import ENVELOPE, TOLERANCE, distance, tolerance_from_twin
from lockstep.port import align
from lockstep.port import lines as maps
from lockstep.port.jax_side import JaxSide
from lockstep.port.lines import Line
from lockstep.port.seen import OUT, TAP, Called, Kept, Place
from lockstep.port.torch_side import TorchSide
from lockstep.workloads import weights

FIRM = {**TOLERANCE, "bfloat16": 1e-2}
ROUNDED = 2e-7
"""What a constant that was rounded to float32 moves a float64 value by, where it enters."""
OUTPUT, BUFFER = "output ", "statistics "
EQUAL, DIFFERS, FOLLOWS, ELSEWHERE = "equal", "differs", "follows", "elsewhere"


@dataclass(frozen=True, kw_only=True)
class Value:
    """One compared value.

    Attributes:
        name: of the layer, with "input of" before it if that is looked at.
        place: in PyTorch.
        distance, tolerance: relative.
        layout: in which PyTorch's is compared, where it is another than JAX's.
        shapes, dtypes: of PyTorch and of JAX.
        status: `EQUAL`, `DIFFERS` (the first), `FOLLOWS` (from the first), `ELSEWHERE` (looked at
            in two places of a block whose output is equal).
        why: what is special about it.
    """

    name: str
    place: Place
    distance: float
    tolerance: float
    layout: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    dtypes: tuple[str, str]
    status: str = EQUAL
    why: str = ""


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
        jax: JaxSide,
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
        recorders = [side.recorder(w) for side, w in zip((self.torch, self.jax), self.wanted)]
        self.load(precision)
        ours = self.torch.forward(precision, recorders[0], train=train)
        theirs = self.jax.forward(precision, recorders[1], train=train)
        twins: list[tuple[Kept, Called]] = []
        if precision != "float64":
            self.load(precision, twin=True)
            for side, wanted in zip((self.torch, self.jax), self.wanted):
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
        return replace(run, values=_marked(_held(values, precision)))

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
        held = [replace(value, tolerance=before[value.place]) for value in values]
        return replace(changed, values=_marked(held))

    def _layer(self, run: Run, twins: list[tuple[Kept, Called]], place: Place) -> Value:
        other = run.together[place]
        a, b = run.torch[place], run.jax[other]
        moved = []
        for kept, own, where in zip((run.torch, run.jax), twins, (place, other)):
            if where in own[0]:
                moved.append(distance(own[0][where], kept[where]))
        path = place.path.removeprefix(TAP)
        return _value(
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
            found.append(_value(named, place, a, b, moved, run.precision, dtypes))
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
                found.append(_value(place.path, place, a, b, moved, run.precision, dtypes))
        return found


def _value(
    name: str,
    place: Place,
    a: np.ndarray,
    b: np.ndarray,
    moved: list[float],
    precision: str,
    dtypes: tuple[str, str],
) -> Value:
    value, layout = align.apart(a, b)
    allowed = FIRM[precision]
    if moved:
        twin = min(moved)
        allowed = tolerance_from_twin(twin)
        if precision == "bfloat16":
            allowed = max(FIRM[precision], ENVELOPE * twin if np.isfinite(twin) else 0.0)
    why = ""
    wrong = [np.size(x) - np.count_nonzero(np.isfinite(x)) for x in (a, b)]
    if any(wrong):
        why = (
            f"{wrong[0]} of {np.size(a)} values are not finite in PyTorch, "
            f"{wrong[1]} of {np.size(b)} in JAX"
        )
        if layout_equal(a, b):
            value, why = 0.0, f"{why}, the same ones"
    elif not math.isfinite(value):
        why = "no layout makes one shape of the other"
    return Value(
        name=name,
        place=place,
        distance=value,
        tolerance=allowed,
        layout=layout,
        shapes=(tuple(a.shape), tuple(b.shape)),
        dtypes=dtypes,
        why=why,
    )


def layout_equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two values with infinities or NaN are equal in some layout, to 1e-5."""
    return any(
        np.allclose(x, b, rtol=1e-5, atol=1e-6, equal_nan=True)
        for _, x in align.candidates(a, tuple(b.shape))
    )


def _held(values: list[Value], precision: str) -> list[Value]:
    """Hold what comes after a layer that computes in float32 to float32's tolerance."""
    found, island = [], False
    for value in values:
        if precision == "float64" and set(value.dtypes) != {"float64"}:
            island = True
        if island:
            value = replace(
                value,
                tolerance=FIRM["float32"],
                why=value.why or f"computed in {' and '.join(sorted(set(value.dtypes)))}",
            )
        found.append(value)
    return found


def _marked(values: list[Value]) -> list[Value]:
    """Say of each value whether it is equal, the first that differs, or what follows from that."""
    beyond = [not value.distance <= value.tolerance for value in values]
    outputs = [b for v, b in zip(values, beyond) if v.place.path.startswith((OUTPUT, BUFFER))]
    sound = {v.place.path for v, b in zip(values, beyond) if not b and v.place.moment == OUT}
    marked: list[Value] = []
    for value, differs in zip(values, beyond):
        status = DIFFERS if differs else EQUAL
        own = value.place.path.startswith((OUTPUT, BUFFER))
        if differs and not own and (not any(outputs) or _inside(value.place.path, sound)):
            status = ELSEWHERE
        marked.append(replace(value, status=status))
    items = [
        (str(k), v.distance, v.tolerance) for k, v in enumerate(marked) if v.status != ELSEWHERE
    ]
    first = rung.judge("", "layers", items, "layers").first
    return [
        replace(v, status=FOLLOWS) if v.status == DIFFERS and str(k) != first else v
        for k, v in enumerate(marked)
    ]


def _inside(path: str, sound: set[str]) -> bool:
    parts = path.split(".")
    return any(".".join(parts[:k]) in sound for k in range(1, len(parts)))
