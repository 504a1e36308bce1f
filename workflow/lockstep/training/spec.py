"""All that a run's processes are told: one JSON file, written by the block that starts them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lockstep import files


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """A run, resolved.

    Attributes:
        study, workload, variant, scale, seed: the run's name.
        recipe: complete recipe, with `workload` (its folder) and `dataset`.
        settings: complete config of the variant.
        identity: hash of what determines the run; checkpoints lie under it.
        trajectory: the same without framework, variant, scale and code: what a checkpoint of
            another framework must share to be continued.
        determined_by: what `identity` was made from.
        folder: where the records go.
        checkpoints: where the checkpoints go.
        dataset: the dataset's manifest.
        weights: initial weights.
        programs: hash of what determines the programs that are compiled.
        caches: folder for them.
        resume_from: a checkpoint to start from where the run has none of its own.
        threads: CPU threads of a node.
        watched: whether to look for other work on the run's CPUs.
        window_steps, checkpoint_seconds, checkpoint_steps, tensorboard, wandb: from the config.
        host: facts about the node and the job, for the contract.
    """

    study: str
    workload: str
    variant: str
    scale: str
    seed: int
    recipe: Mapping[str, Any]
    settings: Mapping[str, Any]
    identity: str
    trajectory: str
    determined_by: Mapping[str, Any]
    folder: str
    checkpoints: str
    dataset: str
    weights: str
    programs: str
    caches: str
    resume_from: str | None
    threads: int
    watched: bool
    window_steps: int
    checkpoint_seconds: float
    checkpoint_steps: int | None
    tensorboard: bool
    wandb: bool
    host: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Workload, variant, scale and seed, as in the run's folder."""
        return f"{self.workload}/{self.variant}/{self.scale}/seed-{self.seed}"

    @property
    def attempt(self) -> int:
        """How many attempts to train this run were begun before this one."""
        made = (self.host.get("job") or {}).get("attempts") or ()
        return max(0, len(made) - 1)

    def save(self, path: Path) -> None:
        """Write the specification."""
        files.write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "RunSpec":
        """Read a specification."""
        return cls(**files.read_json(path))
