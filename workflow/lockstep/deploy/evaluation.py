"""Training's own evaluation of a state, with the logits that its metrics are made of."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from lockstep import engines
from lockstep.datasets.reader import Reader
from lockstep.deploy.reading import OUTPUT
from lockstep.engines.contract import Engine, Job
from lockstep.errors import UserError
from lockstep.training.feed import evaluation_batches
from lockstep.workloads.weights import State


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What an evaluation of the whole test split gives.

    Attributes:
        logits: of each example, ``(examples, …)``, in the order of the split.
        metrics: `loss` and the workload's own, over all examples.
    """

    logits: np.ndarray
    metrics: dict[str, float]


class Evaluator:
    """A framework's engine, as training evaluates with it."""

    def __init__(self, job: Job, dataset: Path) -> None:
        """Start the engine.

        Args:
            dataset: the dataset's manifest.
        """
        # What a workload would tally instead, and forget.
        self.job = replace(job, workload=replace(job.workload, tally=None))
        self.test = Reader(dataset, "test")
        engine: Any = engines.start(self.job)
        engine.functions = _with_logits(engine.functions)
        self.engine: Engine = engine

    def __call__(self, state: State) -> Evaluated:
        """Evaluate a state.

        Raises:
            UserError: it is not of this model, or the model gives no logits.
        """
        self.engine.load(state)
        found = self.engine.evaluate(evaluation_batches(self.job, self.test))
        metrics = {"loss": found.loss, **self.job.finish(found)}
        return Evaluated(logits=found.columns[OUTPUT], metrics=metrics)


def _with_logits(functions: Any) -> Any:
    """Return a workload's functions, whose metrics keep the logits as a column."""

    def metrics(outputs: Any, batch: Any, recipe: Any) -> tuple[Any, Any]:
        if OUTPUT not in outputs:
            raise UserError(f"the model has no output called {OUTPUT!r}")
        sums, columns = functions.metrics(outputs, batch, recipe)
        return sums, {**columns, OUTPUT: outputs[OUTPUT]}

    return SimpleNamespace(**{**vars(functions), "metrics": metrics})
