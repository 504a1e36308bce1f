"""Compares the contracts of compared runs: every difference is declared by a variant, or flagged.

A *fact* is anything in a record that could explain a difference; `lockstep.records.run_facts` words
it the same for both frameworks. A rule says for each fact what a difference means; a fact without a
rule is flagged, so that a new one is never silent.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lockstep.records.run_facts import Facts, nodes

DECLARED = "declared"  # the variants say so: it is what is compared
FLAGGED = "flagged"  # shown beside the verdict
BLOCKS = "not comparable"  # there is no verdict
IGNORED = "ignored"
GRAVEST = (BLOCKS, FLAGGED, DECLARED)

TIMING = "timing"
PREPARATION = "preparation"
BOTH = "both"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What differed between compared runs."""

    fact: str  # its dotted name
    label: str  # in words
    baseline: tuple[str, ...]  # the values met, each once
    candidate: tuple[str, ...]
    level: str  # `declared`, `flagged` or `not comparable`
    touches: str  # what it could explain: `timing`, `preparation` (compile time alone) or `both`
    why: str  # an assessment
    pairs: int  # in how many pairs it differed
    of: int  # how many pairs there were


RULES = [
    [field.strip() for field in line.split(" | ")]
    for line in r"""
    variant\. | setting of the variant | declared | both | it is what is compared
    recipe\. | recipe | not comparable | both | they did not train the same thing
    dataset\.content | dataset | not comparable | both | they did not learn from the same data
    weights\.initial | initial weights | not comparable | both | they started from other weights
    batches | batches consumed | not comparable | both | they read other examples, labels or order
    steps | number of steps | not comparable | both | they did not train equally long
    precision\. | precision | not comparable | both | they computed at different precision
    topology\.(devices|examples) | topology | not comparable | both | not the same scale
    topology\.threads | CPU threads | not comparable | timing | they did not have equal resources
    topology\.window_steps | steps of a window | flagged | timing | clocks were read less often
    topology\.environment\.MALLOC | memory setting | flagged | timing | memory is kept otherwise
    topology\.environment | thread setting | flagged | timing | threads wait in another way
    device\.kind | kind of device | not comparable | timing | they did not have equal resources
    gpu\.model | GPU model | not comparable | timing | they did not have equal resources
    gpu\.units | GPU units | flagged | timing | units of one model differ by a few percent
    gpu\.driver | GPU driver | flagged | timing | drivers differ in speed
    host\.cores | CPU cores | not comparable | timing | they did not have equal resources
    host\.(cpu|instruction_set) | CPU | not comparable | timing | they did not have equal resources
    host\.node | node | flagged | timing | one node may be slower than another
    host\.(system|python) | system | flagged | timing | small effects are possible
    image\. | container image | flagged | both | another image ran
    cuda\.generation | CUDA generation | flagged | timing | other kernels and libraries
    cuda\.version | CUDA version | flagged | timing | other kernels and libraries
    cudnn | cuDNN | flagged | timing | other convolution kernels
    nccl | NCCL | flagged | timing | other communication kernels
    environment\. | package | flagged | both | not the same library
    engine\.(torch|jax|jaxlib|flax|optax)$ | library | flagged | both | not the same library
    engine\.denormals | numbers below 1e-38 | flagged | timing | some CPUs take long over them
    cache | compilation cache | flagged | preparation | touches compile time alone
    """.strip().splitlines()
]
"""Pattern of a fact's name, label, level, what it touches, assessment; the first match counts."""

BETWEEN = re.compile(
    r"variant\.|topology\.threads|device\.|gpu\.|host\.|cuda\.|cudnn|nccl|environment\.|code|"
    r"engine\.|image"
)
"""Facts that two studies are compared for: another cluster, another version of a library."""

FOLLOWS = {
    **dict.fromkeys(
        ("engine.compiled", "engine.evaluation", "engine.graph_breaks"), ("framework", "mode")
    ),
    "engine.gradient_communication_dtype": ("framework", "mode", "precision"),
    **dict.fromkeys(("engine.accumulation_dtype", "engine.normalisation_dtype"), ("precision",)),
    "engine.x64": ("precision",),
    **dict.fromkeys(("engine.deterministic", "engine.autotuned"), ("deterministic",)),
    "engine.devices": ("process",),
}
"""Settings that an engine's fact follows from: it is declared only where one of them differs."""


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
        was, has = (_shown(side) for side in zip(*values))
        judged: dict[str, Any] = {"level": level, "label": label, "touches": touches, "why": why}
        judged |= {"baseline": was, "candidate": has, "pairs": len(values), "of": len(pairs)}
        result.append(Difference(fact=name, **judged))
    known = [d for d in result if d.level != IGNORED]
    return sorted(known, key=lambda d: (GRAVEST.index(d.level), d.fact))


