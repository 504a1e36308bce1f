"""Versions of NVIDIA's libraries from their wheels, for a framework that does not tell them."""

import importlib.metadata

GENERATIONS = ("cu13", "cu12")


def version(library: str) -> str | None:
    """Return a library's version to three places (`cudnn`, `nccl`), None if it is not installed."""
    for generation in GENERATIONS:
        try:
            found = importlib.metadata.version(f"nvidia-{library}-{generation}")
        except importlib.metadata.PackageNotFoundError:
            continue
        return ".".join(found.split(".")[:3])
    return None
