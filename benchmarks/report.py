"""How long and how much memory the report of many runs takes.

Writes studies of 4 workloads x 5 variants x 1 scale with known truth, then makes each report in a
process of its own. Wanted: 10,000 runs within 60 s and 2 GB on two cores, growing linearly, and a
page of at most 5 MB.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.row import Row, times

if TYPE_CHECKING:
    from lockstep.study.run import Run

STUDIES = Path(__file__).resolve().parents[1] / "tests" / "report"
VARIANTS = {
    "torch-eager": {"framework": "torch", "mode": "eager"},
    "torch-compile": {"framework": "torch", "mode": "compile"},
    "torch-bf16": {"framework": "torch", "mode": "eager", "precision": "bfloat16"},
    "jax-jit": {"framework": "jax", "mode": "jit"},
    "jax-bf16": {"framework": "jax", "mode": "jit", "precision": "bfloat16"},
}
WORKLOADS = ("alpha", "beta", "gamma", "delta")


def measure(quick: bool) -> list[Row]:
    """Return time, memory and size of reports of growing studies."""
    rows = []
    for runs in (100,) if quick else (1_000, 10_000):
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder), runs)
            command = [sys.executable, "-m", "benchmarks.report", str(path)]
            made = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        for what, unit, bound in (("time", "s", 60.0), ("peak", "MB", 2000.0), ("page", "MB", 5.0)):
            limit = ("<=", bound) if runs == 10_000 else None
            row = times(f"report of {runs:,} runs: {what}", unit, [made[what]], limit)
            rows.append(row)
    return rows


def write(root: Path, runs: int) -> Path:
    """Write a study of so many runs; returns its study.json."""
    sys.path.insert(0, str(STUDIES))
    import report_studies

    study = report_studies.write(
        root,
        name=f"runs-{runs}",
        workloads=WORKLOADS,
        variants=VARIANTS,
        seeds=runs // (len(WORKLOADS) * len(VARIANTS)),
        step_seconds={name: 0.01 / (k + 1) for k, name in enumerate(VARIANTS)},
        edit=_precision,
    )
    return study.path


def _precision(run: "Run", summary: dict[str, Any]) -> None:
    if run.variant.endswith("bf16"):
        summary["contract"]["engine"]["compute_dtype"] = "bfloat16"


def build(path: Path) -> dict[str, float]:
    """Make a report; returns seconds, peak memory and size of the page in MB."""
    begin = time.perf_counter()
    from lockstep.report import build
    from lockstep.study import Study

    study = Study.load(path)
    build.build(study)
    return {
        "time": time.perf_counter() - begin,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "page": study.report().stat().st_size / 1e6,
    }


if __name__ == "__main__":
    print(json.dumps(build(Path(sys.argv[1]))))
