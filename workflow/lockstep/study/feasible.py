"""What can be known of a study before its first job: mistakes that would cost hours otherwise."""

import importlib.util
import os
from pathlib import Path

from lockstep import files, machine
from lockstep.datasets import sources
from lockstep.errors import UserError
from lockstep.study import Study
from lockstep.study.run import Scale


def check(study: Study, *, local: bool) -> None:
    """Check a study against this machine and its data.

    Args:
        local: whether its runs are to be trained on this machine, and not by SLURM.

    Raises:
        UserError: names the key of the config, what stands against it and what would be right.
    """
    check_places(study)
    check_raw_folders(study)
    _ = study.images  # a mistake in their part of the config shows here
    _check_tracking(study)
    _check_batches(study)
    if local:
        check_machine(study)


def check_raw_folders(study: Study) -> None:
    """Check that staged raw files are there, where they are still needed.

    Raises:
        UserError: a dataset is to be made from a folder that is missing or empty.
    """
    for name in {entry["dataset"] for entry in study.config["workloads"].values()}:
        raw = study.config["datasets"][name]["raw"]
        if raw is None or study.dataset_manifest(name).is_file():
            continue
        if not Path(raw).is_dir() or not any(Path(raw).iterdir()):
            _check_written_out(f"datasets.{name}.raw", raw)
            state = "is empty" if Path(raw).is_dir() else "is not a folder"
            downloads = sources.downloads(study.config["datasets"][name]["source"])
            raise UserError(
                f"datasets.{name}.raw is {raw!r}, which {state}; name the folder that holds the "
                f"raw files{', or null to download them' if downloads else ''}"
            )


def check_places(study: Study) -> None:
    """Check that there can be folders where a study's files are to be.

    Raises:
        UserError: a file is in the way, a folder cannot be written, or a path is meant for a shell.
    """
    for key, text in study.config["paths"].items():
        _check_written_out(f"paths.{key}", text)
        path = Path(text).absolute()
        there = next(folder for folder in (path, *path.parents) if folder.exists())
        if not there.is_dir():
            raise UserError(f"paths.{key} is {text!r}, but {there} is a file; choose a folder")
        if not os.access(there, os.W_OK):
            raise UserError(f"paths.{key} is {text!r}, but {there} cannot be written by this user")


def _check_written_out(key: str, text: str) -> None:
    """A folder called ~ or $SCRATCH is never meant; a config is the same for whoever reads it."""
    if text.startswith("~") or "$" in text:
        meant = os.path.expandvars("$HOME" + text[1:] if text.startswith("~/") else text)
        right = "" if meant.startswith("~") or "$" in meant else f": {meant}"
        raise UserError(
            f"{key} is {text!r}; no shell replaces ~ and variables in a config, so write the path "
            f"out{right}"
        )


def _check_tracking(study: Study) -> None:
    """Images have W&B; this Python may not."""
    if not study.config["tracking"]["wandb"] or study.images:
        return
    if importlib.util.find_spec("wandb") is None:
        raise UserError(
            "tracking.wandb is true, but the package wandb is not installed here; pip install "
            "wandb, or set tracking.wandb to false"
        )


def _check_batches(study: Study) -> None:
    for name, entry in study.config["workloads"].items():
        dataset = entry["dataset"]
        examples, batch = training_examples(study, dataset), entry["global_batch"]
        if examples is not None and batch > examples:
            raise UserError(
                f"workloads.{name}.global_batch is {batch}, more than the {examples} training "
                f"examples of dataset {dataset}; choose at most {examples}"
            )


def training_examples(study: Study, dataset: str) -> int | None:
    """Return how many training examples a dataset has; None if that is not known yet."""
    manifest = study.dataset_manifest(dataset)
    if manifest.is_file():
        return int(files.read_json(manifest)["splits"]["train"]["examples"])
    try:
        source = sources.load(study.dataset(dataset)["source"])
    except ModuleNotFoundError:  # a login node without NumPy
        return None
    return getattr(source, "EXAMPLES", None)


def oversubscribed(study: Study) -> list[str]:
    """Return what to say of more threads than cores, which is no mistake: bits depend on them."""
    threads, cores = study.config["threads"], len(os.sched_getaffinity(0))
    if threads <= cores:
        return []
    return [f"threads is {threads}, and this machine has {cores} cores: no time will be of use"]


def check_machine(study: Study) -> None:
    """Check that all processes of a scale, nodes or not, can run on this machine, as they are set.

    Raises:
        UserError: it has fewer cores, or GPUs, than that; or none for a precision of GPUs.
    """
    gpus, cores = machine.gpu_count(), len(os.sched_getaffinity(0))
    most = max(gpus, cores)  # with PyTorch or JAX for CPUs, a GPU is none
    for text in study.config["scales"]:
        if Scale.parse(text).size > most:
            raise UserError(
                f"scales has {text}, but this machine has {cores} cores and {gpus} GPUs; choose at "
                f"most 1x{most}, or run on a cluster with --profile slurm"
            )
    for name, variant in study.config["variants"].items():
        if variant["precision"] == "tf32" and not gpus:
            raise UserError(
                f"variants.{name}.precision is tf32, which GPUs alone have, and this machine has "
                "none; use float32, or run on a cluster with --profile slurm"
            )
