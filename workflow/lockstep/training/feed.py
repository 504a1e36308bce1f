"""From the shared reader to an engine's windows: this rank's slice of each global batch."""

from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from lockstep.datasets.arrays import Array
from lockstep.datasets.order import Order, in_turn
from lockstep.datasets.reader import Reader
from lockstep.engines.contract import Job, Window
from lockstep.errors import UserError
from lockstep.training import draws, schedule
from lockstep.workloads.contract import EVALUATION, MOST_LENGTHS

Stage = Callable[[Window], Window]


class Feed(Protocol):
    """What gives a run its windows."""

    steps_per_epoch: int
    total_steps: int
    forward_flops: float  # `forward_flops` of the training split

    def windows(
        self, first: int, total: int, stage: Stage = lambda window: window
    ) -> Generator[Window, None, None]:
        """Yield the windows of a run of `total` steps from the absolute step `first` on.

        Args:
            stage: brings each to the device (`lockstep.engines.contract.Engine.stage`).
        """

    def close(self) -> None:
        """Let go of whatever gives the examples."""


def total_steps(recipe: Mapping[str, Any], steps_per_epoch: int) -> int:
    """Return how many steps a run makes: all its epochs, or `max_steps` if that is fewer."""
    steps = recipe["epochs"] * steps_per_epoch
    return min(steps, recipe["max_steps"]) if recipe["max_steps"] else steps


