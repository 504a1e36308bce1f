"""What the name of a tensor says: the words that both frameworks use, and the number of a layer."""

import re
from collections.abc import Iterable, Mapping, Sequence

SAME = {
    **dict.fromkeys(("weight", "kernel", "scale", "embedding", "gamma", "w"), "weight"),
    **dict.fromkeys(("bias", "beta", "b"), "bias"),
    **dict.fromkeys(("running_mean", "mean"), "mean"),
    **dict.fromkeys(("running_var", "var"), "var"),
    **dict.fromkeys(("q", "query", "q_proj", "wq"), "query"),
    **dict.fromkeys(("k", "key", "k_proj", "wk"), "key"),
    **dict.fromkeys(("v", "value", "v_proj", "wv"), "value"),
    **dict.fromkeys(("out", "o_proj", "out_proj", "wo"), "out"),
    **dict.fromkeys(("layers", "layer", "blocks", "block", "h"), "layer"),
    **dict.fromkeys(("ln", "norm", "layernorm", "layer_norm"), "norm"),
}
"""Words that the two frameworks' models use for one thing."""


def words(name: str) -> list[str]:
    """Return the words of a tensor's name that both frameworks share."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    found = []
    for part in re.split(r"[./]", name):
        if part in SAME:
            found.append(SAME[part])
            continue
        for word in re.findall(r"[a-z]+|\d+", part):
            found.append(SAME.get(word, word))
    return found


def ranked(names: Iterable[str], kinds: Mapping[str, str]) -> dict[str, str]:
    """Return names in which each number is its rank among its siblings'.

    One framework counts layers from 1 (``fc1``), the other from 0 (``Dense_0``), and a container
    may count what has no tensors, too. Modules of several kinds in one are counted apart.

    Args:
        kinds: of the module that owns each tensor; where absent, what its tensors are called tells.
    """
    names = list(names)
    owned: dict[str, set[str]] = {}
    for name in names:
        path, leaf = parted(name)
        owned.setdefault(path, set()).add(leaf)
    siblings: dict[tuple, set[int]] = {}
    places: dict[str, list[tuple[re.Match[str], tuple]]] = {}
    for name in names:
        path, _ = parted(name)
        for hit in re.finditer(r"\d+", name):
            last = hit.end() == len(path)
            kind = kinds.get(name) or tuple(sorted(owned[path] - {"bias"}))
            group = (path[: hit.start()], kind if last else None)
            siblings.setdefault(group, set()).add(int(hit[0]))
            places.setdefault(name, []).append((hit, group))
    found = {}
    for name in names:
        text = name
        for hit, group in reversed(places.get(name, [])):
            rank = sorted(siblings[group]).index(int(hit[0]))
            text = f"{text[: hit.start()]}{rank}{text[hit.end() :]}"
        found[name] = text
    return found


def parted(name: str) -> tuple[str, str]:
    """Return the path of the module that owns a tensor, and what it calls the tensor."""
    path, _, leaf = name.rpartition("/" if "/" in name else ".")
    return path, leaf


def similarity(a: Sequence[str], b: Sequence[str]) -> float:
    """Return how alike two names are: shared words, and in full only if their numbers agree."""
    if not a or not b:
        return 0.0
    shared = 2 * len(set(a) & set(b)) / (len(set(a)) + len(set(b)))
    numbers = [[word for word in name if word.isdigit()] for name in (a, b)]
    same = numbers[0] == numbers[1]
    return 0.5 * shared + 0.2 * same + 0.3 * (a[-1] == b[-1])
