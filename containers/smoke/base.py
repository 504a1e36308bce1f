"""Smoke test of the base image: all imports, HDF5, a figure, tracking without a network."""

import importlib.metadata
import json
import platform
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import h5py
import jinja2
import jsonschema
import numpy as np
import pandas
import PIL.Image
import safetensors.numpy
import scipy.special
import seaborn
import sklearn.datasets
import tensorboardX
import tokenizers
import tqdm
import wandb
import yaml

USED = (
    h5py,
    jinja2,
    jsonschema,
    pandas,
    PIL.Image,
    safetensors.numpy,
    scipy.special,
    sklearn.datasets,
)
ALSO_USED = (tensorboardX, tokenizers, tqdm, yaml)


def require_gpu(seen: bool, control: Path = Path("/dev/nvidiactl")) -> None:
    """Fail if a framework does not see a GPU although the image was given one (`--nv`)."""
    assert seen or not control.exists(), (
        "there is a GPU here, but the framework cannot use it; look at nvidia-smi, or hide it "
        "(CUDA_VISIBLE_DEVICES=) for an image that need not be tested on it"
    )


def debian() -> dict[str, str]:
    """Return the versions of Debian's packages; none in an image of another distribution."""
    query = ["dpkg-query", "--show", "--showformat", "${Package}=${Version}\n"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return {}
    return dict(line.split("=", 1) for line in sorted(answer.stdout.splitlines()))


def report() -> str:
    """Return the versions that this image holds, as one line of JSON."""
    # Not sys.path: setuptools, once imported, adds a folder of its own copies.
    installed = importlib.metadata.distributions(path=[sysconfig.get_path("purelib")])
    found = {entry.name: entry.version for entry in installed}
    told = {"python": platform.python_version(), "packages": found, "debian": debian()}
    return json.dumps(told)


def main() -> None:
    """Use what the stages use."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.h5"
        with h5py.File(path, "w") as file:
            file["x"] = np.arange(6, dtype=np.float32)
        with h5py.File(path) as file:
            assert file["x"][...].sum() == 15
        table = pandas.DataFrame({"x": [1, 2], "y": [3, 4]})
        seaborn.lineplot(table, x="x", y="y").figure.savefig(Path(folder) / "x.svg")
        run = wandb.init(mode="offline", dir=folder, settings=wandb.Settings(silent=True))
        run.log({"x": 1})
        run.finish()
    assert len(sklearn.datasets.load_digits().target) == 1797


if __name__ == "__main__":
    main()
    print(report())
