"""All that one process of the stage is told: one JSON file, written by the stage that starts it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockstep import files

if TYPE_CHECKING:  # a process that serves an artefact needs none of it
    from lockstep.engines.contract import Job
    from lockstep.workloads.weights import State

QUESTIONS = "questions.npz"
FORM = "form-{}-{}.safetensors"  # by the number of a state, and the form
REFERENCE = "reference-{}.npy"  # by precision
FLOAT32, STATIC = "float32", "w8a8"  # forms: not compressed, and what needs the layers' inputs
LOGITS = "logits-{}-{}.npy"  # of the first state: by framework and form
SUMS = "sums-{}-{}.npz"  # integer sums of each layer: by framework and the number of a state


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a process does: `kind` is the name of its module in `lockstep.deploy`.

    Attributes:
        framework, route: `torch` or `jax`, and one of its routes.
        recipe: complete recipe of the workload.
        precision: `float32`, or `float64` where only equality is wanted.
        variant: complete config of a variant of the framework.
        dataset: the dataset's manifest.
        states: files of final states; the first one is that of the artefacts.
        artefact: folder of the route's artefact.
        scratch: folder of what the processes tell each other: `QUESTIONS` and `REFERENCE`.
        caches: folder for compiled programs.
        result: the JSON file that the process leaves behind.
        queries: of SingleStream, each of one example.
        batches: batch sizes of Offline.
        threads: CPU threads.
        timeout: seconds after which the process ends itself.
        forms: compressed forms that are evaluated.
    """

    kind: str
    framework: str
    route: str
    precision: str
    recipe: Mapping[str, Any]
    variant: Mapping[str, Any]
    dataset: str
    states: Sequence[str]
    artefact: str
    scratch: str
    caches: str
    result: str
    queries: int
    batches: Sequence[int]
    threads: int
    timeout: int
    forms: Sequence[str] = ()

    def save(self, path: Path) -> None:
        """Write the task."""
        files.write_json(path, asdict(self))

    def state(self, path: str | None = None) -> "State":
        """Return parameters and buffers of a final state, without the optimizer's; the first."""
        from lockstep.workloads import weights

        state = weights.load(Path(path or self.states[0]))
        return {n: a for n, a in state.items() if n.startswith(("param/", "buffer/"))}

    @classmethod
    def load(cls, path: Path) -> "Task":
        """Read a task."""
        return cls(**files.read_json(path))

    def job(self) -> "Job":
        """Return what a model is built with, and an engine is started with.

        Of several lengths that batches may be padded to the last one alone: an exported program is
        of one, and whatever the batch size examples come in their own order.
        """
        from lockstep import workloads
        from lockstep.datasets.manifest import read
        from lockstep.engines.contract import Job
        from lockstep.workloads.contract import Data

        workload = workloads.of(self.recipe)
        known = workload.lengths
        return Job(
            workload=replace(workload, lengths=lambda recipe, data: known(recipe, data)[-1:]),
            recipe=self.recipe,
            variant={**self.variant, "precision": self.precision, "randomness": "shared"},
            data=Data.of(read(Path(self.dataset))),
            window_steps=1,
            caches=Path(self.caches).resolve(),
        )
