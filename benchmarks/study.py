"""What it costs to look at a large study: `snakemake --profile slurm --dry-run`.

Studies of 4 workloads x 5 variants x 1 scale, of which nothing is made yet. Wanted: 10,000 runs
within 60 s and 2 GB.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import VARIANTS, WORKLOADS
from benchmarks.row import Row, times
from lockstep import files

ROOT = Path(__file__).resolve().parents[1]
LIMITS = {"time": ("<=", 60.0), "CPU time": None, "peak": ("<=", 2000.0)}
UNITS = {"time": "s", "CPU time": "s", "peak": "MB"}


def measure(quick: bool) -> list[Row]:
    """Return time and memory of dry runs of growing studies."""
    rows = []
    for runs in (20,) if quick else (100, 1_000, 10_000):
        with tempfile.TemporaryDirectory() as folder:
            made = dry_run(Path(folder), runs)
        for what, value in made.items():
            title = f"dry run of {runs:,} runs: {what}"
            rows.append(times(title, UNITS[what], [value], LIMITS[what]))
    return rows


def dry_run(folder: Path, runs: int) -> dict[str, float]:
    """Look at a study of so many runs; returns seconds, seconds of CPU time, and MB at most.

    Raises:
        RuntimeError: Snakemake did not plan every run.
    """
    study = {
        "study": f"runs-{runs}",
        "datasets": {"digits": {"source": "digits"}},
        "workloads": {name: {"workload": "mnist_cnn", "dataset": "digits"} for name in WORKLOADS},
        "variants": VARIANTS,
        "seeds": list(range(runs // (len(WORKLOADS) * len(VARIANTS)))),
    }
    files.write_json(folder / "study.yaml", study)  # JSON is YAML
    command = [sys.executable, "-m", "snakemake", "--profile", str(ROOT / "profiles" / "slurm")]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--configfile", "study.yaml", "--dry-run"]
    begin = time.monotonic()
    with open(folder / "said", "w+") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        planned = sum(": Train " in line for line in said)
    if process.returncode or planned != runs:
        raise RuntimeError(f"status {process.returncode}, {planned} of {runs} runs are planned")
    return {
        "time": time.monotonic() - begin,
        "CPU time": used.ru_utime + used.ru_stime,
        "peak": used.ru_maxrss * 1024 / 1e6,
    }
