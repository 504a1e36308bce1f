"""From the shared reader to an engine's windows: this rank's slice of each global batch."""

from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from lockstep.datasets.order import Order, in_turn
from lockstep.datasets.reader import Reader
from lockstep.engines.contract import Job, Window
from lockstep.errors import UserError
from lockstep.training.schedule import learning_rates
from lockstep.workloads import augmentation


class Feed(Protocol):
    """What gives a run its windows."""

    steps_per_epoch: int
    total_steps: int

    def windows(self, first: int, total: int) -> Generator[Window, None, None]:
        """Yield the windows of a run of `total` steps from the absolute step `first` on."""

    def close(self) -> None:
        """Let go of whatever gives the examples."""


def total_steps(recipe: Mapping[str, Any], steps_per_epoch: int) -> int:
    """Return how many steps a run makes: all its epochs, or `max_steps` if that is fewer."""
    steps = recipe["epochs"] * steps_per_epoch
    return min(steps, recipe["max_steps"]) if recipe["max_steps"] else steps


def edges(first: int, total: int, steps_per_epoch: int, room: int) -> Iterator[tuple[int, int]]:
    """Yield the first step of each window from step `first` on, and how many steps it has.

    A window has `room` steps, or what is left of its epoch or of the run's `total`.
    """
    while first < total:
        epoch_end = (first // steps_per_epoch + 1) * steps_per_epoch
        steps = min(room, min(epoch_end, total) - first)
        yield first, steps
        first += steps


def check(job: Job, manifest: Mapping[str, Any]) -> None:
    """Check that a dataset is one that the job's model can learn from.

    Raises:
        UserError: its images are too small or of other channels, it has too many classes, or not
            one whole batch where incomplete ones are dropped.
    """
    dataset, name = manifest["name"], job.workload.name
    augmentation.check(
        f"{name} on dataset {dataset}", job.recipe["augment"], job.stored_shape, job.example_shape
    )
    if job.recipe["drop_last"]:
        examples, batch = manifest["splits"]["train"]["examples"], job.recipe["global_batch"]
        if examples < batch:
            raise UserError(
                f"{name} on dataset {dataset}: drop_last leaves nothing of {examples} examples, "
                f"fewer than a batch of {batch}; choose a smaller global_batch"
            )
    classes, outputs = manifest.get("classes"), job.workload.classes(job.recipe["model"])
    # JAX clamps a label that is out of range, PyTorch raises: neither may ever see one.
    if classes is not None and outputs is not None and len(classes) > outputs:
        raise UserError(
            f"{name} on dataset {dataset}: {len(classes)} classes, but the model tells {outputs} "
            "apart; set its model.classes or choose another dataset"
        )


class SharedFeed:
    """The same bytes in the same order for every framework, world size and resumption."""

    def __init__(self, job: Job, reader: Reader, seed: int) -> None:
        self.job = job
        self.reader = reader
        self.kind = job.kind
        recipe = job.recipe
        self.order = Order(reader.examples, recipe["global_batch"], seed, recipe["drop_last"])
        self.steps_per_epoch = self.order.steps_per_epoch
        self.total_steps = total_steps(recipe, self.steps_per_epoch)

    def windows(self, first: int, total: int) -> Generator[Window, None, None]:
        """Yield a run's windows; a thread gathers the next one while one is trained.

        Raises:
            UserError: a block of examples is damaged; where its window would be yielded.
        """
        planned = list(edges(first, total, self.steps_per_epoch, self.job.window_steps))
        if not planned:
            return
        with ThreadPoolExecutor(1, "read-ahead") as reading:
            coming = reading.submit(self.window, *planned[0])
            for edge in planned[1:]:
                window = coming.result()
                coming = reading.submit(self.window, *edge)
                yield window
            yield coming.result()

    def window(self, first: int, steps: int) -> Window:
        """Return the window of `steps` steps from the absolute step `first`.

        Rows beyond its steps repeat its last one and are never trained. Only its steps' examples
        are gathered: a short window need not wait for those of a long one.
        """
        planned = [self.order.batch(first + k) for k in range(steps)]
        counts = np.array([count for _, count in planned])
        local, room = self.job.local_batch, self.job.window_steps
        start = self.job.topology.rank * local
        indices = np.stack([indices[start : start + local] for indices, _ in planned])
        images = np.empty((room, local, *self.reader.example_shape), np.uint8)
        labels = np.empty((room, local), np.int32)
        self.reader.take(indices, into=(images[:steps], labels[:steps]))
        images[steps:], labels[steps:] = images[steps - 1], labels[steps - 1]
        mask = (start + np.arange(local) < counts[:, None]).astype(np.float32)
        batch = {"images": images, "labels": labels, "mask": _filled(mask, room)}
        if self.kind.draws:
            batch["crops"] = _filled(self._crops(first, indices), room)
        # Of the whole room, as ever: how NumPy rounds a cosine may depend on how many it takes.
        rates = learning_rates(self.job.recipe, self.steps_per_epoch, self.total_steps, first, room)
        return Window(
            steps=steps,
            batch=batch,
            counts=_filled(counts, room),
            learning_rates=_filled(rates[:steps], room),
        )

    def _crops(self, first: int, indices: np.ndarray) -> np.ndarray:
        rows = []
        for k, examples in enumerate(indices):
            epoch = (first + k) // self.steps_per_epoch
            crops = augmentation.crops(self.kind, self.reader.examples, self.order.seed, epoch)
            rows.append(crops[examples])
        return np.stack(rows)

    def close(self) -> None:
        """Nothing to let go of: the map goes with its process."""


def _filled(rows: np.ndarray, room: int) -> np.ndarray:
    """Return rows followed by copies of the last one, as many as there is room for."""
    if len(rows) == room:
        return rows
    filled = np.empty((room, *rows.shape[1:]), rows.dtype)
    filled[: len(rows)] = rows
    filled[len(rows) :] = rows[-1]
    return filled


def evaluation_batches(job: Job, reader: Reader) -> Iterator[dict[str, np.ndarray]]:
    """Yield this rank's part of every batch of an evaluation, padded and masked."""
    world = job.topology.world_size
    devices = job.topology.devices
    # Not more than there are: the rest of a batch would be padding.
    batch = -(-min(job.recipe["evaluation_batch"], reader.examples) // devices) * devices
    local = batch // world
    start = job.topology.rank * local
    for indices, count in in_turn(reader.examples, batch):
        images, labels = reader.take(indices[start : start + local])
        mask = (start + np.arange(local) < count).astype(np.float32)
        yield {"images": images, "labels": labels, "mask": mask}
