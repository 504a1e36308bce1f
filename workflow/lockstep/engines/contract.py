"""What the one loop and the parity ladder ask of a framework."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lockstep.workloads import augmentation
from lockstep.workloads.contract import Workload
from lockstep.workloads.weights import State

PARAMETER_DTYPE = {
    "float64": "float64",
    "float32": "float32",
    "tf32": "float32",
    "bfloat16": "float32",
}
"""Type of parameters, momentum and gradients' communication under each precision."""

COMPUTE_DTYPE = {**PARAMETER_DTYPE, "bfloat16": "bfloat16"}
"""Type of activations and of the operands of convolutions and matrix products."""


def types(precision: str) -> dict[str, str]:
    """Return the types that a precision stands for, for a run's contract.

    Sums within convolutions and matrix products are the libraries' own: float32 for bfloat16
    operands in cuDNN, cuBLAS, oneDNN and XLA. Batch normalisation works in the parameters' type.
    An engine that communicates gradients otherwise says so in its `facts`.
    """
    return {
        "parameter_dtype": PARAMETER_DTYPE[precision],
        "compute_dtype": COMPUTE_DTYPE[precision],
        "accumulation_dtype": PARAMETER_DTYPE[precision],
        "normalisation_dtype": PARAMETER_DTYPE[precision],
        "gradient_communication_dtype": PARAMETER_DTYPE[precision],
    }


@dataclass(frozen=True, kw_only=True)
class Topology:
    """A process among those of a run.

    Attributes:
        rank: of this process over all nodes.
        world_size: processes over all nodes.
        local_rank: of this process on its node.
        local_devices: devices that this process drives, as many as every other.
        rendezvous: folder that all processes of this start see, and no other start.
        host: address under which rank 0 can be reached.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_devices: int = 1
    rendezvous: Path | None = None
    host: str = "127.0.0.1"

    @property
    def devices(self) -> int:
        """Devices over all processes."""
        return self.world_size * self.local_devices


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that an engine is told.

    Attributes:
        variant: complete config of the variant.
        recipe: complete recipe of the workload.
        window_steps: steps that every window's arrays have room for.
        stored: shape of an example as the dataset stores it; None if it is the model's.
        caches: folder for compiled programs.
    """

    workload: Workload
    recipe: Mapping[str, Any]
    variant: Mapping[str, Any]
    window_steps: int
    stored: tuple[int, ...] | None = None
    topology: Topology = field(default_factory=Topology)
    caches: Path | None = None

    @property
    def local_batch(self) -> int:
        """Examples of a step on each rank."""
        return self.recipe["global_batch"] // self.topology.world_size

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Shape of an example as the model takes it."""
        return self.workload.example_shape(self.recipe["model"])

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of an example as it comes from the dataset."""
        return self.stored or self.example_shape

    @property
    def kind(self) -> augmentation.Kind:
        """How an example gets from the one shape to the other."""
        return augmentation.Kind.of(self.recipe["augment"], self.stored_shape, self.example_shape)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Some consecutive steps of this rank.

    Attributes:
        steps: how many of the `window_steps` rows are to be trained.
        batch: arrays ``(window_steps, local_batch, …)``: `images` uint8 as stored, `labels` int32,
            `mask` float32, 1 for real examples and 0 for padding, and where the recipe augments
            `crops` int32 (`lockstep.workloads.augmentation`).
        counts: real examples of each step over all ranks, int64 ``(window_steps,)``.
        learning_rates: float64 ``(window_steps,)``.
    """

    steps: int
    batch: Mapping[str, np.ndarray]
    counts: np.ndarray
    learning_rates: np.ndarray

    @classmethod
    def blank(cls, job: Job) -> "Window":
        """Return a window of one step over black images, to prepare an engine with."""
        shape = (job.window_steps, job.local_batch)
        batch: dict[str, np.ndarray] = {
            "images": np.zeros((*shape, *job.stored_shape), np.uint8),
            "labels": np.zeros(shape, np.int32),
            "mask": np.ones(shape, np.float32),
        }
        if job.kind.draws:
            batch["crops"] = np.tile(augmentation.whole(job.stored_shape), (*shape, 1))
        return cls(
            steps=1,
            batch=batch,
            counts=np.full(job.window_steps, job.recipe["global_batch"]),
            learning_rates=np.zeros(job.window_steps),
        )


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What it took before the first step could be made.

    Attributes:
        trace_seconds: from Python to the compiler's input (0 where there is no such phase).
        compile_seconds: compilation, with whatever the framework initialises on first use.
        cache: `cold`, `warm`, or `none` where nothing is compiled.
        memory: what the compiler planned, in bytes, where it tells.
    """

    trace_seconds: float
    compile_seconds: float
    cache: str
    memory: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one rank wants of a run's examples from a framework's own loader.

    Attributes:
        seed: of the run's order.
        first_step: absolute step from which to start.
        steps_per_epoch: an incomplete last batch counted in.
        epochs: of the whole run.
        workers: worker processes of the loader.
    """

    seed: int
    first_step: int
    steps_per_epoch: int
    epochs: int
    global_batch: int
    local_batch: int
    rank: int
    world_size: int
    workers: int


class Engine(Protocol):
    """A framework that trains a workload. States are neutral (`lockstep.workloads.weights`)."""

    def prepare(self) -> Preparation:
        """Compile, and settle whatever changes during the first steps.

        To be called after a first `load`, whose state it spoils.
        """

    def load(self, state: State) -> None:
        """Take over parameters, momentum and buffers.

        Raises:
            UserError: they are not those of the model.
        """

    def state(self) -> dict[str, np.ndarray]:
        """Return parameters, momentum and buffers, waiting for steps under way."""

    def train(self, window: Window) -> Any:
        """Start the steps of a window; returns what `fetch` wants."""

    def fetch(self, pending: Any) -> tuple[np.ndarray, np.ndarray]:
        """Wait for a window: the fence.

        Returns:
            Each step's loss (mean over the global batch), float64 ``(steps,)``, and checksum of
            the batch over all ranks, uint32 ``(steps,)``.
        """

    def evaluate(self, batches: Iterable[Mapping[str, np.ndarray]]) -> dict[str, float]:
        """Return sums over this rank's real examples and over all ranks.

        Args:
            batches: `images`, `labels` and `mask` as in a window, without its first axis; the
                centre of an image is taken where the model takes smaller ones.

        Returns:
            `examples`, `loss` and each metric.
        """

    def probe(self, window: Window) -> dict[str, np.ndarray]:
        """Look into a window's first step without making it.

        Returns:
            `logits` of this rank, `loss`, and ``grad/NAME`` of every parameter in neutral layout.
        """

    def agree(self, values: Sequence[int]) -> list[int]:
        """Return of each of the `values`, 32-bit integers, what is largest of all ranks."""

    def facts(self) -> dict[str, Any]:
        """Return resolved settings, library and device facts for the run's contract."""

    def memory(self) -> dict[str, int]:
        """Return peak device memory in bytes, `allocated` and `reserved`, where it is known."""

    def close(self) -> None:
        """Leave the process group."""
