"""Makes a route's artefact, and holds what it answers to training's own evaluation."""

import importlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import files
from lockstep.datasets.reader import Reader
from lockstep.deploy import artefact, serving
from lockstep.deploy.equality import Equality, compare
from lockstep.deploy.reading import Answer
from lockstep.deploy.task import REFERENCE, Task
from lockstep.training.feed import evaluation_batches

EXAMPLE = 3
"""Examples of the batch that an exporter traces: not 1, which exporters take for a constant."""


def main(task: Task) -> dict[str, Any]:
    """Return how a route was made, what it weighs and how equal it is."""
    asked = serving.questions(task)
    made: dict[str, Any] = {}
    if task.route in serving.EXPORTED:
        made = _artefact(task, {name: array[:EXAMPLE] for name, array in asked.items()})
    opened = serving.open_route(task, asked)
    if not made:  # then nothing has been imported or compiled before
        made = {"uncached_seconds": opened.seconds, "bytes": _bytes(task)}
    equality = _equality(task, opened.answer, list(asked))
    reason = None if equality.passed else equality.why_not
    return {**made, "equality": equality.told(), "reason": reason}


def _bytes(task: Task) -> int:
    """Return the size of the weights, which these routes serve as they are."""
    return sum(array.nbytes for array in task.state().values())


def _artefact(task: Task, batch: dict[str, np.ndarray]) -> dict[str, Any]:
    """Export a model, and return what is to be said of its artefact."""
    routes: Any = importlib.import_module(f"lockstep.deploy.{task.framework}_routes")
    routes.configure(task.precision, task.threads, Path(task.caches).resolve())
    made_with, serves = list(routes.PACKAGES), list(routes.PACKAGES)
    if task.route == "onnx":
        made_with, serves = [*made_with, *routes.EXPORTERS], ["onnxruntime"]
    known = artefact.versions([*made_with, *serves])
    state, begin = task.state(), time.perf_counter()
    with files.atomic(Path(task.artefact)) as folder:
        folder.mkdir()
        told = getattr(routes, task.route)(task.job(), state, batch, folder)
        seconds = time.perf_counter() - begin
        if task.route == "onnx":
            from lockstep.deploy import onnx_runtime

            told = onnx_runtime.nodes(folder)
        bound = routes.bound(task.route)
        about = artefact.describe(folder, inputs=list(batch), packages=serves, bound=bound)
    size = sum(file["bytes"] for file in about["files"].values())
    return {"export_seconds": seconds, "bytes": size, "made_with": known, "artefact": about, **told}


def _equality(task: Task, answer: Answer, names: list[str]) -> Equality:
    job, test = task.job(), Reader(Path(task.dataset), "test")
    parts = []
    for batch in evaluation_batches(job, test, batch=min(test.examples, max(task.batches))):
        logits = answer({name: batch[name] for name in names})
        parts.append(logits[batch["real"] > 0])
    reference = np.load(Path(task.scratch) / REFERENCE.format(task.precision))
    return compare(task.precision, reference, np.concatenate(parts))
