"""A map of parameters proposed from names, shapes, order and values, for a person to accept."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from lockstep.port import layouts, names
from lockstep.port.lines import Arrays, Line, Shapes
from lockstep.workloads.naming import Layout

FUSED = ("query", "key", "value")
STACKED = 0.7  # how alike a stack's name and its layers' are at least
LARGEST = 4000  # tensors of one shape class that are matched with each other


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of one side's tensors.

    Attributes:
        shapes: by name.
        order: when each module is called first, by path.
        values: where they are a clue: both sides hold the same weights.
    """

    shapes: Shapes
    order: Mapping[str, int]
    values: Arrays | None = None


def propose(torch: Known, jax: Known, kinds: Mapping[str, str]) -> list[Line]:
    """Return the likeliest map; tensors without a counterpart have no line, or JAX's is None.

    Args:
        kinds: of the PyTorch module that owns each tensor.
    """
    left, right = dict(torch.shapes), dict(jax.shapes)
    found: list[Line] = []
    for lines in (*_stacked(left, right, kinds), *_fused(left, right, kinds)):
        if all(line.torch in left and line.jax in right for line in lines):
            found += lines
            for line in lines:
                if line.torch_part is None or line.torch_part[0] == line.torch_part[1] - 1:
                    left.pop(line.torch, None)
            for line in lines:
                right.pop(line.jax or "", None)
    found += _matched(left, right, torch, jax, kinds)
    mapped = {line.torch for line in found}
    rank = {name: k for k, name in enumerate(torch.shapes)}
    found += [
        Line(torch=name, jax=None, reason="JAX has no such buffer")
        for name in torch.shapes.keys() - mapped
        if kinds.get(name) == "buffer"
    ]
    return sorted(found, key=lambda line: (rank[line.torch], line.torch_part or (0, 0, 0)))


def _stacked(left: Shapes, right: Shapes, kinds: Mapping[str, str]) -> Iterator[list[Line]]:
    """Yield the lines of each tensor of JAX that holds one tensor of each of several layers."""
    if len(left) <= len(right):
        return
    groups: dict[tuple[str, str], dict[int, str]] = {}
    for name in left:
        for hit in re.finditer(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)", name):
            groups.setdefault((name[: hit.start()], name[hit.end() :]), {})[int(hit[0])] = name
    for target, shape in right.items():
        best: tuple[float, list[Line]] = (0.0, [])
        for (before, after), members in groups.items():
            count = len(members)
            if count < 2 or shape[:1] != (count,) or sorted(members) != list(range(count)):
                continue
            alike = names.similarity(names.words(before + after), names.words(target))
            lines = []
            for k, name in sorted(members.items()):
                fit = layouts.guess(left[name], shape[1:], kinds.get(name, ""))
                if fit is None or len(left[name]) != len(shape) - 1:
                    break
                axes = fit[0].axes if fit[0] else tuple(range(len(left[name])))
                views = (left[name], left[name], (1, *shape[1:]))
                lines.append(
                    Line(
                        torch=name,
                        jax=target,
                        layout=Layout(axes=axes, views=views),
                        flip=fit[1],
                        jax_part=(k, count, 0),
                        reason=f"layer {k} of a stack of {count}; names alike ({alike:.2f})",
                    )
                )
            if len(lines) == count and alike > max(best[0], STACKED):
                best = (alike, lines)
        if best[1]:
            yield best[1]


def _fused(left: Shapes, right: Shapes, kinds: Mapping[str, str]) -> Iterator[list[Line]]:
    """Yield the lines of each tensor that holds query, key and value together."""
    for whole, parts, swapped in ((left, right, False), (right, left, True)):
        groups: dict[tuple[str, ...], dict[str, str]] = {}
        for name in parts:
            own = names.words(name)
            for role in FUSED:
                if role in own:
                    key = tuple(word for word in own if word != role)
                    groups.setdefault(key, {})[role] = name
        for key, members in groups.items():
            if len(members) != 3:
                continue
            candidates = []
            for name, shape in whole.items():
                own = names.words(name)
                fused = {"qkv", "in", "attn"} & set(own) and not set(FUSED) & set(own)
                if fused and own[-1] == key[-1]:
                    lines = _parts(name, shape, members, parts, kinds, swapped)
                    if lines:
                        candidates.append((names.similarity(key, tuple(own)), lines))
            if candidates:
                yield max(candidates, key=lambda found: found[0])[1]


