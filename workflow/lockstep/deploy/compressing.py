"""Makes the compressed forms of all final states, once: both frameworks read the same files."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.datasets.reader import Reader
from lockstep.deploy import compress
from lockstep.deploy.compressed import layers_of
from lockstep.deploy.evaluation import Evaluator
from lockstep.deploy.task import FORM, STATIC, Task
from lockstep.errors import UserError
from lockstep.training.feed import evaluation_batches
from lockstep.workloads import weights

CALIBRATION = 256
"""Training examples whose largest inputs decide the steps of activations."""


def main(task: Task) -> dict[str, Any]:
    """Write the forms of each state; returns what is to be said of them, or why there is none."""
    told: dict[str, Any] = {}
    evaluator = Evaluator(task.job(), Path(task.dataset))
    for number, path in enumerate(task.states):
        state = task.state(path)
        for form in task.forms:
            try:
                made = _form(form, task, evaluator, state)
            except UserError as error:
                told[form] = {"reason": f"{error} (state of run {number + 1})"}
                continue
            weights.save(Path(task.scratch) / FORM.format(number, form), made)
            if number == 0:
                told[form] = {"reason": None, **compress.facts(made, form)}
    return {"forms": told, "float32_bytes": sum(a.nbytes for a in task.state().values())}


def _form(
    form: str, task: Task, evaluator: Evaluator, state: weights.State
) -> dict[str, np.ndarray]:
    if form != STATIC:
        return compress.FORMS[form](state)
    job, train = task.job(), Reader(Path(task.dataset), "train")
    examples = min(train.examples, CALIBRATION)
    layers = layers_of(task.framework)
    with layers.observed(evaluator.engine, compress.kernels(state)) as largest:
        evaluator.engine.load(state)
        batches = evaluation_batches(job, train, batch=examples, examples=examples)
        evaluator.engine.evaluate(islice(batches, 1))
    return compress.static(state, largest)
