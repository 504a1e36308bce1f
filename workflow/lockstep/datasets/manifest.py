"""A dataset's manifest: a small file that names its shards; what the later stages depend on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lockstep import files
from lockstep.datasets.arrays import Array
from lockstep.errors import UserError

SCHEMA = "lockstep-dataset/2"

Entry = dict[str, Any]


def entry(path: Path, examples: int, content: str) -> Entry:
    """Return what the manifest says of a finished shard; `content` is what `shards.write` gave."""
    return {
        "file": path.name,
        "examples": examples,
        "bytes": path.stat().st_size,
        "content": content,
        "sha256": files.sha256_file(path),
    }


def said(described: Mapping[str, Array]) -> dict[str, Any]:
    """Return what a manifest says of its arrays."""
    return {"arrays": {name: array.as_json() for name, array in described.items()}}


def make(
    about: Mapping[str, Any],
    splits: Mapping[str, Sequence[Entry]],
    more: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return a manifest.

    Args:
        about: name, identity, source and what else describes the whole dataset.
        splits: the shards of each split, in their order.
        more: what else is to be said of a split.
    """
    more = more or {}
    return {
        "schema": SCHEMA,
        **about,
        "content": files.digest(
            {split: [shard["content"] for shard in shards] for split, shards in splits.items()}
        ),
        "splits": {
            split: {
                "examples": sum(shard["examples"] for shard in shards),
                **more.get(split, {}),
                "shards": list(shards),
            }
            for split, shards in splits.items()
        },
    }


def read(path: Path) -> dict[str, Any]:
    """Read a dataset's manifest.

    Raises:
        UserError: it is missing, not JSON or of another schema.
    """
    manifest = files.read_json(path)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise UserError(
            f"{path}: not a {SCHEMA} manifest, as this version of Lockstep makes; remove its "
            "folder, and the same command makes it again"
        )
    return manifest
