"""Evaluates compressed forms of all final states with one framework."""

import contextlib
import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.deploy import compress
from lockstep.deploy.evaluation import Evaluator
from lockstep.deploy.task import FLOAT32, FORM, LOGITS, STATIC, SUMS, Task
from lockstep.errors import UserError
from lockstep.workloads import weights

BETWEEN = "float64"
"""Precision between layers in 8-bit integers; all else is evaluated in float32, where a last place
would decide how an activation is rounded, and with it a row of sums."""


def layers_of(framework: str) -> Any:
    """Return what looks into a framework's layers, and replaces them."""
    return importlib.import_module(f"lockstep.deploy.{framework}_layers")


def main(task: Task) -> dict[str, Any]:
    """Write logits and integer sums; returns the metrics of each form, one of each state."""
    evaluator = Evaluator(task.job(), Path(task.dataset))
    found: dict[str, Any] = {}
    # Last is what changes how all of JAX computes in this process.
    for form in sorted((FLOAT32, *task.forms), key=STATIC.__eq__):
        if form == STATIC:
            exact = replace(task, precision=BETWEEN)
            evaluator = Evaluator(exact.job(), Path(task.dataset))
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
    if form == STATIC:
        replaced = layers_of(task.framework).static(evaluator.engine, made)
    with replaced as sums:
        evaluated = evaluator(compress.restored(made))
    scratch = Path(task.scratch)
    if number == 0:
        np.save(scratch / LOGITS.format(task.framework, form), evaluated.logits)
    if sums:
        np.savez(scratch / SUMS.format(task.framework, number), **sums)
    return evaluated.metrics
