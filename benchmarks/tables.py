"""What tables cost: a step of `dlrm` that changes the rows it looks up, records, and text.

The step is of float32, 1,024 examples, row-wise Adagrad with `touched_rows`: with a first table of
1,000,000 rows, and of 100,000 (the 25 others have 1,000), each in a process of its own. Records are
13 numbers, 26 ids and a click; the reader and `np.take` (from RAM) gather windows of 4 batches at
once, as a run's feed does, in random order. The text is a click log of source `click_log`; pandas
reads it with its C parser, categories as strings.

Memory is the peak of a whole run from its record, with a table of 2 GB whose rows plain SGD changes
where a batch looks them up: the run loads its weights, trains, evaluates, and writes its state.
"""

import contextlib
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import data, studies
from benchmarks.row import Row, ratio, times
from benchmarks.step import asker
from benchmarks.turns import elsewhere, in_turns
from lockstep import engines, files, workloads
from lockstep.datasets import clicks, prepare
from lockstep.datasets.reader import Reader
from lockstep.datasets.sources import click_log
from lockstep.engines.contract import Job, Window
from lockstep.study import Study, config
from lockstep.workloads import recipe, weights

BATCH, WINDOW = 1024, 4
ROWS = {"100,000 rows": 100_000, "1,000,000 rows": 1_000_000}
SIDES = ("torch-eager", "jax-jit")
LARGE, WIDTH = 31_250_000, 16  # rows and numbers of a table of 2 GB


def measure(quick: bool) -> list[Row]:
    """Return the cost of a large table in time and memory, of reading records and parsing text."""
    return [*_steps(quick), *_records(quick), *_memory(quick)]


def _steps(quick: bool) -> list[Row]:
    rounds = 3 if quick else 40
    with contextlib.ExitStack() as stack:
        functions = {}
        for side in SIDES[-1:] if quick else SIDES:
            for size, rows in ROWS.items():
                # Quickly: few small tables, which compile in less time.
                tables = [rows // 100, *[100] * 4] if quick else [rows, *[1000] * 25]
                worker = stack.enter_context(elsewhere(serve, (side, tables)))
                worker.recv()
                functions[f"{side}, {size}"] = asker(worker)
        turns = in_turns(functions, rounds, warm_up=2)
    few, many = ROWS
    found = []
    for side in SIDES[-1:] if quick else SIDES:
        pair = turns[f"{side}, {many}"], turns[f"{side}, {few}"]
        found.append(ratio(f"{side}: a step, {many} : {few}", *pair, ("<=", 1.5)))
    return found + [times(n, "ms/step", 1e3 / WINDOW * np.array(t)) for n, t in turns.items()]


def serve(connection: Connection, told: tuple[str, list[int]]) -> None:
    """In a process of its own: train windows whenever asked."""
    side, tables = told
    spec = workloads.spec("dlrm")
    changes = {"global_batch": BATCH, "model": {"tables": tables}}
    entry = recipe.override(spec.recipe, changes, where="benchmark")
    study = {
        "study": "tables",
        "datasets": {"clicks": {"source": "click_log"}},
        "workloads": {"dlrm": {"dataset": "clicks"}},
        "variants": {side: studies.VARIANTS[side]},
    }
    job = Job(
        workload=spec,
        recipe=entry,
        variant=config.complete(study)["variants"][side],
        data=spec.blank(entry["model"]),
        window_steps=WINDOW,
    )
    engine = engines.start(job)
    engine.load(weights.initial(spec, entry["model"], 0))
    engine.prepare()
    window = _window(job, tables)
    connection.send("ready")
    with contextlib.suppress(EOFError):
        while connection.recv():
            engine.fetch(engine.train(window))
            connection.send("done")


def _window(job: Job, tables: list[int]) -> Window:
    """Return a window of random examples."""
    random, blank = np.random.Generator(np.random.Philox(0)), Window.blank(job)
    shape = blank.batch["ids"].shape
    batch = {
        **blank.batch,
        "dense": random.normal(size=blank.batch["dense"].shape).astype(np.float32),
        "ids": (random.random(shape) * np.array(tables)).astype(np.int32),
        "click": random.integers(0, 2, shape[:2]).astype(np.uint8),
    }
    return Window(**{**vars(blank), "batch": batch, "steps": WINDOW})


def _records(quick: bool) -> list[Row]:
    examples, rounds = (3_000, 3) if quick else (200_000, 31)
    options = {**click_log.DEFAULTS, "examples": examples}
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder)
        entry = {"source": "click_log", "options": options}
        prepare.prepare("clicks", entry, "0" * 64, raw, raw / "clicks")
        reader = Reader(raw / "clicks" / "manifest.json", "train")
        order = np.random.Generator(np.random.Philox(1)).permutation(reader.examples)
        size = WINDOW * BATCH
        windows = [order[start : start + size] for start in range(0, len(order), size)]
        taken = in_turns(data.gathering(reader, windows), rounds, warm_up=2)
        path = raw / "train.txt"
        click_log.write(path, options)
        text = {k: str for k in range(1 + clicks.NUMBERS, clicks.FIELDS)}
        parsers = {
            "clicks": lambda: sum(len(block.click) for block in clicks.read(path)),
            "pandas": lambda: pd.read_csv(path, sep="\t", header=None, dtype=text),
        }
        parsed = in_turns(parsers, 3 if quick else 9, warm_up=1)
        speed = {n: path.stat().st_size / 1e6 / np.array(seconds) for n, seconds in parsed.items()}
    rate = {name: len(order) / np.array(seconds) for name, seconds in taken.items()}
    return [
        ratio("records: reader : np.take from RAM", rate["reader"], rate["np.take"], (">=", 0.95)),
        ratio("text: Lockstep : pandas", speed["clicks"], speed["pandas"], (">=", 0.5)),
        *(times(f"records: {name}", "examples/s", values) for name, values in rate.items()),
        *(times(f"text: {name}", "MB/s", values) for name, values in speed.items()),
    ]


