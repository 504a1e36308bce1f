"""What one engine computes on the way up the ladder, rung by rung."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from lockstep.engines.contract import Engine, at_rate, made
from lockstep.errors import UserError
from lockstep.parity import EDGES, STEPS_FROM_GENERAL, canary
from lockstep.training.feed import SharedFeed
from lockstep.workloads import optimizers, taps, weights

SAMPLE = 4096  # elements of a gradient that are kept of each batch but the first
TAIL = 16  # steps up to an epoch's end at most; unrolled programs of 2, 4 … 16 steps fit into it
NOISE = 1e-4  # by which two equal computations may differ on a GPU, whose sums have no fixed order


def climb(
    engine: Engine,
    feed: SharedFeed,
    evaluation: Iterable[Mapping[str, np.ndarray]],
    state: weights.State,
    general: weights.State,
    steps: int,
    batches: int = 1,
    advance: Callable[[int], object] = lambda steps: None,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield what an engine computes on each rung, by the names in `lockstep.parity.trace`.

    Args:
        evaluation: batches of the test split, the last of them incomplete.
        state: initial weights.
        general: a state in general position (`lockstep.parity.position`).
        steps: that are trained in a row.
        batches: whose gradients are told, at most those of an epoch.
        advance: is told how many further steps were trained.

    Raises:
        UserError: the model draws random numbers of its own.
    """
    engine.load(state)
    yield from _named("weights", engine.state())
    yield from _looked(engine, feed)
    for k in range(1, min(batches, feed.steps_per_epoch)):
        for name, gradient in engine.probe(feed.window(k, 1)).items():
            if name.startswith("grad/"):
                yield f"gradients/{k}/{name[5:]}", taps.sample(gradient, SAMPLE)

    # As where a run goes on from a checkpoint: what an engine settles must leave any state alone.
    engine.load(general)
    engine.prepare()
    yield from _named("prepared", engine.state(), taps.SAMPLE)
    engine.load(state)
    yield from _trained(engine, feed, steps, advance)
    yield from _at_edges(engine, feed, steps)

    coming = iter(evaluation)
    first = [next(coming)]
    found = engine.evaluate(itertools.chain(first, coming))
    yield "evaluation/examples", np.array(found.sums["examples"])
    yield "evaluation/weight", np.array(found.sums["weight"])
    yield "evaluation/loss", np.array(found.loss)
    for name, value in feed.job.finish(found).items():
        yield f"evaluation/{name}", np.array(value)
    losses, _ = made(engine, feed.window(steps, 1))
    yield "after/loss", losses[0]
    yield from _named("after", engine.state(), taps.SAMPLE)
    losses, _ = made(engine, feed.window(steps, 1))
    yield "after/later loss", losses[0]  # of all ranks: the state is that of the first one
    # Of what was just trained: `state` may bring ranks together.
    yield "after/evaluation loss", np.array(engine.evaluate(first).loss)

    yield from _from_general(engine, feed, general, first)
    if feed.job.topology.devices == 1:
        engine.load(state)
        for name, array in canary.told(engine, feed):
            yield f"canary/{name}", array


def _looked(engine: Engine, feed: SharedFeed) -> Iterator[tuple[str, np.ndarray]]:
    """Yield what the first batch gives, before it is trained on."""
    window = feed.window(0, 1)
    probe = engine.probe(window)
    _check_draws(engine, probe, engine.probe(window), feed.job.workload.name)
    yield "batch/checksum", probe["checksum"]
    for name, array in probe.items():
        if name.startswith("random/"):
            yield name, array
    for name, array in probe.items():
        kind, _, rest = name.partition("/")
        if kind == "tap":
            yield f"layers/{rest}", array
    # Of the first device: a process that drives several has those of all of them.
    own = feed.job.recipe["global_batch"] // feed.job.topology.devices
    for name, array in probe.items():
        if name.startswith("output/"):
            yield f"forward/{name[7:]}", array[:own]
    yield "loss/loss", probe["loss"]
    for name, array in probe.items():
        if name.startswith("term/") and name != "term/loss":
            yield f"loss/{name[5:]}", array
    for name, array in probe.items():
        if name.startswith("grad/"):
            yield f"gradient/{name[5:]}", array
    for name, array in probe.items():
        if name.startswith("input/"):
            yield name, array


