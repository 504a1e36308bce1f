"""What one rank wants of a framework's own loader (`input: native`)."""

from dataclasses import dataclass


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
