"""The map of parameters: which tensor of PyTorch is which of JAX, and in which layout.

The map is a list of lines. A line says that a tensor of PyTorch, or an equal part of it, is a
tensor of JAX, or an equal part of it; parts serve fused kernels (query, key and value in one
tensor) and stacked layers (`nn.scan`). In its file a line is an object::

    {"torch": "fc.weight", "jax": "fc/kernel", "axes": [1, 0]}
    {"torch": "attn.in_proj_weight", "torch_part": [0, 3, 0], "jax": "query/kernel", …}

`axes` is the order of PyTorch's axes in JAX, ``[k, n, axis]`` the k-th of n parts along an axis,
`views` the shapes ``[PyTorch's, split, JAX's]`` where an axis stands for several, `flip` whether a
kernel's spatial axes are mirrored (which JAX's transposed convolutions need).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import files
from lockstep.errors import UserError
from lockstep.port import layouts
from lockstep.workloads.naming import Layout

Part = tuple[int, int, int]  # the k-th of n along an axis
Shapes = Mapping[str, tuple[int, ...]]
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a map; see the module.

    Attributes:
        jax: None where JAX has no such tensor, and need not.
        reason: why it was proposed.
    """

    torch: str
    jax: str | None
    layout: Layout | None = None
    flip: bool = False
    torch_part: Part | None = None
    jax_part: Part | None = None
    reason: str = ""

    def to_jax(self, values: np.ndarray) -> np.ndarray:
        """Return PyTorch's part in JAX's layout."""
        if self.flip:
            values = np.flip(values, tuple(range(2, values.ndim)))
        return self.layout.apply(values) if self.layout else values

    def to_torch(self, values: np.ndarray) -> np.ndarray:
        """Return JAX's part in PyTorch's layout."""
        values = self.layout.invert(values) if self.layout else values
        return np.flip(values, tuple(range(2, values.ndim))) if self.flip else values

    @property
    def said(self) -> str:
        """The layout in words."""
        words = [layouts.said(self.layout), "flipped" if self.flip else ""]
        for side, part in (("PyTorch's", self.torch_part), ("JAX's", self.jax_part)):
            if part:
                words.append(f"{side} part {part[0]} of {part[1]}")
        return ", ".join(filter(None, words)) or "the same"


def part_of(array: np.ndarray, part: Part | None) -> np.ndarray:
    """Return a view of an equal part of an array."""
    return array if part is None else np.split(array, part[1], axis=part[2])[part[0]]


def to_jax(lines: Iterable[Line], values: Arrays, shapes: Shapes) -> dict[str, np.ndarray]:
    """Return PyTorch's tensors under JAX's names and in its layouts."""
    return dict(each_to_jax(lines, values, shapes))


