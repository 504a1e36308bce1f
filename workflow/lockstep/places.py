"""What in a study's config says where things lie on this machine, and not what they are."""

from collections.abc import Mapping
from typing import Any

PLACES = ("folder", "start")
"""Of a workload's entry: its folder, if it lies elsewhere, and the weights that it starts from."""


def without(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a workload's complete entry as records have it.

    They have hashes of what lies there: of the code, and of the initial weights.
    """
    return {key: value for key, value in entry.items() if key not in PLACES}
