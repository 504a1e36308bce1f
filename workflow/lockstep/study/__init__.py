"""From a study's config to its runs; the one place that knows names and paths.

A `Study` holds a complete config (`lockstep.study.config.complete`). The Snakefile makes one and
asks it for paths and parameters; the stages get the same config as `results/STUDY/study.json`.
"""

import functools
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lockstep import files, machine, places
from lockstep.errors import UserError, nearest
from lockstep.images import study_image
from lockstep.study.identity import (
    dataset_identity,
    deploy_code,
    run_code,
    settle,
    trace_code,
    trace_key,
)
from lockstep.study.run import Block, Run, Scale

PAIRED = "paired"
PACKAGES = ("torch", "torchvision", "jax", "jaxlib", "flax", "optax", "grain", "numpy", "h5py")
SERVING = ("onnx", "onnxruntime", "onnxscript", "jax2onnx")


class Study:
    """One study: its config, its runs and where everything lies."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        settle(config)
        self.name: str = config["study"]
        self.root = Path(config["paths"]["results"]) / self.name
        self.data = Path(config["paths"]["data"])
        self._asked: dict[str, str] = {}  # repetitions that are not noted in the folder yet

    @classmethod
    def load(cls, path: Path) -> "Study":
        """Read the complete config that the workflow wrote as ``study.json``.

        The study is where that file lies, wherever its folder was moved to.

        Args:
            path: that file, or the folder that it is in.

        Raises:
            UserError: there is none, or it is another file.
        """
        path = path / "study.json" if path.is_dir() else path
        where = "name the folder of a study that was started, results/STUDY"
        if not path.is_file():
            raise UserError(f"{path}: no such file; {where}")
        if path.suffix in (".yaml", ".yml"):
            raise UserError(f"{path}: is a config, not the study.json that a run makes; {where}")
        config = files.read_json(path)
        if not isinstance(config, dict) or not {"study", "workloads", "paths"} <= config.keys():
            raise UserError(f"{path}: is not the study.json of a study; {where}")
        study = cls(config)
        if path.name == study.path.name and path.parent.resolve() != study.root.resolve():
            study.root = path.parent
        return study

    def write(self) -> None:
        """Write the complete config where `load` reads it, unless it is there, and repetitions."""
        if not self.path.is_file() or files.read_json(self.path) != self.config:
            files.write_json(self.path, self.config)
        if self._asked:
            files.write_json(self.repetitions, self._repeated())

    # What is run -----------------------------------------------------------------------------

    @functools.cached_property
    def runs(self) -> tuple[Run, ...]:
        """All runs, variants innermost: neighbours in time differ in the variant alone."""
        return tuple(
            Run(workload=workload, scale=scale, seed=seed, variant=variant)
            for workload, scale, seed, variant in itertools.product(
                self.config["workloads"],
                map(Scale.parse, self.config["scales"]),
                self.config["seeds"],
                self.config["variants"],
            )
        )

    @functools.cached_property
    def blocks(self) -> dict[str, Block]:
        """The scheduled units by name: one run each, or all variants of one seed if paired."""
        if not self.config["blocks"]["paired"]:
            return {run.name: Block(name=run.name, runs=(run,)) for run in self.runs}
        grouped: dict[str, list[Run]] = {}
        for run in self.runs:
            name = f"{run.workload}/{PAIRED}/{run.scale}/seed-{run.seed}"
            grouped.setdefault(name, []).append(run)
        return {name: Block(name=name, runs=tuple(runs)) for name, runs in grouped.items()}

    def block(self, name: str) -> Block:
        """Return a block by its name.

        Raises:
            UserError: the study has no such block.
        """
        block: Block = self._named("block", name, self.blocks)
        return block

    def variant(self, name: str) -> Mapping[str, Any]:
        """Return a variant's complete config.

        Raises:
            UserError: the study has no such variant.
        """
        entry: Mapping[str, Any] = self._named("variant", name, self.config["variants"])
        return entry

    def workload(self, name: str) -> Mapping[str, Any]:
        """Return a workload entry's complete recipe, with `workload` and `dataset`.

        Raises:
            UserError: the study has no such workload.
        """
        entry: Mapping[str, Any] = self._named("workload", name, self.config["workloads"])
        return entry

    def dataset(self, name: str) -> Mapping[str, Any]:
        """Return a dataset's complete entry.

        Raises:
            UserError: the study has no such dataset.
        """
        entry: Mapping[str, Any] = self._named("dataset", name, self.config["datasets"])
        return entry

    def image(self, name: str) -> study_image.StudyImage:
        """Return an image that the study runs in.

        Raises:
            UserError: it runs in none of this name.
        """
        image: study_image.StudyImage = self._named("image", name, self.images)
        return image

    def _named(self, kind: str, name: str, known: Mapping[str, Any]) -> Any:
        if name not in known:
            raise UserError(f"study {self.name} has no {kind} {name!r}; {nearest(name, known)}")
        return known[name]

    @property
    def deployed(self) -> list[str]:
        """The workloads that are deployed after training: all or none."""
        return list(self.config["workloads"]) if self.config.get("deploy") else []

    def deployed_runs(self, workload: str) -> list[Run]:
        """Return the runs whose final states are deployed, one a seed: all are compressed, the
        first is what routes are timed with. They are of the first variant and scale.
        """
        seeds, chosen = list(self.config["seeds"]), self.config["deploy"]["seed"]
        first = seeds[0] if chosen is None else chosen
        variant = next(iter(self.config["variants"]))
        scale = Scale.parse(self.config["scales"][0])
        ordered = [first, *(seed for seed in seeds if seed != first)]
        return [Run(workload=workload, variant=variant, scale=scale, seed=s) for s in ordered]

    def deployed_variants(self) -> dict[str, Mapping[str, Any]]:
        """Return for each framework the variant that a model is built as: its first one."""
        found: dict[str, Mapping[str, Any]] = {}
        for variant in self.config["variants"].values():
            found.setdefault(variant["framework"], variant)
        return found

    # Parity ----------------------------------------------------------------------------------

    @functools.cached_property
    def traced(self) -> dict[str, str]:
        """From each variant to the variant whose parity trace stands for it.

        Variants that differ in their input alone share one: what is traced are the programs.
        """
        first: dict[tuple, str] = {}
        return {
            name: first.setdefault(trace_key(variant), name)
            for name, variant in self.config["variants"].items()
        }

    @property
    def traced_over_several(self) -> bool:
        """Whether traces are of two devices, too (`lockstep.parity.joint`)."""
        return any(Scale.parse(scale).size > 1 for scale in self.config["scales"])

    @functools.cached_property
    def climbed(self) -> dict[str, int]:
        """Steps that every trace makes: in float64, in other precisions, over two devices.

        At least a first one and a call of the program that makes most of them at once.
        """
        least = 1 + max(v["steps_per_dispatch"] for v in self.config["variants"].values())
        asked = self.config["parity"]
        return {
            "steps": max(asked["steps"], least),
            "float32_steps": max(asked["float32_steps"], least),
            "several_steps": least if self.traced_over_several else 0,
        }

    def traces(self) -> list[str]:
        """Return the variants that are traced; the first is the reference."""
        return list(dict.fromkeys(self.traced.values()))

    # Where things are ------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The complete config, for the stages."""
        return self.root / "study.json"

    def dataset_folder(self, name: str) -> Path:
        """A preprocessed dataset's folder; its path holds the identity of what made it."""
        return self.data / "datasets" / f"{name}-{self.dataset_identity(name)[:12]}"

    def dataset_manifest(self, name: str) -> Path:
        """What the dataset holds: a small file, the real dependency of what reads it."""
        return self.dataset_folder(name) / "manifest.json"

    def raw_folder(self, name: str) -> Path:
        """Where a source's raw files are: staged by a person, or downloaded."""
        entry = self.dataset(name)
        return Path(entry["raw"]) if entry["raw"] else self.data / "raw" / entry["source"]

    def start(self, workload: str) -> str | None:
        """Return the hash of the file that a workload starts from, if there is one."""
        path = self.workload(workload)["start"]
        return files.sha256_file(Path(path)) if path else None

    def weights(self, workload: str, seed: int) -> Path:
        """Initial weights of a workload and a seed."""
        return self.root / "weights" / workload / f"seed-{seed}.safetensors"

    def trace(self, workload: str, variant: str) -> Path:
        """A parity trace."""
        return self.root / "parity" / workload / f"{variant}.npz"

    def verdict(self, workload: str) -> Path:
        """What the parity comparison found, passed or not."""
        return self.root / "parity" / workload / "verdict.json"

    def passed(self, workload: str) -> Path:
        """Exists only if parity is proven; runs depend on it."""
        return self.root / "parity" / workload / "passed.json"

    def manifest(self, block: str) -> Path:
        """A block's output: which runs it finished, with the hashes of their records."""
        return self.root / "blocks" / f"{block}.json"

    def run_folder(self, run: Run) -> Path:
        """Everything known about a run; not an output, so that a failed block keeps it."""
        return self.root / "runs" / run.name

    def states(self, block: str) -> Path:
        """A block's other output: the final state of each of its runs."""
        return self.root / "states" / block

    def caches(self, instruction_set: str) -> Path:
        """Compiled programs; XLA refuses those made on a CPU with other features."""
        return self.root / "cache" / instruction_set

    def programs(self, instruction_set: str, run: Run) -> Path:
        """What a run's variant has compiled, for all seeds; nothing else writes there."""
        return self.caches(instruction_set) / run.workload / run.variant / str(run.scale)

    def trace_programs(self, instruction_set: str) -> Path:
        """What parity traces have compiled: it must not warm a run's start."""
        return self.caches(instruction_set) / ".parity"

    @property
    def repetitions(self) -> Path:
        """Which stages a person had repeated (`snakemake -R train`), and when."""
        return self.root / "repetitions.json"

    def repetition(self, stage: str) -> str | None:
        """Return the mark of the last repetition of a stage; a run made before it is no longer
        finished, although everything that determines it is as it was.
        """
        return self._repeated().get(stage)

    def repeat(self, stages: Iterable[str], mark: str) -> None:
        """Ask for stages to be repeated; `write` notes it where their jobs read it."""
        self._asked = dict.fromkeys(stages, mark)

    def _repeated(self) -> dict[str, str]:
        known = files.read_json(self.repetitions) if self.repetitions.is_file() else {}
        return {**known, **self._asked}

    def again(self, run: Run) -> Path:
        """Exists if a run has given up on a busy machine (`lockstep.training.loop.Disturbed`)."""
        return self.root / "again" / f"{run.name}.json"

    @functools.cached_property
    def given_up(self) -> dict[str, str]:
        """The runs that have given up, by name, and when each of them last did."""
        folder = self.root / "again"
        return {
            path.relative_to(folder).with_suffix("").as_posix(): files.read_json(path)["ended"]
            for path in folder.rglob("*.json")
        }

    def deployment(self, workload: str) -> Path:
        """What is known of a workload after training (`lockstep.deploy`); artefacts lie beside."""
        return self.root / "deploy" / workload / "record.json"

    def report(self) -> Path:
        """The report's page."""
        return self.root / "report" / "index.html"

    def complete_report(self) -> Path:
        """Exists only if the report was made of a whole study; hashes of page and numbers."""
        return self.root / "report" / "complete.json"

    def archive(self) -> Path:
        """The whole study in one file."""
        return self.root.with_name(f"{self.name}.crate.zip")

    def partial_archive(self) -> Path:
        """The same of a study that is not complete."""
        return self.root.with_name(f"{self.name}.partial.crate.zip")

    # Images ----------------------------------------------------------------------------------

    @functools.cached_property
    def images(self) -> dict[str, study_image.StudyImage]:
        """The images that this study runs in, by name; none in a study without containers."""
        frameworks = {variant["framework"] for variant in self.config["variants"].values()}
        return study_image.of_study(self.config["images"], self.data, frameworks)

    @property
    def parity_image(self) -> str:
        """The image that traces are compared in: PyTorch's, where what differs is looked for."""
        return "torch" if "torch" in self.images else "base"

    # What determines things ------------------------------------------------------------------

    def dataset_identity(self, name: str) -> str:
        """Hash of what determines a preprocessed dataset."""
        return dataset_identity(self.dataset(name))

    def block_parameters(self, block: str) -> dict[str, Any]:
        """What a block's runs depend on besides files: Snakemake reruns it when this changes."""
        shared = [self.environment, self.repetition("train")]
        return {
            run.name: files.digest(
                [
                    self.run_config(run),
                    run_code(*self.framework(run)),
                    *shared,
                    # A run that gave up is trained again; after that its mark stays as it is.
                    *([self.given_up[run.name]] if run.name in self.given_up else []),
                ]
            )
            for run in self.block(block).runs
        }

    def trace_parameters(self, workload: str, variant: str) -> dict[str, Any]:
        """All but the dataset and the weights that decides what a trace holds."""
        recipe, settings = self.workload(workload), self.variant(variant)
        return {
            "recipe": places.without(recipe),
            "variant": trace_key(settings),
            "parity": self.climbed,
            "window_steps": self.config["window_steps"],
            "code": trace_code(settings["framework"], recipe["workload"]),
            "environment": self.environment,
        }

    def deploy_parameters(self, workload: str) -> dict[str, Any]:
        """What a workload's deployment depends on besides its runs."""
        kind = self.workload(workload)["workload"]
        return {
            "settings": self.config["deploy"],
            "code": deploy_code(tuple(self.deployed_variants()), kind),
            "environment": self.environment and {**self.environment, **machine.versions(SERVING)},
        }

    @functools.cached_property
    def environment(self) -> dict[str, str]:
        """Return the versions of the packages that decide a result, if no image has them."""
        return {} if self.images else machine.versions(PACKAGES)

    def run_config(self, run: Run) -> dict[str, Any]:
        """Return the part of the config that determines a run's result."""
        return {
            "workload": places.without(self.workload(run.workload)),
            "variant": self.variant(run.variant),
            "scale": str(run.scale),
            "seed": run.seed,
            "threads": self.config["threads"],
            "window_steps": self.config["window_steps"],
        }

    def framework(self, run: Run) -> tuple[str, str]:
        """Return a run's framework and the workload's folder."""
        return self.variant(run.variant)["framework"], self.workload(run.workload)["workload"]