def edges(
    first: int,
    total: int,
    steps_per_epoch: int,
    room: int,
    every: int = 0,
    end: Callable[[int], int] | None = None,
) -> Iterator[tuple[int, int]]:
    """Yield the first step of each window from step `first` on, and how many steps it has.

    A window has `room` steps, or what is left of its epoch, of the run's `total`, or until the
    next evaluation, of which there is one `every` so many steps, or until the `end` of those
    whose batches have the shape of its first one.
    """
    while first < total:
        ends = [total, (first // steps_per_epoch + 1) * steps_per_epoch]
        if end:
            ends.append(end(first))
        if every:
            ends.append((first // every + 1) * every)
        steps = min(room, min(ends) - first)
        yield first, steps
        first += steps


def check(job: Job, manifest: Mapping[str, Any]) -> None:
    """Check that a dataset is one that the job's model can learn from.

    Raises:
        UserError: the workload refuses it, or it has not one whole batch where incomplete ones are
            dropped.
    """
    dataset, name = manifest["name"], job.workload.name
    problem = job.workload.check_data(job.recipe, job.data)
    if problem:
        raise UserError(f"{name} on dataset {dataset}: {problem}")
    if job.recipe["drop_last"]:
        examples, batch = manifest["splits"]["train"]["examples"], job.recipe["global_batch"]
        if examples < batch:
            raise UserError(
                f"{name} on dataset {dataset}: drop_last leaves nothing of {examples} examples, "
                f"fewer than a batch of {batch}; choose a smaller global_batch"
            )


class SharedFeed:
    """The same bytes in the same order for every framework, world size and resumption."""

    def __init__(self, job: Job, reader: Reader, seed: int) -> None:
        self.job = job
        self.reader = reader
        recipe = job.recipe
        self.draws = draws.Draws(job, reader.examples, seed)
        self.order = Order(
            reader.examples,
            recipe["global_batch"],
            seed,
            recipe["drop_last"],
            buckets(job, reader),
        )
        self.steps_per_epoch = self.order.steps_per_epoch
        if not self.steps_per_epoch:
            raise UserError(
                f"{job.workload.name}: drop_last leaves nothing, as no length has a whole batch "
                f"of {recipe['global_batch']} examples; choose a smaller global_batch"
            )
        self.total_steps = total_steps(recipe, self.steps_per_epoch)
        self.forward_flops = forward_flops(job, self.order.buckets)

    def windows(
        self, first: int, total: int, stage: Stage = lambda window: window
    ) -> Generator[Window, None, None]:
        """Yield a run's windows; a thread gathers and stages the next one while one is trained.

        Raises:
            UserError: a block of examples is damaged; where its window would be yielded.
        """
        planned = list(self.edges(first, total))
        if not planned:
            return

        def ready(first: int, steps: int) -> Window:
            return stage(self.window(first, steps))

        with ThreadPoolExecutor(1, "read-ahead") as reading:
            coming = reading.submit(ready, *planned[0])
            for edge in planned[1:]:
                window = coming.result()
                coming = reading.submit(ready, *edge)
                yield window
            yield coming.result()

    def edges(self, first: int, total: int) -> Iterator[tuple[int, int]]:
        """Yield the windows of a run of `total` steps: the first step, and how many there are."""
        every, room = self.job.recipe["evaluate_every"], self.job.window_steps
        return edges(first, total, self.steps_per_epoch, room, every, self.end)

    def end(self, step: int) -> int:
        """Return the first step behind those whose batches have the shape of this one's."""
        return self.order.stretch(step)[2]

    def window(self, first: int, steps: int) -> Window:
        """Return the window of `steps` steps from the absolute step `first`.

        Rows beyond its steps repeat its last one and are never trained. Only its steps' examples
        are gathered: a short window need not wait for those of a long one.

        Raises:
            UserError: a block of examples is damaged, or a batch has no loss unit at all.
        """
        if len(self.job.lengths) > 1 and first + steps > self.end(first):
            raise ValueError(f"steps {first} to {first + steps - 1} are of several lengths")
        planned = [self.order.batch(first + k) for k in range(steps)]
        counts = np.array([count for _, count in planned])
        local, room = self.job.local_batch, self.job.window_steps
        start = self.job.topology.rank * local
        indices = np.stack([indices[start : start + local] for indices, _ in planned])
        drawn = [
            self.draws.of(indices[k], (first + k) // self.steps_per_epoch) for k in range(steps)
        ]
        together = {name: np.concatenate([each[name] for each in drawn]) for name in drawn[0]}
        length = self.job.lengths[self.order.stretch(first)[0]]
        batch = prepared(self.job, self.reader, indices, room, together, length)
        real = (start + np.arange(local) < counts[:, None]).astype(np.float32)
        weights = self._weights(np.stack([indices for indices, _ in planned]), counts, first)
        return Window(
            steps=steps,
            batch={**batch, "real": filled(real, room)},
            examples=filled(counts, room),
            weights=filled(weights, room),
            length=length,
            **schedule.by_step(self.job, self.steps_per_epoch, self.total_steps, first, steps),
        )

    def units(self, indices: np.ndarray) -> np.ndarray:
        """Return the loss units of examples, int64 of the shape of `indices`."""
        weigh = self.job.workload.weight
        if weigh is None:
            return np.ones(indices.shape, np.int64)
        rows = self.reader.take(indices.reshape(-1), names=self.job.workload.weight_reads)
        return weigh(rows, self.job.recipe, self.job.data).reshape(indices.shape)

    def _weights(self, indices: np.ndarray, counts: np.ndarray, first: int) -> np.ndarray:
        """Return the loss units of each step over all ranks, int64 ``(steps,)``."""
        if self.job.workload.weight is None:
            return counts
        real = np.arange(indices.shape[1]) < counts[:, None]
        weights = np.where(real, self.units(indices), 0).sum(axis=1)
        if not weights.all():
            step = first + int(np.argmin(weights))
            raise UserError(
                f"{self.job.workload.name}: the batch of step {step} has nothing to learn from "
                f"(its weight is 0); choose a larger global_batch than {indices.shape[1]}"
            )
        return weights

    def close(self) -> None:
        """Nothing to let go of: the map goes with its process."""


def buckets(job: Job, reader: Reader) -> np.ndarray | None:
    """Return which of the job's `lengths` each example is padded to, int64 ``(examples,)``.

    None where all batches have one shape.
    """
    lengths = job.lengths
    if len(lengths) == 1:
        return None
    if list(lengths) != sorted(set(lengths)) or len(lengths) > MOST_LENGTHS:
        raise ValueError(f"{job.workload.name}: lengths are {lengths}")
    own = reader.lengths(job.workload.length_of)
    return np.minimum(np.searchsorted(lengths, own), len(lengths) - 1)


def forward_flops(job: Job, own: np.ndarray | None = None) -> float:
    """Return the operations of an example's forward pass, the mean over the examples.

    Args:
        own: which of the job's `lengths` each example is padded to, as `buckets` says.
    """
    model, of = job.recipe["model"], job.workload
    counted = [of.forward_flops(of.at_length(model, length)) for length in job.lengths]
    return counted[0] if own is None else float(np.mean(np.array(counted)[own]))


def prepared(
    job: Job,
    reader: Reader,
    indices: np.ndarray,
    room: int,
    drawn: Mapping[str, np.ndarray],
    length: int,
) -> dict[str, np.ndarray]:
    """Return the arrays of some steps' batches as the workload makes them, ``(room, B, …)``.

    Args:
        indices: of the examples, int64 ``(steps, B)``.
        room: steps that there is room for; the last one's batch is repeated.
        drawn: of each example, ``(steps * B, …)``.
        length: what they are padded to, one of the job's `lengths`.
    """
    steps, local = indices.shape
    wanted = {array.name: array for array in reader.arrays.values() if not array.ragged}
    # What a workload hands on as it is stored is gathered into its place.
    places = {n: np.empty((room * local, *a.shape), a.dtype) for n, a in wanted.items()}
    into = {name: place[: steps * local] for name, place in places.items()}
    rows = reader.take(indices.reshape(-1), into=into)
    made = job.workload.prepare(rows, drawn, job.recipe, job.padded(length), True)
    batch = {}
    for array in job.arrays(length=length):
        values = checked(job, array, made, indices.size)
        if values is rows.get(array.name):
            place = places[array.name].reshape(room, local, *array.shape)
            place[steps:] = place[steps - 1]
            batch[array.name] = place
        else:
            batch[array.name] = filled(values.reshape(steps, local, *array.shape), room)
    return batch


def checked(job: Job, array: Array, made: Mapping[str, Any], examples: int) -> np.ndarray:
    """Return an array that a workload has made, if it is as declared.

    Raises:
        ValueError: it is not, which is a fault of the workload.
    """
    values = made.get(array.name)
    expected = array.dtype, (examples, *array.shape)
    if not isinstance(values, np.ndarray) or (values.dtype.name, values.shape) != expected:
        found = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else values
        raise ValueError(
            f"{job.workload.name}: prepare gives {array.name} as {found}, declared {expected}"
        )
    return values


def filled(rows: np.ndarray, room: int) -> np.ndarray:
    """Return rows followed by copies of the last one, as many as there is room for."""
    if len(rows) == room:
        return rows
    result = np.empty((room, *rows.shape[1:]), rows.dtype)
    result[: len(rows)] = rows
    result[len(rows) :] = rows[-1]
    return result


def evaluation_batches(
    job: Job, reader: Reader, *, batch: int | None = None, examples: int | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """Yield this rank's part of every batch of an evaluation, padded.

    Args:
        batch: examples of a batch over all ranks, a multiple of the devices; the recipe's if None.
        examples: of the split that are evaluated, the first ones; all if None.
    """
    devices, examples = job.topology.devices, examples or reader.examples
    # Not more than there are: the rest of a batch would be padding.
    batch = batch or -(-min(job.recipe["evaluation_batch"], examples) // devices) * devices
    local = batch // job.topology.world_size
    start = job.topology.rank * local
    workload, drawing = job.workload, draws.Draws(job, reader.examples, 0, evaluation=True)
    numbers = {n: np.array(v, np.float32) for n, v in workload.scalars(job.recipe, 0, 1).items()}
    lengths = buckets(job, reader)
    for indices, count in in_turn(examples, batch, lengths):
        own = indices[start : start + local]
        rows = reader.take(own)
        length = job.lengths[0 if lengths is None else lengths[indices[0]]]
        data, drawn = job.padded(length), drawing.of(own, EVALUATION)
        made = workload.prepare(rows, drawn, job.recipe, data, False)
        declared = job.arrays(train=False, length=length)
        arrays = {a.name: checked(job, a, made, local) for a in declared}
        weight = (
            np.ones(local)
            if workload.weight is None
            else workload.weight(rows, job.recipe, job.data)
        )
        real = (start + np.arange(local) < count).astype(np.float32)
        yield {**arrays, **numbers, "real": real, "weight": weight.astype(np.float32)}
