"""Why a ladder fails: where a cause can be looked for, and what is said of it.

It is looked for where PyTorch is (`lockstep.port.traced`), which needs of JAX its trace alone. What
was found stands in the verdict, with the comparison that failed.
"""

import subprocess
from collections.abc import Mapping, Sequence, Set
from pathlib import Path, PurePath
from typing import Any

from lockstep import files
from lockstep.parity.compare import explain, failed_rung

SEARCHED = ("float64", "float32")  # the sharper one is climbed first
STATE = "step/buffer/"  # running statistics, which a forward pass has changed
IN_MODELS = {("float64", name) for name in ("layers", "forward", "loss", "input", "gradient")}
"""Rungs on which it is the models that differ, and not what trains them or how it is rounded."""

SECONDS = 600.0  # that a search may take

Verdict = Mapping[str, Any]
Variants = Mapping[str, Mapping[str, Any]]


def to_search(verdict: Verdict, variants: Variants) -> list[str]:
    """Return the variants of which a cause is to be looked for; tell of the others why it is not.

    Args:
        variants: of the study's config.
    """
    found = []
    for variant, comparison in verdict["comparisons"].items():
        failed = failed_rung(comparison)
        if failed is None:
            continue
        why = not_searched(failed, _frameworks(verdict, variant, variants))
        if why is None:
            found.append(variant)
        else:
            comparison["cause"] = told(f"its cause is not looked for: {why}")
    return found


def told(text: str, kind: str | None = None, causes: Sequence[Mapping] = ()) -> dict[str, Any]:
    """Return what a verdict says of a cause.

    Args:
        kind: of the one cause that explains the difference.
        causes: all that make the first differing value agree.
    """
    return {"text": text, "kind": kind, "causes": list(causes)}


def _frameworks(verdict: Verdict, variant: str, variants: Variants) -> set[str]:
    return {variants[v]["framework"] for v in (variant, verdict["reference"]) if v in variants}


def not_searched(failed: Mapping[str, Any], frameworks: Set[str]) -> str | None:
    """Return why no cause is looked for; None if one is.

    Args:
        failed: the first rung of a comparison that failed.
        frameworks: of its two variants.
    """
    precision, rung = failed["precision"], failed["name"]
    if frameworks != {"torch", "jax"}:
        return "known causes lie between PyTorch and JAX, and both variants are of one framework"
    if rung in ("weights", "batches", "random"):
        return "no layer differs, but what both models are given"
    if precision not in SEARCHED:
        return f"known causes are tried in {' and '.join(SEARCHED)} on one device alone"
    if rung in ("layers", "forward") or f"{rung}/{failed['first']}".startswith(STATE):
        return None
    if rung == "loss":
        return "layers and outputs are equal, and the loss that is made of them differs"
    if rung in ("gradient", "input"):
        return "what the models compute is equal, and its gradient alone differs"
    return "the models are equal, and how they are trained or evaluated differs"


def search(path: Path, command: Sequence[str]) -> dict[str, Any]:
    """Run a search in a process of its own, whose end harms no verdict; returns the verdict.

    Args:
        path: of the verdict, to which the command adds causes.
    """
    try:
        status = subprocess.run(command, stdout=subprocess.DEVNULL, timeout=SECONDS).returncode
        how = f"ended with status {status}"
    except subprocess.TimeoutExpired:
        how = f"took longer than {SECONDS:g} s"
    verdict: dict[str, Any] = files.read_json(path)
    for comparison in verdict["comparisons"].values():
        if failed_rung(comparison) and "cause" not in comparison:
            comparison["cause"] = told(f"its cause is not known: the search for it {how}")
    return verdict


def said(verdict: Verdict, variants: Variants, study: PurePath) -> dict[str, str]:
    """Return by variant what is to be said of why it differs; of what is told, in its words.

    Where no cause is named, it says what a person types to compare the two models, where both
    frameworks are installed.

    Args:
        variants: of the study's config.
        study: its study.json.
    """
    found = {}
    for variant, comparison in verdict["comparisons"].items():
        failed = failed_rung(comparison)
        if failed is None:
            continue
        cause = comparison.get("cause") or {}
        parts = [cause["text"]] if cause else []
        place = failed["precision"], failed["name"]
        both = _frameworks(verdict, variant, variants) == {"torch", "jax"}
        if both and not cause.get("kind") and place in IN_MODELS:
            command = f"python -m lockstep port {study} --workload {verdict['workload']}"
            parts.append(f"where both frameworks are installed, `{command}` compares the models")
        if parts:
            found[variant] = "; ".join(parts)
    return found


def lines(verdict: Verdict, variants: Variants, study: PurePath) -> list[str]:
    """Return one line for each comparison that failed: what differs first, and why."""
    found = said(verdict, variants, study)
    return [
        "; ".join(filter(None, [line, found.get(variant)]))
        for variant, line in explain(verdict).items()
    ]
