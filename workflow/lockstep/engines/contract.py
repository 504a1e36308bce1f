"""What the one loop and the parity ladder ask of a framework."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lockstep.workloads import optimizers
from lockstep.workloads.contract import Array, Data, Settings, Workload
from lockstep.workloads.weights import State

PARAMETER_DTYPE = {
    "float64": "float64",
    "float32": "float32",
    "tf32": "float32",
    "bfloat16": "float32",
}
"""Type of parameters, slots and gradients' communication under each precision."""

COMPUTE_DTYPE = {**PARAMETER_DTYPE, "bfloat16": "bfloat16"}
"""Type of activations and of the operands of convolutions and matrix products."""


SITE, WORDS, RATE = 1, 64, 0.25  # of the random numbers that a probe gives of each example
STRIDE, SPACING = 40503, 2.0**-22  # by which a probe moves inputs: (STRIDE k mod 2^16) SPACING


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


def denormals(halved: Callable[[np.ndarray], Any]) -> str:
    """Return whether numbers below float32's least normal one, 1.2e-38, are `kept` or `flushed`.

    Args:
        halved: has a framework halve an array, and returns whether anything is left of it.
    """
    return "kept" if halved(np.full(2**20, 1e-40, np.float32)) else "flushed"


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
        timeout: seconds that a process waits for another before it fails.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_devices: int = 1
    rendezvous: Path | None = None
    host: str = "127.0.0.1"
    timeout: float = 300.0

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
        data: the dataset.
        window_steps: steps that every window's arrays have room for.
        caches: folder for compiled programs.
    """

    workload: Workload
    recipe: Mapping[str, Any]
    variant: Mapping[str, Any]
    data: Data
    window_steps: int
    topology: Topology = field(default_factory=Topology)
    caches: Path | None = None

    @property
    def local_batch(self) -> int:
        """Examples of a step on each rank."""
        return self.recipe["global_batch"] // self.topology.world_size

    @property
    def settings(self) -> Settings:
        """What a model is built with."""
        precision = self.variant["precision"]
        return Settings(
            precision=precision,
            dtype=COMPUTE_DTYPE[precision],
            param_dtype=PARAMETER_DTYPE[precision],
            devices=self.topology.devices,
            variant=self.variant,
        )

    @property
    def lengths(self) -> tuple[int, ...]:
        """What batches are padded to, ascending; ``(0,)`` where all have one shape."""
        return self.workload.lengths(self.recipe, self.data) or (0,)

    def padded(self, length: int | None = None) -> Data:
        """Return the dataset as a batch of one of the `lengths` is told of it; of the last one."""
        return replace(self.data, length=self.lengths[-1] if length is None else length)

    def arrays(self, train: bool = True, length: int | None = None) -> tuple[Array, ...]:
        """Return the arrays of a batch."""
        return self.workload.arrays(self.recipe, self.padded(length), train)

    def blank(self, *leading: int, length: int | None = None) -> dict[str, np.ndarray]:
        """Return blank training examples, arrays ``(*leading, …)``, all real."""
        batch = {array.name: array.blanks(*leading) for array in self.arrays(length=length)}
        return {**batch, "real": np.ones(leading, np.float32)}

    def shown(self, length: int | None = None) -> dict[str, np.ndarray]:
        """Return a blank example as the model is shown it: the arrays that are checksummed."""
        blank = {array.name: array.blanks(1) for array in self.arrays(length=length)}
        return dict(self.workload.shown(blank, self.recipe, self.data))

    def finish(self, found: "Evaluation") -> dict[str, float]:
        """Return the workload's metrics of an evaluation.

        Raises:
            ValueError: they are not those that it declares, which is a fault of the workload.
        """
        metrics = self.workload.finish(found.sums, found.columns, self.recipe)
        expected = [metric.name for metric in self.workload.metrics]
        if sorted(metrics) != sorted(expected):
            raise ValueError(
                f"{self.workload.name}: finish gives {sorted(metrics)}, not {expected}"
            )
        return {name: float(metrics[name]) for name in expected}


@dataclass(frozen=True, kw_only=True)
class Window:
    """Some consecutive steps of this rank.

    Attributes:
        steps: how many of the `window_steps` rows are to be trained.
        batch: arrays ``(window_steps, local_batch, …)``: the workload's, and `real`, float32, 1 for
            examples and 0 for padding.
        examples: real examples of each step over all ranks, int64 ``(window_steps,)``.
        weights: their loss units, int64 ``(window_steps,)``.
        scalars: the optimizer's numbers of each step by name, float64 ``(window_steps,)``:
            `learning_rate` and those of `lockstep.workloads.optimizers`.
        numbers: the workload's own, likewise.
        length: what its examples are padded to, one of the job's `lengths`.
        staged: what an engine has made of it ahead of its turn (`Engine.stage`).
    """

    steps: int
    batch: Mapping[str, np.ndarray]
    examples: np.ndarray
    weights: np.ndarray
    scalars: Mapping[str, np.ndarray]
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)
    length: int = 0
    staged: Any = None

    @classmethod
    def blank(cls, job: Job, length: int | None = None) -> "Window":
        """Return a window of one step over blank examples, to prepare an engine with."""
        room = job.window_steps
        scalars = {"learning_rate": 0.0, **optimizers.scalars(job.recipe["optimizer"], 0)}
        own = job.workload.scalars(job.recipe, 0, 1)
        return cls(
            steps=1,
            batch=job.blank(room, job.local_batch, length=length),
            examples=np.full(room, job.recipe["global_batch"]),
            weights=np.full(room, job.recipe["global_batch"]),
            scalars={name: np.full(room, value) for name, value in scalars.items()},
            numbers={name: np.full(room, value) for name, value in own.items()},
            length=job.padded(length).length,
        )


def at_rate(window: Window, rate: float) -> Window:
    """Return a window with one learning rate."""
    rates = np.full_like(window.scalars["learning_rate"], rate)
    return replace(window, scalars={**window.scalars, "learning_rate": rates})


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found, over all ranks.

    Attributes:
        sums: over real examples, by name: `examples`, `weight`, `loss` and the workload's own.
        columns: of real examples in their order, or what the workload tallied of them.
    """

    sums: Mapping[str, float]
    columns: Mapping[str, np.ndarray]

    @property
    def loss(self) -> float:
        """The mean loss of a unit."""
        return self.sums["loss"] / self.sums["weight"]


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What it took before the first step could be made.

    Attributes:
        trace_seconds: from Python to the compiler's input (0 where there is no such phase).
        compile_seconds: compilation, with whatever the framework initialises on first use; a run
            counts all that `prepare` took and that was no tracing (`lockstep.training.begin`).
        cache: `cold`, `warm`, or `none` where nothing is compiled.
        memory: what the compiler planned, in bytes, where it tells.
    """

    trace_seconds: float
    compile_seconds: float
    cache: str
    memory: Mapping[str, int] = field(default_factory=dict)


class Engine(Protocol):
    """A framework that trains a workload. States are neutral (`lockstep.workloads.weights`)."""

    def prepare(self) -> Preparation:
        """Compile, and settle whatever changes during the first steps.

        To be called after `load`, whose state it leaves as it was.

        Raises:
            UserError: the variant says that it compiles, and nothing was compiled.
        """

    def load(self, state: State) -> None:
        """Take over parameters, slots and buffers; slots of zeros where a state has none.

        Raises:
            UserError: they are not those of the model.
        """

    def state(self) -> dict[str, np.ndarray]:
        """Return parameters, slots and buffers, waiting for steps under way.

        Later steps do not change them. They may be views of the engine's memory, not to be written.
        """

    def stage(self, window: Window) -> Window:
        """Bring a window to the device ahead of its turn, if that spares the loop something.

        It is called by the thread that reads ahead, while the window before is trained.
        """

    def train(self, window: Window) -> Any:
        """Start the steps of a window; returns what `fetch` wants."""

    def fetch(self, pending: Any) -> tuple[np.ndarray, np.ndarray]:
        """Wait for a window: the fence.

        Returns:
            Each step's loss (mean over the global batch's units), float64 ``(steps,)``, and
            checksum of the batch over all ranks, uint32 ``(steps,)``.
        """

    def evaluate(self, batches: Iterable[Mapping[str, np.ndarray]]) -> Evaluation:
        """Evaluate this rank's part of batches.

        Args:
            batches: as in a window, without its first axis; with the arrays of evaluations, and
                `weight`, float32 ``(B,)``: loss units of each example.
        """

    def probe(self, window: Window) -> dict[str, np.ndarray]:
        """Look into a window's first step without making it.

        Returns:
            ``output/NAME`` of this rank, `loss` and each ``term/NAME`` of it, `checksum` of the
            batch over all ranks, and ``grad/NAME`` of every trained parameter in neutral layout. On
            one device also ``tap/LAYER``, a sample of what each layer gives, in the order of the
            network, ``random/words`` and ``random/kept``, numbers and a mask of `random`, and
            ``input/NAME``, a sample of the loss's gradient with respect to what a workload's
            `inputs` gives, images with channels last (`lockstep.workloads.taps`).

        Raises:
            UserError: the model draws random numbers of its own.
        """

    def agree(self, values: Sequence[int]) -> list[int]:
        """Return of each of the `values`, 32-bit integers, what is largest of all ranks."""

    def facts(self) -> dict[str, Any]:
        """Return resolved settings, library and device facts for the run's contract."""

    def memory(self) -> dict[str, int]:
        """Return peak device memory in bytes, `allocated` and `reserved`, where it is known."""

    def close(self) -> None:
        """Leave the process group."""


def made(engine: Engine, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Train a window as the loop does, staged; returns what `Engine.fetch` gives."""
    return engine.fetch(engine.train(engine.stage(window)))
