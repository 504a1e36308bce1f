"""The reference of every route: training's own evaluation, and the questions that all are asked.

In float32, and in float64, where nothing is left of a difference but a mistake.
"""

import importlib
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.datasets.reader import Reader
from lockstep.deploy.evaluation import Evaluator
from lockstep.deploy.task import QUESTIONS, REFERENCE, Task
from lockstep.training.feed import evaluation_batches

ASKED = 1024
"""Examples of the test split that are asked when a route is timed, over and over."""


def main(task: Task) -> dict[str, Any]:
    """Write `REFERENCE` of the task's precision, and `QUESTIONS`; returns the metrics."""
    job, dataset, state = task.job(), Path(task.dataset), task.state()
    evaluated = Evaluator(job, dataset)(state)
    np.save(Path(task.scratch) / REFERENCE.format(task.precision), evaluated.logits)
    if task.precision == "float32":
        routes = importlib.import_module(f"lockstep.deploy.{task.framework}_routes")
        test = Reader(dataset, "test")
        examples = min(test.examples, ASKED)
        (batch,) = islice(evaluation_batches(job, test, batch=examples, examples=examples), 1)
        names = routes.questions(job, state, {n: a[:2] for n, a in batch.items() if a.ndim})
        asked: dict[str, Any] = {name: batch[name] for name in names}
        np.savez(Path(task.scratch) / QUESTIONS, **asked)
    return {"metrics": evaluated.metrics, "examples": len(evaluated.logits)}
