"""A copy of the repository and the command that a person starts in it."""

import copy
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from tests.conftest import PATIENCE, ROOT

PARTS = ("Snakefile", "config.yaml", "containers", "demo", "profiles", "workflow")
CONFIG = "study.yaml"

SMALL = {
    "study": "small",
    "datasets": {"digits": {"source": "digits"}},
    "workloads": {
        "mnist_cnn": {"dataset": "digits", "epochs": 4, "optimizer": {"learning_rate": 0.01}}
    },
    "variants": {
        "torch-eager": {"framework": "torch", "mode": "eager"},
        "jax-jit": {"framework": "jax", "mode": "jit", "convolution": "im2col"},
    },
    "seeds": [0],
    "threads": 2,
    # Tests time nothing, and have neighbours.
    "blocks": {"share_nodes": True, "cold_start": False, "watch": False},
    "window_steps": 5,
    "parity": {"steps": 3, "float32_steps": 3},
}
"""Four epochs of the digits, 92 steps, in both frameworks."""

BLOCKS = {f"mnist_cnn/{variant}/1x1/seed-0" for variant in SMALL["variants"]}


def small(**changes: object) -> dict:
    """The small study with other values at its top level, or deeper: ``a__b=value``."""
    study = copy.deepcopy(SMALL)
    for path, value in changes.items():
        *parents, last = path.split("__")
        inner = study
        for key in parents:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return study


@dataclass(frozen=True, kw_only=True)
class Said:
    """How a command ended and what it wrote to the terminal."""

    status: int
    text: str

    @property
    def jobs(self) -> set[str]:
        """What Snakemake started (or would start), by the rules' messages."""
        return set(re.findall(r"^Job \d+: (.*)$", self.text, re.MULTILINE))

    @property
    def lines(self) -> list[str]:
        """The lines that are our own, not Snakemake's."""
        return [line for line in self.text.splitlines() if line.startswith("lockstep: ")]


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """A working copy of the repository: results and data are made in it."""

    root: Path
    home: Path
    compiled: Path | None = None  # a folder of compiled programs that studies share

    @classmethod
    def make(cls, root: Path, home: Path, compiled: Path | None = None) -> "Checkout":
        """Copy what git has of the workflow."""
        root.mkdir(parents=True)
        for name in PARTS:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name)  # with its byte code: compiling takes seconds
            else:
                shutil.copy2(source, root / name)
        return cls(root=root, home=home, compiled=compiled)

    def duplicate(self, root: Path) -> "Checkout":
        """Copy everything, with times and what Snakemake knows, as `cp -a` does."""
        shutil.copytree(self.root, root, symlinks=True)
        return Checkout(root=root, home=self.home, compiled=self.compiled)

    def write(self, study: dict) -> None:
        """Write a study's config file."""
        (self.root / CONFIG).write_text(yaml.safe_dump(study, sort_keys=False))
        cache = self.results(study["study"]) / "cache"
        if self.compiled and not cache.exists():
            cache.parent.mkdir(parents=True, exist_ok=True)
            cache.symlink_to(self.compiled)

    def edit(self, path: str, old: str, new: str) -> None:
        """Change a file of the code."""
        text = (self.root / path).read_text()
        assert old in text, f"{path} no longer has {old!r}"
        (self.root / path).write_text(text.replace(old, new, 1))

    def start(self, *arguments: object, **options: object) -> subprocess.Popen:
        """Start Snakemake on the study that was written last."""
        # Targets go first: Snakemake takes whatever follows --configfile for more config files.
        command = ["-m", "snakemake", *map(str, arguments)]
        command += ["--profile", "profiles/local", "--configfile", CONFIG]
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )

    def snakemake(self, *arguments: object, study: dict | None = None, status: int = 0) -> Said:
        """Run Snakemake to its end and check how it ended."""
        if study is not None:
            self.write(study)
        process = self.start(*arguments)
        text, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == status, text
        return Said(status=process.returncode, text=text)

    def planned(self, *arguments: object, study: dict | None = None) -> set[str]:
        """What Snakemake would do, besides saying that all is there."""
        said = self.snakemake("--dry-run", *arguments, study=study)
        return {job for job in said.jobs if not job.endswith("is complete")}

    def lockstep(self, *arguments: object, status: int = 0) -> Said:
        """Run `python -m lockstep …` to its end and check how it ended."""
        done = subprocess.run(
            [sys.executable, "-m", "lockstep", *map(str, arguments)],
            cwd=self.root,
            env={**self.environment, "PYTHONPATH": "workflow"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == status, done.stdout
        return Said(status=done.returncode, text=done.stdout)

    @property
    def environment(self) -> dict[str, str]:
        """A person's environment, with a home of its own and without this package."""
        hidden = ("PYTHONPATH", "XDG_CACHE_HOME", "MPLCONFIGDIR")
        return {k: v for k, v in os.environ.items() if k not in hidden} | {"HOME": str(self.home)}

    def results(self, study: str = "small") -> Path:
        """A study's results."""
        return self.root / "results" / study

    def files(self) -> dict[str, int]:
        """When each file of results and data was last written, by name; without logs and caches."""
        found = {}
        for top in ("results", "data"):
            for path in (self.root / top).rglob("*"):
                name = path.relative_to(self.root)
                hidden = path.name.startswith(".") or {"logs", "cache"} & set(name.parts)
                if path.is_file() and not hidden:
                    found[str(name)] = path.stat().st_mtime_ns
        return found


def losses(results: Path, block: str) -> np.ndarray:
    """The loss of every step of a run."""
    with np.load(results / "runs" / block / "steps.npz") as steps:
        return steps["loss"]
