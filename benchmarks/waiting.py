"""What PyTorch's step takes if its threads wait, or memory is kept, otherwise than in runs.

Engines of `torch-eager` in processes of their own, each with other variables of GNU's libgomp or of
glibc's allocator, take turns, a window each (`benchmarks.step`). Runs spin 300,000 times before
they sleep (`lockstep.cluster.launch.WAITING`), and glibc gives 5 MB back to the system at each step
and takes them again; with `memory kept` it does not. XLA's pool of threads is Eigen's, which has no
such variable, and it keeps its memory.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks import step, studies
from benchmarks.row import Row, ratio, times
from benchmarks.turns import elsewhere, in_turns
from lockstep.cluster.launch import CHOSEN, WAITING

KEPT = "memory kept"
POLICIES: dict[str, Mapping[str, str]] = {
    "as runs do": WAITING,
    "GOMP_SPINCOUNT=3000": {"GOMP_SPINCOUNT": "3000"},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "OMP_PROC_BIND=true": {**WAITING, "OMP_PROC_BIND": "true"},
    KEPT: {
        **WAITING,
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    },
}
QUICK = ("as runs do", "OMP_WAIT_POLICY=passive")
WINDOW = 20


def measure(quick: bool) -> list[Row]:
    """Return the step under each policy, and its ratio to that of runs."""
    policies = {name: POLICIES[name] for name in (QUICK if quick else POLICIES)}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        functions = {}
        for number, (name, variables) in enumerate(policies.items()):
            told: tuple[str, dict[str, Any], str, dict[str, Any], int]
            told = (f"{folder}/{number}", studies.VARIANTS["torch-eager"], "mnist_cnn", {}, WINDOW)
            with environment(variables):
                worker = stack.enter_context(elsewhere(step.serve, told))
            worker.recv()
            functions[name] = step.asker(worker)
        turns = in_turns(functions, 3 if quick else 60, warm_up=1 if quick else 3)
    first, *others = policies
    # What runs set may cost no more than two hundredths of the best of the others.
    limit = (">=", 0.98)
    rows = [
        ratio(f"{name} : {first}", turns[name], turns[first], None if name == KEPT else limit)
        for name in others
    ]
    return rows + [times(n, "ms/step", 1e3 / WINDOW * np.array(turns[n])) for n in policies]


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set these variables, and no others of how threads wait, for processes started meanwhile."""
    before = dict(os.environ)
    for name in CHOSEN:
        os.environ.pop(name, None)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
