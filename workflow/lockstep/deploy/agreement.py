"""What compression costs and whether both frameworks agree, from the files of evaluations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.deploy.equality import decided
from lockstep.deploy.task import FLOAT32, LOGITS, STATIC, SUMS


def rows(
    scratch: Path,
    made: Mapping[str, Any],
    evaluated: Mapping[str, Mapping[str, Any]],
    forms: Sequence[str],
    states: int,
) -> list[dict[str, Any]]:
    """Return a row for each form, float32 first.

    Args:
        made: what `compressing` returned.
        evaluated: what `compressed` returned, by framework.
        states: how many final states were compressed.
    """
    found = []
    for form in (FLOAT32, *forms):
        about = {"reason": None, "bytes": made.get("float32_bytes"), "zeros": 0.0}
        about = about if form == FLOAT32 else made["forms"][form]
        row: dict[str, Any] = {"form": form, **about, "frameworks": {}}
        for framework, result in evaluated.items():
            told = result.get("forms", {}).get(form) or {"reason": result["reason"]}
            row["frameworks"][framework] = told
            if not about["reason"] and not told["reason"]:
                told["from_float32"] = _apart(scratch, [(framework, FLOAT32), (framework, form)])
        if not about["reason"] and len(evaluated) == 2:
            problems = [told["reason"] for told in row["frameworks"].values() if told["reason"]]
            if not problems:
                first, second = evaluated
                row["between"] = _apart(scratch, [(first, form), (second, form)])
                if form == STATIC:
                    row["sums"] = _sums(scratch, first, second, states)
        found.append(row)
    return found


def _apart(scratch: Path, pair: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return how far two evaluations of the first state are apart."""
    one, other = (np.load(scratch / LOGITS.format(f, form)) for f, form in pair)
    return {
        "largest": float(np.abs(one - other).max()),
        "scale": float(np.abs(one).max()),
        "decided_otherwise": int((decided(one) != decided(other)).sum()),
        "decisions": int(decided(one).size),
    }


def _sums(scratch: Path, first: str, second: str, states: int) -> dict[str, int]:
    """Return how many integer sums there are, how many are equal, and the largest difference."""
    compared = equal = largest = 0
    for number in range(states):
        paths = [scratch / SUMS.format(framework, number) for framework in (first, second)]
        with np.load(paths[0]) as one, np.load(paths[1]) as other:
            for name in one.files:
                apart = np.abs(one[name].astype(np.int64) - other[name])
                compared, equal = compared + apart.size, equal + int((apart == 0).sum())
                largest = max(largest, int(apart.max()))
    return {"compared": compared, "equal": equal, "largest": largest}
