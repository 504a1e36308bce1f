"""What is seen of a model while it is called: its layers' inputs and outputs, in order."""

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lockstep.port.tapping import IN, OUT, TAP, listening

__all__ = ["IN", "OUT", "TAP", "Called", "Kept", "Place", "Recorder", "leaves", "listening"]

IN_MEMORY = 1 << 28  # bytes of values that are kept in memory; further ones go to disk


class Place(NamedTuple):
    """Where a value arose: a module's path, its input or output, and which call (from 0)."""

    path: str
    moment: str
    call: int


class Called(NamedTuple):
    """What a call of a model gives: its floating outputs by name, and the buffers afterwards."""

    outputs: dict[str, np.ndarray]
    buffers: dict[str, np.ndarray]


class Kept:
    """Values by place, in the order in which they arose; large amounts lie on disk."""

    def __init__(self) -> None:
        self._values: dict[Place, np.ndarray | Path] = {}
        self.dtypes: dict[Place, str] = {}
        self._bytes = 0
        self._folder: tempfile.TemporaryDirectory | None = None

    def __iter__(self) -> Iterator[Place]:
        return iter(self._values)

    def __contains__(self, place: Place) -> bool:
        return place in self._values

    def __getitem__(self, place: Place) -> np.ndarray:
        value = self._values[place]
        return np.load(value, mmap_mode="r") if isinstance(value, Path) else value

    def put(self, place: Place, value: np.ndarray, dtype: str) -> None:
        """Keep a value, whose own dtype may be one that NumPy does not have."""
        self.dtypes[place] = dtype
        self._bytes += value.nbytes
        if self._bytes <= IN_MEMORY:
            self._values[place] = value
            return
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="lockstep-port-")
        path = Path(self._folder.name) / f"{len(self._values)}.npy"
        np.save(path, value)
        self._values[place] = path


class Recorder:
    """Takes note of what the modules of one call of a model are given and give.

    Args:
        wanted: paths of the modules whose values are kept; None for the order of calls alone.
        read: a framework's array as NumPy's; None for what has no value yet (a tracer).
        told: is called with each place as soon as its value has been kept.
    """

    def __init__(
        self,
        wanted: Collection[str] | None,
        read: Callable[[Any], np.ndarray | None],
        told: Callable[[Place], None] = lambda place: None,
    ) -> None:
        self.kept, self.order = Kept(), dict[str, int]()
        self._wanted, self._read, self._told = wanted, read, told
        self._calls: dict[tuple[str, str], int] = {}

    def see(self, path: str, moment: str, value: Any) -> None:
        """Note a module's input or output: of several arrays the first one of floating point."""
        self.order.setdefault(path, len(self.order))
        if self._wanted is None or (path not in self._wanted and not path.startswith(TAP)):
            return
        for _, leaf in leaves(value):
            if "float" in str(leaf.dtype):
                read = self._read(leaf)
                if read is not None:
                    call = self._calls.get((path, moment), 0)
                    self._calls[path, moment] = call + 1
                    place = Place(path, moment, call)
                    self.kept.put(place, read, str(leaf.dtype).removeprefix("torch."))
                    self._told(place)
                return


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each array in a nested value with its name, in the order of its fields."""
    if value is None:
        return
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        yield name, value
        return
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, (list, tuple)):
        items = list(enumerate(value))
    elif is_dataclass(value):
        items = [(field.name, getattr(value, field.name)) for field in fields(value)]
    else:
        return
    for key, item in items:
        yield from leaves(item, f"{name}.{key}" if name else str(key))
