"""Evaluates compressed forms of all final states with one framework."""

import contextlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.deploy import compress
from lockstep.deploy.evaluation import Evaluator
from lockstep.deploy.task import FORM, Task
from lockstep.errors import UserError
from lockstep.workloads import weights

FLOAT32 = "float32"
LOGITS = "logits-{}-{}-{}.npy"  # by framework, the number of a state, and the form
SUMS = "sums-{}-{}.npz"  # integer sums of each layer: by framework and the number of a state
SUMMED = 256
"""Examples whose integer sums are compared."""


def layers_of(framework: str) -> Any:
    """Return what looks into a framework's layers, and replaces them."""
    return importlib.import_module(f"lockstep.deploy.{framework}_layers")


def main(task: Task) -> dict[str, Any]:
    """Write logits and integer sums; returns the metrics of each form, one of each state."""
    evaluator = Evaluator(task.job(), Path(task.dataset))
    found: dict[str, Any] = {}
    for form in (FLOAT32, *task.forms):
        metrics = []
        try:
            for number, path in enumerate(task.states):
                made = task.state(path)
                if form != FLOAT32:
                    made = weights.load(Path(task.scratch) / FORM.format(number, form))
                metrics.append(_evaluate(task, evaluator, form, number, made))
        except UserError as error:
            found[form] = {"reason": str(error)}
        else:
            found[form] = {"reason": None, "metrics": metrics}
    return {"forms": found}


def _evaluate(
    task: Task, evaluator: Evaluator, form: str, number: int, made: weights.State
) -> dict[str, float]:
    replaced: contextlib.AbstractContextManager = contextlib.nullcontext({})
    if form == compress.STATIC:
        replaced = layers_of(task.framework).static(evaluator.engine, made, SUMMED)
    with replaced as sums:
        evaluated = evaluator(compress.restored(made))
    scratch = Path(task.scratch)
    np.save(scratch / LOGITS.format(task.framework, number, form), evaluated.logits)
    if sums:
        np.savez(scratch / SUMS.format(task.framework, number), **sums)
    return evaluated.metrics