def _judge(
    name: str, values: Sequence[tuple[Any, Any]], first: tuple[Facts, Facts], between: bool
) -> tuple[str, str, str, str]:
    """Return level, label, touches and why of a fact that differed."""
    a, b = first
    same_framework = a["variant.framework"] == b["variant.framework"]
    rule = next((r for r in RULES if re.match(r[0], name)), None)
    unknown = ("", name, FLAGGED, BOTH, "no variant declares it and no rule knows it")
    _, label, level, touches, why = rule or unknown
    declared = ignored = None
    if between and BETWEEN.match(name):
        declared = "the studies are compared to show what it does"
    elif name == "batches" and "native" in (a["variant.input"], b["variant.input"]):
        declared = "a variant declares its own input"
    elif name.startswith("precision.") and a["variant.precision"] != b["variant.precision"]:
        declared = "the variants declare another precision"
    elif name == "cuda.version" and a["cuda.generation"] != b["cuda.generation"]:
        ignored = "the generation says it"
    elif name == "cache" and any("none" in pair for pair in values):
        ignored = "nothing is compiled on one side"
    elif name.startswith("image.") and not same_framework:
        declared = "each framework has its own image"
    elif name == "code":
        why = "other code ran"
        declared = None if same_framework else "each engine has its own code"
    elif (
        not same_framework
        and all(None in pair for pair in values)
        and (level != BLOCKS if rule else name.startswith("engine."))
    ):
        ignored = "only one framework has such a thing, or says so"
    if not (rule or declared or ignored):
        sources = [f"variant.{setting}" for setting in FOLLOWS.get(name, ())]
        changed = [source for source in sources if a.get(source) != b.get(source)]
        declared = f"follows from {' and '.join(changed)}" if changed else None
    if declared or ignored:
        return DECLARED if declared else IGNORED, label, touches, str(declared or ignored)
    return level, label, touches, why


LEAST_PAIRS = 2
"""Pairs on equal nodes from which times are compared where the other pairs are left out."""


def confounded(
    pairs: Mapping[int, tuple[Facts, Facts]],
) -> tuple[Mapping[int, str], Sequence[Difference]]:
    """Return which pairs say nothing of time because their runs were on other nodes, and why.

    There a slower node and a slower variant look the same. It cancels out if every node served both
    sides equally often; else only pairs that had equal nodes count, if there are enough of them.

    Args:
        pairs: facts of baseline and candidate, by seed.

    Returns:
        Reasons by seed; and what forbids a verdict on time, if too few pairs are left.
    """
    used = {seed: tuple(sorted(nodes(facts)) for facts in pair) for seed, pair in pairs.items()}
    split = {seed: (a, b) for seed, (a, b) in used.items() if a and b and a != b}
    served = [Counter(node for pair in split.values() for node in pair[side]) for side in (0, 1)]
    if served[0] == served[1]:
        return {}, []
    if len(pairs) - len(split) >= LEAST_PAIRS:
        return {
            seed: f"its two runs were on other nodes ({', '.join(b)} against {', '.join(a)})"
            for seed, (a, b) in split.items()
        }, []
    forbidden = Difference(
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
        pairs=len(split),
        of=len(pairs),
    )
    return {}, [forbidden]


def _shown(values: Iterable[Any]) -> tuple[str, ...]:
    shown = sorted({"not stated" if v is None else str(v) for v in values})
    return tuple(shown if len(shown) <= 4 else [*shown[:3], f"and {len(shown) - 3} others"])


# In words -------------------------------------------------------------------------------------

HASH = re.compile(r"[0-9a-f]{40,}")


def difference_text(difference: Difference) -> str:
    """Return what differed, in one clause."""
    seen = f"{' / '.join(difference.baseline)} against {' / '.join(difference.candidate)}"
    if any(HASH.fullmatch(v) for v in (*difference.baseline, *difference.candidate)):
        seen = "their hashes are not the same"
    pairs, of = difference.pairs, difference.of
    where = "" if pairs == of else f" in {pairs} of {of} pairs"
    return f"{difference.label} ({difference.fact}) differs{where}: {seen}; {difference.why}"


SETTINGS = {
    "precision": ("{} precision", "float32"),
    "input": ("the framework's own input pipeline", "shared"),
    "workers": ("{} loader workers", None),
    "process": ("one process per {}", "device"),
    "memory_format": ("images in {} memory format", "contiguous"),
    "steps_per_dispatch": ("{} steps per dispatch", 1),
    "deterministic": ("deterministic kernels", False),
    "convolution": ("convolutions as {}, which Lockstep brings", "native"),
    "attention": ("the framework's own {} attention", "written"),
    "randomness": ("the framework's own random numbers", "shared"),
}
"""How a setting is worded, in this order, and the value that needs no word beside another one; a
setting that is not here appears by its name and value."""


def phrases(own: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return how a variant is set where another one is not set so, one phrase a setting.

    Args:
        own, other: the variants' settings, as the complete config has them.
    """
    stated, result = ("framework", "mode"), []  # by the variant's name
    unknown = [name for name in own if name not in (*SETTINGS, *stated)]
    for name in (*unknown, *SETTINGS):
        phrase, plain = SETTINGS.get(name, (f"{name} {{}}", None))
        unused = name == "workers" and own.get("input") == "shared"
        if name in own and own[name] not in (other.get(name), plain) and not unused:
            result.append(phrase.format(own[name]))
    return result
