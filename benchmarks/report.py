"""How long and how much memory the report of many runs takes.

Writes studies of 4 workloads x 5 variants x 1 scale with known truth, whose records are as large as
those of MNIST for five epochs, makes each report in a process of its own, and opens it in a
browser where there is one. Wanted: 10,000 runs within 60 s and 2 GB on two cores, growing linearly
from 100, and a page of at most 5 MB of which something is seen within a second.
"""

import itertools
import json
import re
import resource
import shutil
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
SIZES = (100, 1_000, 10_000)
SHAPE = {"EPOCHS": 5, "WINDOWS": 19, "STEPS": 50, "EPOCH": 950, "TOTAL": 4_750}
"""Of a run over 60,000 images in batches of 64 and windows of 50 steps, as the writer names it."""

PROBE = """<script>new PerformanceObserver(seen => {
  for (const paint of seen.getEntriesByName("first-contentful-paint"))
    console.log("painted after " + paint.startTime + " ms");
}).observe({type: "paint", buffered: true});</script>"""
"""Tells when the browser first painted something, from when it began to load the page."""


def measure(quick: bool) -> list[Row]:
    """Return time, memory and size of reports of growing studies, and how they grow."""
    rows, seconds = [], {}
    for runs in SIZES[:1] if quick else SIZES:
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder), runs)
            command = [sys.executable, "-m", "benchmarks.report", str(path)]
            made = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            painted = first_paint(path.parent / "report" / "index.html")
        seconds[runs] = made["time"]
        figures = [("time", "s", 60.0), ("peak", "MB", 2000.0), ("page", "MB", 5.0)]
        if painted:
            made["first paint"] = painted
            figures.append(("first paint", "s", 1.0))
        for what, unit, bound in figures:
            limit = ("<=", bound) if runs == SIZES[-1] else None
            rows.append(times(f"report of {runs:,} runs: {what}", unit, [made[what]], limit))
    for few, many in itertools.pairwise(seconds):
        # What a report takes of no run at all makes this less than 1.
        growth = (seconds[many] / many) / (seconds[few] / few)
        limit = ("<=", 1.0)
        rows.append(times(f"time a run, {many:,} against {few:,}", "x", [growth], limit))
    return rows


def first_paint(page: Path) -> float | None:
    """Return after how many seconds a browser shows something of a page; None without a browser."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return None
    probed = page.with_name("probed.html")
    text = re.sub("<meta http-equiv[^>]+>", "", page.read_text())  # its policy allows no script
    probed.write_text(text.replace("<style>", f"{PROBE}<style>", 1))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    with tempfile.TemporaryDirectory() as profile:
        options += [f"--user-data-dir={profile}", f"--screenshot={profile}/page.png"]
        command = [browser, *options, probed.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r"painted after ([\d.]+) ms", done.stderr)
    return float(found[1]) / 1e3 if found else None


def write(root: Path, runs: int) -> Path:
    """Write a study of so many runs; returns its study.json."""
    sys.path.insert(0, str(STUDIES))
    import report_studies

    for name, value in SHAPE.items():
        setattr(report_studies, name, value)
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
