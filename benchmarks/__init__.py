"""What `make bench` measures: one file a measurement; docs/performance.md tells of the results.

Each measurement runs in a process that is started as a run's processes are (same launcher, same
threads, same pinning), and compares what it compares in turns, because a machine's speed drifts.
"""

MEASUREMENTS = (
    "reader",
    "records",
    "preprocess",
    "loop",
    "step",
    "waiting",
    "residual",
    "language",
    "speech",
    "tables",
    "port",
    "ladder",
    "start",
    "memory",
    "report",
    "study",
)
"""Modules of this package with `measure(quick) -> list[Row]`, in the order in which they run."""
