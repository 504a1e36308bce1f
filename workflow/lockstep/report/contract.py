"""Compares the contracts of compared runs: every difference is declared by a variant, or flagged.

A *fact* is anything in a record that could explain a difference. Facts that the frameworks word
differently are brought into one wording first (`lockstep.report.facts`). A rule then says for each
fact what a difference means; a fact without a rule is flagged, so that a new one is never silent.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lockstep.report.facts import Facts, nodes

DECLARED = "declared"  # the variants say so: it is what is compared
FLAGGED = "flagged"  # shown beside the verdict
BLOCKS = "not comparable"  # there is no verdict
IGNORED = "ignored"

TIMING = "timing"
PREPARATION = "preparation"
BOTH = "both"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What differed between compared runs.

    Attributes:
        fact: its dotted name.
        label: in words.
        baseline, candidate: the values met, each once.
        level: `declared`, `flagged` or `not comparable`.
        touches: what it could explain: `timing`, `preparation` (compile time alone) or `both`.
        why: what to think of it.
        pairs: in how many pairs it differed.
        of: how many pairs there were.
    """

    fact: str
    label: str
    baseline: tuple[str, ...]
    candidate: tuple[str, ...]
    level: str
    touches: str
    why: str
    pairs: int
    of: int


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a difference in the facts that match `pattern` means."""

    pattern: re.Pattern[str]
    label: str
    level: str
    touches: str
    why: str


def _rule(pattern: str, label: str, level: str, touches: str, why: str) -> Rule:
    return Rule(pattern=re.compile(pattern), label=label, level=level, touches=touches, why=why)


RULES = (
    _rule(r"variant\.", "setting of the variant", DECLARED, BOTH, "it is what is compared"),
    _rule(r"recipe\.", "recipe", BLOCKS, BOTH, "they did not train the same thing"),
    _rule(r"dataset\.content", "dataset", BLOCKS, BOTH, "they did not learn from the same data"),
    _rule(r"weights\.initial", "initial weights", BLOCKS, BOTH, "they did not start alike"),
    _rule(r"batches", "batches consumed", BLOCKS, BOTH, "other examples, labels or order"),
    _rule(r"steps", "number of steps", BLOCKS, BOTH, "they did not train equally long"),
    _rule(r"precision\.", "precision", BLOCKS, BOTH, "they computed at different precision"),
    _rule(r"topology\.(devices|examples)", "topology", BLOCKS, BOTH, "not the same scale"),
    _rule(r"topology\.threads", "CPU threads", BLOCKS, TIMING, "not the same means"),
    _rule(r"topology\.window_steps", "steps of a window", FLAGGED, TIMING, "fenced less often"),
    _rule(
        r"topology\.environment", "thread setting", FLAGGED, TIMING, "threads wait in another way"
    ),
    _rule(r"device\.kind", "kind of device", BLOCKS, TIMING, "not the same means"),
    _rule(r"gpu\.model", "GPU model", BLOCKS, TIMING, "not the same means"),
    _rule(
        r"gpu\.units", "GPU units", FLAGGED, TIMING, "units of one model differ by a few percent"
    ),
    _rule(r"gpu\.driver", "GPU driver", FLAGGED, TIMING, "drivers differ in speed"),
    _rule(r"host\.(cpu|instruction_set)", "CPU", BLOCKS, TIMING, "not the same means"),
    _rule(r"host\.cores", "CPU cores", BLOCKS, TIMING, "not the same means"),
    _rule(r"host\.node", "node", FLAGGED, TIMING, "one node may be slower than another"),
    _rule(r"host\.(system|python)", "system", FLAGGED, TIMING, "small effects are possible"),
    _rule(r"host\.job", "job", IGNORED, TIMING, ""),
    _rule(r"image\.", "container image", FLAGGED, BOTH, "another image ran"),
    _rule(r"cuda\.generation", "CUDA generation", FLAGGED, TIMING, "other kernels and libraries"),
    _rule(r"cuda\.version", "CUDA version", FLAGGED, TIMING, "other kernels and libraries"),
    _rule(r"cudnn", "cuDNN", FLAGGED, TIMING, "other convolution kernels"),
    _rule(r"nccl", "NCCL", FLAGGED, TIMING, "other communication kernels"),
    _rule(r"environment\.", "package", FLAGGED, BOTH, "not the same library"),
    _rule(
        r"engine\.(torch|jax|jaxlib|flax|optax)$", "library", FLAGGED, BOTH, "not the same library"
    ),
    _rule(r"cache", "compilation cache", FLAGGED, PREPARATION, "touches compile time alone"),
)

BETWEEN = re.compile(
    r"variant\.|topology\.threads|device\.|gpu\.|host\.|cuda\.|cudnn|nccl|environment\.|code|"
    r"engine\.|image"
)
"""Facts that two studies are compared to tell apart: another cluster, another library version."""

FOLLOWS = {
    "engine.compiled": ("framework", "mode"),
    "engine.evaluation": ("framework", "mode"),
    "engine.gradient_communication_dtype": ("framework", "mode", "precision"),
    "engine.accumulation_dtype": ("precision",),
    "engine.normalisation_dtype": ("precision",),
    "engine.x64": ("precision",),
    "engine.deterministic": ("deterministic",),
    "engine.autotuned": ("deterministic",),
    "engine.devices": ("process",),
}
"""Settings that an engine's fact follows from: it is declared only where one of them differs."""

