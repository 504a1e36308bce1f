"""Preprocessing images in folders, against decoding alone: same files, library and processes.

preprocess   `prepare`, as the workflow calls it: list, read, decode, resample, hash the originals,
             write and hash the shards, sync, rename.
decode       open each file with Pillow, decode it, resample it as it is stored; keep nothing.
decode only  the same without resampling.

Photographs are 500 x 375 and stored as 256 x 256, as ImageNet's, in eight shards of 50 MB; small
ones are 32 x 32 and stored as they are, in three shards of the usual size. Two processes are there
before the clock starts, and make one part of two each. What it takes to begin, and to wait for the
last shard's sync, is counted in; what a virtual machine takes to get memory from its host is not
(ten times as long as writing to it): before each turn so much is touched and let go of.

Beside it what ImageNet's size takes: memory for the list of its names, made up, and the start of a
reader on as many shards, of two tiny images each.
"""

import contextlib
import io
import multiprocessing
import resource
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import data, photographs
from benchmarks.row import Row, ratio, times
from benchmarks.turns import in_turns
from lockstep import files
from lockstep.datasets import manifest, prepare
from lockstep.datasets.reader import Reader
from lockstep.datasets.sources import image_folder
from lockstep.datasets.survey import Original

PHOTOGRAPH, STORED, SMALL = (500, 375), 256, (32, 32)
SHARD = {STORED: 256, SMALL[0]: None}
IMAGES, CLASSES, SHARDS = 1_281_167, 1000, 976  # ImageNet; its shards at 256 x 256
LIMIT = ("<=", 1.3)
TOUCHED = 1 << 30  # bytes, more than a turn writes


def decode(names: list[str], size: int | None) -> None:
    """Decode files, and resample them unless `size` is None."""
    for name in names:
        with Image.open(name) as picture:
            picture.load()
        if size is None:
            continue
        image: Image.Image = picture
        if image.size != (size, size):
            short = min(image.size)
            left, top = ((side - short) / 2 for side in image.size)
            box = (left, top, left + short, top + short)
            image = image.resize((size, size), Image.Resampling.BILINEAR, box)
        np.asarray(image)


def measure(quick: bool) -> list[Row]:
    """Return the ratios to decoding, the speed, and what listing takes."""
    photographs_, small, rounds = (8, 40, 1) if quick else (2_048, 24_000, 9)
    planned = (200_000, 3) if quick else (IMAGES, SHARDS)
    with tempfile.TemporaryDirectory() as folder:
        raw = photographs.folder(Path(folder) / "photographs", photographs_, PHOTOGRAPH)
        tiny = photographs.folder(Path(folder) / "small", small, SMALL)
        return [
            *_one_process("500 x 375", raw, STORED, rounds),
            *_one_process("32 x 32", tiny, SMALL[0], rounds),
            *_two_processes(raw, -(-rounds // 2)),
            *_listing(tiny, rounds),
            *_planned(Path(folder), *planned),
        ]


def _one_process(what: str, raw: Path, size: int, rounds: int) -> list[Row]:
    names = _names(raw)
    turns = in_turns(
        {
            "preprocess": lambda: _preprocess(raw, size),
            "decode": lambda: decode(names, size),
            "only": lambda: decode(names, None),
        },
        rounds,
        warm_up=min(1, rounds - 1),
        before=_touch,
    )
    ours = np.array(turns["preprocess"])
    resampled = f"preprocess : decode and resample, {what}"
    same = size == SMALL[0]
    rows = [] if same else [ratio(resampled, ours, turns["decode"], LIMIT)]
    return [
        *rows,
        ratio(f"preprocess : decode only, {what}", ours, turns["only"], LIMIT if same else None),
        times(f"preprocess, {what}, 1 process", "images/s", len(names) / ours),
        times(f"decode only, {what}, 1 process", "images/s", len(names) / np.array(turns["only"])),
    ]


def _two_processes(raw: Path, rounds: int) -> list[Row]:
    names = _names(raw)
    halves = names[::2], names[1::2]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:

        def decoding() -> None:
            list(pool.map(decode, halves, [STORED] * 2))

        def ours() -> None:
            list(pool.map(_part, [raw] * 2, [(1, 2), (2, 2)]))
            shutil.rmtree(raw.with_name(".made.partial"))

        turns = in_turns({"preprocess": ours, "decode": decoding}, rounds, warm_up=1, before=_touch)
    speed = len(names) / np.array(turns["preprocess"])
    return [
        ratio("the same, 2 processes", turns["preprocess"], turns["decode"], LIMIT),
        times("preprocess, 500 x 375, 2 processes", "images/s", speed),
    ]


def _touch() -> None:
    np.ones(TOUCHED, np.uint8)


def _part(raw: Path, part: tuple[int, int]) -> None:
    """Make every other shard, in this process."""
    entry = {"source": "image_folder", "options": {"size": STORED, "shard": SHARD[STORED]}}
    with contextlib.redirect_stderr(io.StringIO()):  # its progress
        prepare.prepare(
            "benchmark", entry, "none", raw, raw.with_name("made"), workers=1, part=part
        )


def _listing(raw: Path, rounds: int) -> list[Row]:
    count, seconds = len(_names(raw)), []
    for _ in range(rounds):
        begin = time.perf_counter()
        image_folder.survey(raw, {"size": SMALL[0]})
        seconds.append(time.perf_counter() - begin)
    return [times("listing, a million files", "s", np.array(seconds) * 1e6 / count)]


def _planned(folder: Path, images: int, count: int) -> list[Row]:
    before, split = _resident(), "train/n{0:08d}/n{0:08d}_{1}.JPEG"
    per_class = -(-images // CLASSES)
    originals = [
        Original(split.format(number // per_class, number), number // per_class)
        for number in range(images)
    ]
    listed = _resident() - before
    del originals
    entries = []
    for number in range(count):
        path = folder / f"train-{number:05d}.h5"
        entries.append(data.shard(path, np.zeros((2, 2, 2, 3), np.uint8), np.zeros(2, int)))
    about = manifest.make(data.said((2, 2, 3)), {"train": entries})
    files.write_json(folder / "manifest.json", about)
    begin = time.process_time()
    Reader(folder / "manifest.json", "train")
    started = time.process_time() - begin
    return [
        times(f"list of {images:,} names", "MB", np.array([listed / 1e6])),
        times(f"start of a reader on {count} shards, CPU time", "s", np.array([started])),
    ]


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _names(raw: Path) -> list[str]:
    return sorted(map(str, raw.glob("*/*/*.jpg")))


def _preprocess(raw: Path, size: int) -> None:
    made = raw.with_name("made")
    entry = {"source": "image_folder", "options": {"size": size, "shard": SHARD[size]}}
    with contextlib.redirect_stderr(io.StringIO()):  # its progress
        prepare.prepare("benchmark", entry, "none", raw, made, workers=1)
    shutil.rmtree(made)
