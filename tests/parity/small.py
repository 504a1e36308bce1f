"""Small traces, made without a framework: one framework's whole ladder, to be spoiled."""

import json
from pathlib import Path

import numpy as np

from lockstep.parity import EDGES, SWAPPED, TRACE, UNDISTURBED
from lockstep.workloads import recipe

STEPS = 12
DISTURBANCES = (UNDISTURBED, "another image", "another label", SWAPPED)
TENSORS = (
    *("weights/a", "layers/a", "forward/logits", "loss/loss", "gradient/a", "gradient/b"),
    *("input/image", "step/a", "step/buffer", "final/a", f"edge/loss of {EDGES[0]}", "edge/a"),
    *("evaluation/loss", "after/loss", "after/a", "restored/a", "prepared/a", "general/a"),
)
STEPPED = {
    **{f"{rung}/param/p": 1.0 for rung in ("weights", "restored")},
    **{f"{rung}/momentum/p": 0.0 for rung in ("weights", "restored")},
    **{f"{rung}/p": 1.0 for rung in ("gradient", "general/gradient")},
    **{f"{rung}/param/p": 0.9 for rung in ("step", "general")},
    **{f"{rung}/momentum/p": 1.0 for rung in ("step", "general")},
}
"""A parameter and its momentum before a step and after it."""
ABOUT = {
    "schema": TRACE,
    "firm_steps": 10,
    "optimizer": recipe.override(recipe.RECIPE["optimizer"], {"momentum": 0.9}, where="small"),
    "shares": {"p": [1.0, 0.0]},
}
Trace = dict[str, np.ndarray]


def small() -> Trace:
    """One framework's whole trace: it and its twin compute the same, to the bit."""
    trace: Trace = {}
    for precision in ("float64", "float32", "twin"):
        one = np.ones(4, np.float64 if precision == "float64" else np.float32)
        trace |= {f"{precision}/{name}": one.copy() for name in TENSORS}
        trace |= {f"{precision}/{name}": one * one.dtype.type(v) for name, v in STEPPED.items()}
        trace[f"{precision}/steps/loss"] = np.ones(STEPS)
        trace[f"{precision}/steps/checksum"] = np.zeros(STEPS, np.uint32)
        trace[f"{precision}/rate/first"] = np.float64(0.1)
        trace[f"{precision}/batch/checksum"] = np.uint32(0)
        trace[f"{precision}/edges/checksum"] = np.zeros(len(EDGES), np.uint32)
        for k, which in enumerate(DISTURBANCES):
            trace[f"{precision}/canary/loss/{which}"] = np.float64(1 + k)
            for sums in ("checksum", "expected"):
                trace[f"{precision}/canary/{sums}/{which}"] = np.uint32(k)
    return trace


def edited(**changes: object) -> Trace:
    """Such a trace with other arrays (or numbers in all places of one); None removes one."""
    trace = small()
    for path, value in changes.items():
        name = path.replace("__", "/")
        if value is None:
            del trace[name]
        elif isinstance(value, np.ndarray):
            trace[name] = value
        else:
            trace[name] = np.full_like(trace[name], value)
    return trace


def at(step: int, value: float) -> np.ndarray:
    """Losses of one, but for one step."""
    losses = np.ones(STEPS)
    losses[step] = value
    return losses


def written(folder: Path, **traces: Trace) -> dict[str, Path]:
    """Traces as files, by variant."""
    about = np.frombuffer(json.dumps(ABOUT).encode(), np.uint8)
    for name, trace in traces.items():
        np.savez(folder / f"{name}.npz", about=about, **trace)
    return {name: folder / f"{name}.npz" for name in traces}
