"""Opens a route: from a state or an artefact to what answers questions, each step timed."""

import importlib
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lockstep.deploy import artefact
from lockstep.deploy.reading import Answer, Arrays
from lockstep.deploy.task import QUESTIONS, Task

EXPORTED = ("export", "onnx")
"""Routes that serve an artefact; the others serve the model itself."""


class Opened(NamedTuple):
    """A route that answers.

    Attributes:
        answer: answers questions.
        seconds: of `import`, `load` and `first_answer`.
    """

    answer: Answer
    seconds: dict[str, float]


def questions(task: Task) -> dict[str, np.ndarray]:
    """Return the questions that a route is timed with, ``(examples, …)`` by name."""
    with np.load(Path(task.scratch) / QUESTIONS) as stored:
        return dict(stored)


def open_route(task: Task, asked: Arrays) -> Opened:
    """Import what a route needs, load it and have it answer its first question.

    Raises:
        UserError: its package is not installed, or its artefact is not for here.
    """
    begin = time.perf_counter()
    routes: Any
    if task.route == "onnx":
        routes = importlib.import_module("lockstep.deploy.onnx_runtime")
    else:
        routes = importlib.import_module(f"lockstep.deploy.{task.framework}_routes")
    routes.configure(task.precision, task.threads, Path(task.caches).resolve())
    imported = time.perf_counter()
    folder = Path(task.artefact)
    if task.route in EXPORTED:
        artefact.check(folder)
        answer = routes.load(folder)
    else:
        answer = getattr(routes, task.route)(task.job(), task.state())
    loaded = time.perf_counter()
    answer({name: array[:1] for name, array in asked.items()})
    answered = time.perf_counter()
    seconds = {
        "import": imported - begin,
        "load": loaded - imported,
        "first_answer": answered - loaded,
    }
    return Opened(answer, seconds)