def _parts(
    whole: str,
    shape: tuple[int, ...],
    members: Mapping[str, str],
    parts: Shapes,
    kinds: Mapping[str, str],
    swapped: bool,
) -> list[Line]:
    for axis in range(len(shape)):
        if shape[axis] % 3:
            continue
        piece = (*shape[:axis], shape[axis] // 3, *shape[axis + 1 :])
        lines = []
        for k, role in enumerate(FUSED):
            torch, jax = (members[role], whole) if swapped else (whole, members[role])
            shapes = (parts[members[role]], piece) if swapped else (piece, parts[members[role]])
            fit = layouts.guess(*shapes, kinds.get(torch, ""))
            if fit is None:
                break
            lines.append(
                Line(
                    torch=torch,
                    jax=jax,
                    layout=fit[0],
                    flip=fit[1],
                    reason=f"{role} of a fused tensor",
                    **{"jax_part" if swapped else "torch_part": (k, 3, axis)},
                )
            )
        if len(lines) == 3:
            return lines
    return []


def _matched(
    left: Shapes, right: Shapes, torch: Known, jax: Known, kinds: Mapping[str, str]
) -> list[Line]:
    """Return lines between single tensors: the best of all one-to-one matches, by shape class."""
    from scipy.optimize import linear_sum_assignment  # which JAX brings

    found = []
    classes: dict[tuple[int, ...], tuple[list[str], list[str]]] = {}
    for side, shapes in enumerate((left, right)):
        for name, shape in shapes.items():
            size = int(np.prod(shape))
            classes.setdefault((size,), ([], []))[side].append(name)
    places = [_places(left, torch.order, "."), _places(right, jax.order, "/")]
    numbered = names.ranked(torch.shapes, kinds), names.ranked(jax.shapes, {})
    for ours, theirs in classes.values():
        if not ours or not theirs or len(ours) > LARGEST:
            continue
        scores = np.full((len(ours), len(theirs)), -1e6)
        split = [
            [names.words(by_rank[name]) for name in side]
            for by_rank, side in zip(numbered, (ours, theirs))
        ]
        for i, a in enumerate(ours):
            for j, b in enumerate(theirs):
                fit = layouts.guess(left[a], right[b], kinds.get(a, ""))
                if fit is not None:
                    near = 1 - abs(places[0][a] - places[1][b])
                    scores[i, j] = names.similarity(split[0][i], split[1][j]) + near / 2
                    scores[i, j] += 10 * _equal(torch, jax, a, b, fit)
                    if kinds.get(a) == "Linear" and names.parted(b)[1] == "kernel" and not fit[0]:
                        scores[i, j] -= 1  # Flax has a kernel's inputs first
        for i, j in zip(*linear_sum_assignment(scores, maximize=True)):
            if scores[i, j] > -1e5:
                a, b = ours[i], theirs[j]
                fit = layouts.guess(left[a], right[b], kinds.get(a, ""))
                assert fit is not None
                reason = _reason(
                    names.similarity(split[0][i], split[1][j]), scores[i], j, len(theirs)
                )
                if scores[i, j] > 5:
                    reason = "equal values; " + reason
                found.append(Line(torch=a, jax=b, layout=fit[0], flip=fit[1], reason=reason))
    return _squares(found, left, kinds)


def _squares(found: list[Line], shapes: Shapes, kinds: Mapping[str, str]) -> list[Line]:
    """Lay square kernels out as the other kernels of their kind, whose shapes tell."""
    told: dict[str, set[bool]] = {}
    for line in found:
        shape = shapes[line.torch]
        if len(shape) == 2 and shape[0] != shape[1]:
            told.setdefault(kinds.get(line.torch, ""), set()).add(line.layout is not None)
    settled = []
    for line in found:
        shape, kind = shapes[line.torch], kinds.get(line.torch, "")
        if len(shape) == 2 and shape[0] == shape[1] and len(told.get(kind, ())) == 1:
            layout = layouts.DENSE if told[kind] == {True} else None
            viewed = line.layout is not None and line.layout.views
            if layout != line.layout and not viewed and not line.reason.startswith("equal values"):
                line = replace(line, layout=layout, reason=f"{line.reason}; laid out as the others")
        settled.append(line)
    return settled


def _reason(alike: float, scores: np.ndarray, chosen: int, count: int) -> str:
    others = np.delete(scores, chosen)
    only = "the only one of its shape" if count == 1 or others.max() < 0 else "shape"
    return f"{only}; names alike ({alike:.2f}); order"


def _places(shapes: Shapes, order: Mapping[str, int], separator: str) -> dict[str, float]:
    """Return where each tensor comes in the order of the calls, from 0 to 1."""
    last = max(order.values(), default=0) + 1
    found = {}
    for k, name in enumerate(shapes):
        path = name.rpartition(separator)[0]
        while path and path not in order:
            path = path.rpartition(separator)[0]
        found[name] = order[path] / last if path in order else k / max(1, len(shapes))
    return found


def _equal(torch: Known, jax: Known, a: str, b: str, fit: tuple[Layout | None, bool]) -> bool:
    if torch.values is None or jax.values is None:
        return False
    line = Line(torch=a, jax=b, layout=fit[0], flip=fit[1])
    return bool(np.allclose(line.to_jax(torch.values[a]), jax.values[b], rtol=1e-4, atol=1e-6))
