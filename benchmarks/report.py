"""How long and how much memory the report of many runs takes: python benchmarks/report.py [RUNS …].

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

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests" / "report")]

if TYPE_CHECKING:
    from lockstep.study.run import Run

VARIANTS = {
    "torch-eager": {"framework": "torch", "mode": "eager"},
    "torch-compile": {"framework": "torch", "mode": "compile"},
    "torch-bf16": {"framework": "torch", "mode": "eager", "precision": "bfloat16"},
    "jax-jit": {"framework": "jax", "mode": "jit"},
    "jax-bf16": {"framework": "jax", "mode": "jit", "precision": "bfloat16"},
}
WORKLOADS = ("alpha", "beta", "gamma", "delta")


def write(root: Path, runs: int) -> Path:
    """Write a study of so many runs; returns its study.json."""
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


def build(path: Path) -> None:
    """Make a report and print seconds, memory and the size of the page."""
    begin = time.perf_counter()
    from lockstep.report import build
    from lockstep.study import Study

    study = Study.load(path)
    build.build(study)
    print(
        json.dumps(
            {
                "runs": len(study.runs),
                "seconds": round(time.perf_counter() - begin, 1),
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000,
                "page_mb": round(study.report().stat().st_size / 1e6, 2),
            }
        )
    )


def main() -> None:
    """Measure each number of runs named, by default 100, 1,000 and 10,000."""
    if sys.argv[1:2] == ["--build"]:
        build(Path(sys.argv[2]))
        return
    for runs in [int(a) for a in sys.argv[1:]] or [100, 1_000, 10_000]:
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder), runs)
            subprocess.run([sys.executable, __file__, "--build", str(path)], check=True)


if __name__ == "__main__":
    main()
