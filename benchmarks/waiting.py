"""What PyTorch's step takes if its threads wait, or memory is kept, otherwise than in runs.

Engines of `torch-eager` in processes of their own, each with other variables of GNU's libgomp or of
glibc's allocator, take turns, a window each (`benchmarks.step`). Runs spin 300,000 times before
they sleep and keep what memory was freed (`lockstep.cluster.launch`); as `memory given back`, glibc
decides. XLA's pool of threads is Eigen's, which has no such variable, and it keeps its memory.
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
from lockstep.cluster.launch import CHOSEN, MEMORY, WAITING

GIVEN_BACK = "memory given back"
POLICIES: dict[str, Mapping[str, str]] = {
    "as runs do": {**WAITING, **MEMORY},
    "GOMP_SPINCOUNT=3000": {"GOMP_SPINCOUNT": "3000", **MEMORY},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive", **MEMORY},
    "OMP_PROC_BIND=true": {**WAITING, **MEMORY, "OMP_PROC_BIND": "true"},
    GIVEN_BACK: WAITING,
}
QUICK = ("as runs do", "OMP_WAIT_POLICY=passive")
WINDOW = 20
HELD = 50  # windows that the dataset has: what is held decides whether glibc gives back


def measure(quick: bool) -> list[Row]:
    """Return the step under each policy, and its ratio to that of runs."""
    policies = {name: POLICIES[name] for name in (QUICK if quick else POLICIES)}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        functions = {}
        for number, (name, variables) in enumerate(policies.items()):
            variant, recipe = studies.VARIANTS["torch-eager"], dict[str, Any]()
            told = (f"{folder}/{number}", variant, "mnist_cnn", recipe, WINDOW, HELD)
            with environment(variables):
                worker = stack.enter_context(elsewhere(step.serve, told))
            worker.recv()
            functions[name] = step.asker(worker)
        turns = in_turns(functions, 3 if quick else 60, warm_up=1 if quick else 3)
    first, *others = policies
    # What runs set may cost no more than two hundredths of the best of the others.
    limit = (">=", 0.98)
    rows = [
        ratio(f"{name} : {first}", turns[name], turns[first], None if name == GIVEN_BACK else limit)
        for name in others
    ]
    return rows + [times(n, "ms/step", 1e3 / WINDOW * np.array(turns[n])) for n in policies]


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set these variables, and no others of their kind, for processes started meanwhile."""
    before = dict(os.environ)
    for name in (*CHOSEN, *MEMORY):
        os.environ.pop(name, None)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