UNDECLARED = "no variant declares it and no rule knows it"


def diff(
    pairs: Sequence[tuple[Facts, Facts]], *, between_studies: bool = False
) -> list[Difference]:
    """Return what differed between the runs of `pairs`, the gravest first.

    Args:
        pairs: facts of baseline and candidate.
        between_studies: hardware, libraries and code are then what is compared.
    """
    found: dict[str, list[tuple[Any, Any]]] = {}
    for baseline, candidate in pairs:
        for name in baseline.keys() | candidate.keys():
            a, b = baseline.get(name), candidate.get(name)
            if a != b:
                found.setdefault(name, []).append((a, b))
    result = []
    for name, values in found.items():
        level, label, touches, why = _judge(name, values, pairs[0], between_studies)
        if level == IGNORED:
            continue
        was, has = (_shown(side) for side in zip(*values, strict=True))
        result.append(
            Difference(
                fact=name,
                label=label,
                baseline=was,
                candidate=has,
                level=level,
                touches=touches,
                why=why,
                pairs=len(values),
                of=len(pairs),
            )
        )
    order = {BLOCKS: 0, FLAGGED: 1, DECLARED: 2}
    return sorted(result, key=lambda d: (order[d.level], d.fact))


def _judge(
    name: str, values: Sequence[tuple[Any, Any]], first: tuple[Facts, Facts], between: bool
) -> tuple[str, str, str, str]:
    """Return level, label, touches and why of a fact that differed."""
    a, b = first
    same_framework = a["variant.framework"] == b["variant.framework"]
    unknown = all(x is None or y is None for x, y in values)
    rule = next((r for r in RULES if r.pattern.match(name)), None)
    label = rule.label if rule else name
    touches = rule.touches if rule else BOTH
    if between and BETWEEN.match(name):
        return DECLARED, label, touches, "the studies are compared to tell this apart"
    if name == "batches" and "native" in (a["variant.input"], b["variant.input"]):
        return DECLARED, label, touches, "a variant declares its own input"
    if name.startswith("precision.") and a["variant.precision"] != b["variant.precision"]:
        return DECLARED, label, touches, "the variants declare another precision"
    if name == "cuda.version" and a["cuda.generation"] != b["cuda.generation"]:
        return IGNORED, label, touches, "said by the generation"
    if name == "cache" and any("none" in pair for pair in values):
        return IGNORED, label, touches, "nothing is compiled on one side"
    if name.startswith("image.") and not same_framework:
        return DECLARED, label, touches, "each framework has its own image"
    if name == "code":
        level = FLAGGED if same_framework else DECLARED
        return level, "code", BOTH, "an engine's own" if not same_framework else "other code ran"
    if rule and rule.level != BLOCKS and unknown:
        # One side does not say: its framework has no such thing, or does not tell.
        return (IGNORED if not same_framework else rule.level), label, touches, rule.why
    if rule:
        return rule.level, label, touches, rule.why
    if name.startswith("engine."):
        if unknown and not same_framework:
            return IGNORED, label, touches, ""
        sources = [f"variant.{setting}" for setting in FOLLOWS.get(name, ())]
        changed = [source for source in sources if a.get(source) != b.get(source)]
        if changed:
            return DECLARED, label, touches, f"follows from {' and '.join(changed)}"
    return FLAGGED, label, touches, UNDECLARED


LEAST_PAIRS = 2
"""Pairs on equal nodes from which times are compared where the other pairs are left out."""


def confounded(
    pairs: Mapping[int, tuple[Facts, Facts]],
) -> tuple[Mapping[int, str], Difference | None]:
    """Return which pairs say nothing of time because their runs were on other nodes, and why.

    There a slower node and a slower variant look the same. It cancels out if every node served both
    sides equally often; else only pairs that had equal nodes count, if there are enough of them.

    Args:
        pairs: facts of baseline and candidate, by seed.

    Returns:
        Reasons by seed; and a difference that forbids a verdict on time, if too few pairs are left.
    """
    used = {seed: tuple(sorted(nodes(facts)) for facts in pair) for seed, pair in pairs.items()}
    apart = {seed: (a, b) for seed, (a, b) in used.items() if a and b and a != b}
    served = [Counter(node for pair in apart.values() for node in pair[side]) for side in (0, 1)]
    if served[0] == served[1]:
        return {}, None
    if len(pairs) - len(apart) >= LEAST_PAIRS:
        return {
            seed: f"its two runs were on other nodes ({', '.join(b)} against {', '.join(a)})"
            for seed, (a, b) in apart.items()
        }, None
    return {}, Difference(
        fact="host.node (of a pair)",
        label="node",
        baseline=_shown(served[0]),
        candidate=_shown(served[1]),
        level=BLOCKS,
        touches=TIMING,
        why=(
            "the two runs of a pair were not on the same node, and nodes did not serve both sides "
            "equally: a slower node would look like a slower variant"
        ),
        pairs=len(apart),
        of=len(pairs),
    )


def _shown(values: Iterable[Any]) -> tuple[str, ...]:
    shown = sorted({"not stated" if v is None else str(v) for v in values})
    return tuple(shown if len(shown) <= 4 else [*shown[:3], f"and {len(shown) - 3} others"])