def each_to_jax(
    lines: Iterable[Line], values: Arrays, shapes: Shapes
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the same one by one, so that a large model is not held once more."""
    together: dict[str, list[Line]] = {}
    for line in lines:
        if line.jax is not None and line.torch in values:
            together.setdefault(line.jax, []).append(line)
    for name, own in together.items():
        if own[0].jax_part is None:
            yield name, own[0].to_jax(part_of(values[own[0].torch], own[0].torch_part))
            continue
        whole = np.empty(shapes[name], values[own[0].torch].dtype)
        for line in own:
            source = part_of(values[line.torch], line.torch_part)
            part_of(whole, line.jax_part)[...] = line.to_jax(source)
        yield name, whole


def to_torch(lines: Iterable[Line], values: Arrays, shapes: Shapes) -> dict[str, np.ndarray]:
    """Return JAX's tensors under PyTorch's names and in its layouts."""
    found: dict[str, np.ndarray] = {}
    for line in lines:
        if line.jax is not None and line.jax in values:
            source = part_of(values[line.jax], line.jax_part)
            whole = found.setdefault(line.torch, np.empty(shapes[line.torch], source.dtype))
            part_of(whole, line.torch_part)[...] = line.to_torch(source)
    return found


def check(lines: Sequence[Line], torch: Shapes, jax: Shapes, unused: Iterable[str] = ()) -> None:
    """Check that a map is a bijection between the tensors of both sides, with fitting shapes.

    Args:
        torch, jax: shapes by name.
        unused: names of tensors that need no line.

    Raises:
        UserError: names the first that is missing, doubled, unknown or of another shape.
    """
    unused = set(unused)
    for side, known, of in (("PyTorch", torch, "torch"), ("JAX", jax, "jax")):
        parts: dict[str, list[Part | None]] = {}
        for line in lines:
            name = getattr(line, of)
            if name is None:
                continue
            if name not in known:
                raise UserError(f"the map names {name}, which {side} does not have")
            parts.setdefault(name, []).append(getattr(line, f"{of}_part"))
        for name in known:
            if name not in parts and name not in unused:
                raise UserError(
                    f"the map has no line for {side}'s {name} {known[name]}; it has {len(torch)} "
                    f"tensors in PyTorch and {len(jax)} in JAX; add a line, or name it in `unused`"
                )
            found = parts.get(name, [])
            whole = found == [None]
            if found and not whole and (None in found or not _complete([p for p in found if p])):
                raise UserError(f"the map has {side}'s {name} twice, or not all of its parts")
    for line in lines:
        if line.jax is None:
            continue
        try:
            source = part_of(np.empty(torch[line.torch], np.uint8), line.torch_part)
            target = part_of(np.empty(jax[line.jax], np.uint8), line.jax_part)
            made = line.to_jax(source).shape
        except ValueError as error:
            raise UserError(f"the map's line for {line.torch} does not fit: {error}") from error
        if made != target.shape:
            raise UserError(
                f"the map's line for {line.torch} {torch[line.torch]} does not fit "
                f"{line.jax} {jax[line.jax]}: it gives {made}"
            )


def _complete(parts: list[Part]) -> bool:
    return len({part[1:] for part in parts}) == 1 and sorted(p[0] for p in parts) == list(
        range(parts[0][1])
    )


def save(path: Path, lines: Iterable[Line]) -> None:
    """Write a map's file, a line of text per line of the map."""
    rows = []
    for line in lines:
        row: dict[str, Any] = {"torch": line.torch, "jax": line.jax}
        if line.layout and line.layout.axes != tuple(range(len(line.layout.axes))):
            row["axes"] = list(line.layout.axes)
        if line.layout and line.layout.views:
            row["views"] = [list(shape) for shape in line.layout.views]
        for name in ("flip", "torch_part", "jax_part", "reason"):
            if getattr(line, name):
                row[name] = getattr(line, name)
        rows.append("  " + json.dumps(row))
    with files.atomic(path) as temporary:
        temporary.write_text("[\n" + ",\n".join(rows) + "\n]\n")


def load(path: Path) -> list[Line]:
    """Read a map's file.

    Raises:
        UserError: it is not one.
    """
    try:
        rows = json.loads(path.read_text())
        return [_line(row) for row in rows]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path}: not a map of parameters ({error}); remove it, and --accept writes it again"
        ) from error


def _line(row: Mapping[str, Any]) -> Line:
    axes, views, layout = row.get("axes"), row.get("views"), None
    if axes or views:
        shapes = tuple(tuple(shape) for shape in views) if views else None
        axes = tuple(axes) if axes else tuple(range(len(shapes[1])))  # type: ignore[index]
        layout = Layout(axes=axes, views=shapes)  # type: ignore[arg-type]
    parts = {n: tuple(row[n]) for n in ("torch_part", "jax_part") if row.get(n)}
    return Line(
        torch=row["torch"],
        jax=row["jax"],
        layout=layout,
        flip=bool(row.get("flip")),
        reason=row.get("reason", ""),
        **parts,
    )


def given(parameters: Any, torch: Shapes, jax: Shapes, kinds: Mapping[str, str]) -> list[Line]:
    """Return the lines of a map that a pair's file holds: a list of objects, or names alone.

    Names alone are a dictionary from PyTorch's names to JAX's; the layout follows from shapes.

    Raises:
        UserError: a name is unknown, or no layout makes one shape of the other.
    """
    if isinstance(parameters, (list, tuple)):
        return [_line(row) for row in parameters]
    lines = []
    for name, target in parameters.items():
        for side, known, word in (("PyTorch", torch, name), ("JAX", jax, target)):
            if word is not None and word not in known:
                raise UserError(f"parameters names {word}, which {side} does not have")
        if target is None:
            lines.append(Line(torch=name, jax=None, reason="given"))
            continue
        fit = layouts.guess(torch[name], jax[target], kinds.get(name, ""))
        if fit is None:
            raise UserError(
                f"parameters: no layout makes {target} {jax[target]} of {name} {torch[name]}"
            )
        lines.append(Line(torch=name, jax=target, layout=fit[0], flip=fit[1], reason="given"))
    return lines
