"""Which packages this Python lacks for what of a study runs outside of images."""

import importlib.util

from lockstep.datasets import sources
from lockstep.study import Study

STAGES = ("h5py", "safetensors", "seaborn")  # of many, which come together
FRAMEWORKS = {"torch": ("torch",), "jax": ("jax", "flax", "optax")}
DOWNLOADS = "torchvision"  # always outside: jobs in images have no way out
INSTALL = "pip install --require-hashes -r requirements/cpu.txt (make demo does)"
REMEDY = f"{INSTALL}, or set images.enabled to true"
DOWNLOADS_REMEDY = (
    f"{INSTALL}, or put the raw files into a folder and name it as `raw` in the config's datasets"
)


def lacking(study: Study) -> list[str]:
    """Return what stages import that are to run in this Python; nothing in a study in images."""
    if study.images:
        return []
    frameworks = sorted({variant["framework"] for variant in study.config["variants"].values()})
    wanted = [*STAGES, *(package for name in frameworks for package in FRAMEWORKS[name])]
    return [package for package in wanted if not _installed(package)]


def cannot_download(study: Study) -> list[str]:
    """Return the datasets that are to be downloaded, where this Python cannot."""
    if _installed(DOWNLOADS):
        return []
    names = {entry["dataset"] for entry in study.config["workloads"].values()}
    return [
        name
        for name in sorted(names)
        if sources.downloads(study.dataset(name)["source"])
        and not study.raw_folder(name).exists()
        and not study.dataset_manifest(name).is_file()
    ]


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
