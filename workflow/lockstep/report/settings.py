"""What a variant declares beyond framework and mode, in words: it stands in every verdict."""

from collections.abc import Mapping
from typing import Any

TOLD = ("framework", "mode")
"""Settings that a variant's name and framework say already."""

PLAIN = {
    "precision": "float32",
    "input": "shared",
    "convolution": "native",
    "process": "device",
    "memory_format": "contiguous",
    "steps_per_dispatch": 1,
    "deterministic": False,
}
"""Values that need no word beside a variant that has another one."""

PHRASES = {
    "precision": "{} precision",
    "input": "the framework's own input pipeline",
    "workers": "{} loader workers",
    "process": "one process per {}",
    "memory_format": "images in {} memory format",
    "steps_per_dispatch": "{} steps per dispatch",
    "deterministic": "deterministic kernels",
    "convolution": "convolutions as {}, which Lockstep brings",
}
"""How a setting is said, in this order; one that is not here is said by its own name and value."""


def phrases(own: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return how a variant is set where another one is not set so, one phrase a setting.

    Args:
        own, other: the variants' settings, as the complete config has them.
    """
    unknown = [name for name in own if name not in (*PHRASES, *TOLD)]
    return [
        PHRASES.get(name, f"{name} {{}}").format(own[name])
        for name in (*unknown, *PHRASES)
        if name in own
        and own[name] != other.get(name)
        and not (name in PLAIN and own[name] == PLAIN[name])
        and not (name == "workers" and own.get("input") == "shared")
    ]


def listed(own: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return the phrases of `phrases` as one; empty if there is none."""
    *others, last = phrases(own, other) or [""]
    return " and ".join(filter(None, [", ".join(others), last]))