def _check_draws(
    engine: Engine,
    first: Mapping[str, np.ndarray],
    second: Mapping[str, np.ndarray],
    workload: str,
) -> None:
    exact = engine.facts()["device"] == "cpu"
    for name, array in first.items():
        again = second[name]
        apart = np.linalg.norm(np.float64(array) - again) if name != "checksum" else 0.0
        if array.tobytes() != again.tobytes() and (exact or apart > NOISE * np.linalg.norm(again)):
            raise UserError(
                f"{workload}: two forward passes from one state over one batch differ ({name}); "
                "the model draws random numbers of its own (dropout or noise), which the other "
                "framework would draw otherwise; draw them from `random`, which `forward` is given"
            )


def _trained(
    engine: Engine, feed: SharedFeed, steps: int, advance: Callable[[int], object]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every step's loss and checksum, and the state after the first and the last one."""
    window = feed.window(0, 1)
    yield "rate/first", window.scalars["learning_rate"][0]
    losses, checksums = made(engine, window)
    yield from _named("step", engine.state())
    all_losses, all_checksums = [losses], [checksums]
    done = 1
    advance(1)
    while done < steps:
        count = min(feed.job.window_steps, steps - done, feed.end(done) - done)
        losses, checksums = made(engine, feed.window(done, count))
        all_losses.append(losses)
        all_checksums.append(checksums)
        done += count
        advance(count)
    yield "steps/checksum", np.concatenate(all_checksums)
    yield "steps/loss", np.concatenate(all_losses)
    yield from _named("final", engine.state(), taps.SAMPLE)


def _at_edges(engine: Engine, feed: SharedFeed, steps: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the same of the steps on both sides of an epoch's end, and of the run's last step.

    Up to an epoch's end it trains the last steps of a window as runs do, by the same programs. In
    float64, where it is judged, also of each length whose programs the first `steps` did not need.
    """
    epoch, found = feed.steps_per_epoch, []
    _, last, _ = feed.order.stretch(epoch - 1)
    window = (epoch - 1 - last) % feed.job.window_steps + 1  # the epoch's last one has so many
    tail = (window - 1) % TAIL + 1
    edges = (epoch - tail, tail), (epoch, 1), (max(0, feed.total_steps - 1), 1)
    for name, (first, count) in (*zip(EDGES, edges), *_unmet(feed, steps)):
        losses, checksums = made(engine, feed.window(first, count))
        found.append((name, losses[-1], checksums[-1]))
    yield "edges/checksum", np.array([check for _, _, check in found], np.uint32)
    for name, loss, _ in found:
        yield f"edge/loss of {name}", loss
    yield from _named("edge", engine.state(), taps.SAMPLE)


def _unmet(feed: SharedFeed, steps: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield a name for each length that the first steps have not, and where a window of it is.

    None of a precision whose edges are not judged.
    """
    job, step = feed.job, 0
    met = {feed.order.stretch(k)[0] for k in range(steps)}
    exact = job.variant["precision"] == "float64"
    while exact and len(met) < len(job.lengths) and step < feed.steps_per_epoch:
        own, first, end = feed.order.stretch(step)
        if own not in met:
            met.add(own)
            window = first, min(end - first, job.window_steps)
            yield f"a step of length {job.lengths[own]}", window
        step = end


def _from_general(
    engine: Engine,
    feed: SharedFeed,
    general: weights.State,
    evaluation: Iterable[Mapping[str, np.ndarray]],
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield a state in general position as it is given back, evaluated, and two steps from it.

    They are made at the peak of the learning rate: at the first one of a warm-up what a step
    changes may be less than float32 can tell.
    """
    engine.load(general)
    yield from _named("restored", engine.state(), taps.SAMPLE)
    for step, rung in enumerate(STEPS_FROM_GENERAL):
        window = feed.window(step, 1)
        window = at_rate(window, feed.job.recipe["optimizer"]["learning_rate"])
        probe = engine.probe(window)
        yield f"{rung}/loss", probe["loss"]
        gradients = {name[5:]: a for name, a in probe.items() if name.startswith("grad/")}
        for name, array in gradients.items():
            yield f"{rung}/gradient/{name}", taps.sample(array)
        yield f"{rung}/norm", np.array(optimizers.global_norm(gradients))
        yield f"{rung}/evaluation loss", np.array(engine.evaluate(evaluation).loss)
        made(engine, window)
        yield from _named(rung, engine.state(), taps.SAMPLE)


def _named(
    rung: str, state: weights.State, most: int | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield a state's tensors; a sample of each if `most` elements are to be kept."""
    for name, array in state.items():
        yield f"{rung}/{name}", array if most is None else taps.sample(array, most)