def _memory(quick: bool) -> list[Row]:
    rows = 100_000 if quick else LARGE
    with tempfile.TemporaryDirectory() as folder:
        study = Study(
            config.complete(
                {
                    "study": "tables",
                    "datasets": {
                        "clicks": {"source": "click_log", "options": {"examples": 24_000}}
                    },
                    "workloads": {
                        "dlrm": {
                            "dataset": "clicks",
                            "optimizer": {
                                "name": "sgd",
                                "groups": {"tables": {"name": "sgd", "update": "touched_rows"}},
                            },
                            "model": {"tables": [rows, *[1000] * 25]},
                        }
                    },
                    "variants": {side: studies.VARIANTS[side] for side in SIDES[quick:]},
                    "threads": 2,
                    # Nothing is timed: other work may go on.
                    "blocks": {"cold_start": False, "share_nodes": True, "watch": False},
                    "paths": {"results": f"{folder}/results", "data": f"{folder}/data"},
                }
            )
        )
        study.write()
        told = ("--study", study.path)
        studies.lockstep("preprocess", *told, "--dataset", "clicks")
        studies.lockstep("weights", *told, "--workload", "dlrm", "--seed", 0)
        found = []
        for side in SIDES[quick:]:
            block = f"dlrm/{side}/1x1/seed-0"
            studies.lockstep("train", *told, "--block", block)
            summary = files.read_json(study.root / "runs" / block / "summary.json")
            peak, size = summary["memory"]["max_rss_bytes"], 4 * WIDTH * rows
            what = f"{side}: memory of a run : its table of {size / 1e9:.1f} GB"
            found.append(ratio(what, [peak], [size], ("<=", 2.5)))
            files.remove(study.states(block))
    return found
