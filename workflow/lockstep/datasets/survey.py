"""What a source of many files finds before any of them is opened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Original(NamedTuple):
    """One file that becomes one example."""

    name: str
    """Path below the raw folder, with ``/``."""
    label: int


class Undecodable(Exception):
    """A file is no image that the source reads; says why in a few words."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The examples of a dataset, known by name alone.

    Attributes:
        classes: names, in the order of the labels.
        splits: the originals of each split in the order of the examples.
        example_shape: of each image, ``(height, width, channels)``.
        skip: whether files that cannot be decoded are left out and counted, instead of refused.
        passed_over: what lies in the raw folder and is no example, by kind: how many.
        tools: versions of what the bytes depend on besides the originals.
        origin, licence: strings that go into every shard.
        shard_examples: in each shard but a split's last; None for what fits the usual size.
    """

    classes: tuple[str, ...]
    splits: Mapping[str, Sequence[Original]]
    example_shape: tuple[int, int, int]
    skip: bool
    tools: Mapping[str, str]
    origin: str
    licence: str
    passed_over: Mapping[str, int] = field(default_factory=dict)
    shard_examples: int | None = None
