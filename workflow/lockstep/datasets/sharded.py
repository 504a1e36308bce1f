"""A source of many files, preprocessed by several processes, shard by shard, resumable.

Shards and notes are made in a folder beside the dataset's own, under its identity, and stay there
when the work is interrupted; whoever starts again makes what is missing. The dataset's folder
appears by a rename when all is there.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lockstep import files
from lockstep.datasets import making, manifest, pool, progress
from lockstep.datasets.arrays import image_arrays
from lockstep.datasets.piece import TOLD, Piece, Result
from lockstep.datasets.survey import Survey
from lockstep.errors import UserError

SHARD_BYTES = 256 << 20
SHARD_EXAMPLES = 8192


def prepare(
    about: Mapping[str, Any],
    survey: Survey,
    raw: Path,
    folder: Path,
    *,
    workers: int,
    part: tuple[int, int] = (1, 1),
    file: str | None = None,
) -> None:
    """Make a dataset's folder.

    Args:
        about: what the manifest says first: name, identity, source, options and the like.
        workers: processes.
        file: of the source, if it is outside of this package.
        part: ``(i, n)`` makes shards i, i + n, … alone, for another call to complete.

    Raises:
        UserError: originals are lost or refused, a class has none left, or the disk is full.
    """
    partial = making.partial(folder)
    every = pieces(about, survey, raw, partial, file)
    if not every:
        raise UserError(f"{raw}: holds no examples")
    with making.held(folder, shared=part[1] > 1) as missing:
        if missing:
            _make(about, survey, every, raw, folder, partial, workers, part)


def _make(
    about: Mapping[str, Any],
    survey: Survey,
    every: Sequence[Piece],
    raw: Path,
    folder: Path,
    partial: Path,
    workers: int,
    part: tuple[int, int],
) -> None:
    for inner in ("shards", "notes"):
        (partial / inner).mkdir(parents=True, exist_ok=True)
    mine = every[part[0] - 1 :: part[1]]
    results: dict[str, Result] = {}
    with progress.shown(about["name"], sum(len(p.originals) for p in mine)) as advance:
        for piece, result in pool.run(mine, workers):
            results[piece.name] = result
            advance(len(piece.originals), kept=result.kept)
    ordered = [results[piece.name] for piece in mine]
    _refuse(raw, ordered, survey)
    if part[1] == 1:
        _complete(about, survey, every, ordered, folder, partial)


def pieces(
    about: Mapping[str, Any], survey: Survey, raw: Path, partial: Path, file: str | None = None
) -> list[Piece]:
    """Return what each shard is made of, in order."""
    rows = survey.shard_examples or shard_examples(survey.example_shape)
    return [
        Piece(
            name=f"{split}-{number:05d}",
            source=about["source"],
            file=file,
            options=about["options"],
            originals=tuple(originals[start : start + rows]),
            example_shape=survey.example_shape,
            skip=survey.skip,
            about={"split": split, **{k: about[k] for k in SHARD_SAYS}},
            raw=raw,
            partial=partial,
        )
        for split, originals in survey.splits.items()
        for number, start in enumerate(range(0, len(originals), rows))
    ]


SHARD_SAYS = ("source", "origin", "licence", "classes", "options", "tools")


def shard_examples(example_shape: Sequence[int]) -> int:
    """Return how many examples a shard has, unless the source says."""
    return max(1, min(SHARD_EXAMPLES, SHARD_BYTES // math.prod(example_shape)))


def _refuse(raw: Path, results: Sequence[Result], survey: Survey) -> None:
    lost, bad = sum(r.lost for r in results), sum(r.bad for r in results)
    damaged = _first((r.bad_first for r in results), bad)
    if lost:
        first = _first((r.lost_first for r in results), lost)
        more = f"; besides, {bad} cannot be decoded ({damaged})" if bad and not survey.skip else ""
        raise UserError(
            f"{raw}: {lost} files could not be read ({first}); bring them back or wait until "
            f"nobody changes the folder, and start again: what is finished is kept{more}"
        )
    if bad and not survey.skip:
        raise UserError(
            f"{raw}: {bad} files cannot be decoded ({damaged}); mend or remove them and start "
            "again (finished shards are kept), or set the option corrupt: skip to leave them out "
            "(which makes another dataset, all of its shards anew)"
        )


def _first(told: Iterable[Sequence[str]], count: int) -> str:
    """Return the first few of `count` files, each with its reason."""
    few = [line for lines in told for line in lines][:TOLD]
    return "; ".join(few) + ("; …" if count > len(few) else "")


def _complete(
    about: Mapping[str, Any],
    survey: Survey,
    every: Sequence[Piece],
    results: Sequence[Result],
    folder: Path,
    partial: Path,
) -> None:
    shards: dict[str, list[manifest.Entry]] = {split: [] for split in survey.splits}
    more: dict[str, Any] = {split: Counter() for split in survey.splits}
    labels: dict[str, Counter[int]] = {split: Counter() for split in survey.splits}
    told: list[str] = []
    for piece, result in zip(every, results):
        split = piece.about["split"]
        if result.entry:
            shards[split].append(result.entry)
        more[split].update(result.counts | Counter(skipped=result.bad))
        labels[split].update(result.labels)
        told += result.bad_first
    for split, found in labels.items():
        empty = [name for label, name in enumerate(survey.classes) if not found[label]]
        if empty:
            raise UserError(
                f"{about['name']}: {split}: {len(empty)} classes have no image that can be "
                f"decoded ({', '.join(empty[:TOLD])}); nothing is left to train on"
            )
    whole = {
        **about,
        **manifest.said(image_arrays(survey.example_shape, len(survey.classes))),
        "passed_over": dict(survey.passed_over),
        "skipped": told[:TOLD],
    }
    counted = {s: {"counts": dict(sorted((+c).items()))} for s, c in more.items()}
    wanted = {entry["file"] for entries in shards.values() for entry in entries}
    for path in (partial / "shards").iterdir():
        if path.name not in wanted:
            files.remove(path)  # of a start that had other originals
    files.write_json(partial / "shards" / "manifest.json", manifest.make(whole, shards, counted))
    files.remove(folder)
    (partial / "shards").replace(folder)
    files.sync_folder(folder.parent)
    files.remove(partial)
    _tell(about["name"], survey, more)


def _tell(name: str, survey: Survey, more: Mapping[str, Counter[str]]) -> None:
    """Say what did not become an example as it is."""
    for kind, count in survey.passed_over.items():
        progress.say(f"{name}: {count} files passed over: {kind}")
    for split, counts in more.items():
        for kind, count in sorted((+counts).items()):
            progress.say(f"{name}: {split}: {count} {kind}")
