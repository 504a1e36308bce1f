"""Small traces, made without a framework: one framework's whole ladder, to be spoiled."""

import json
from pathlib import Path

import numpy as np

STEPS = 12
Trace = dict[str, np.ndarray]


def small() -> Trace:
    """One framework's whole trace: it and its twin compute the same, to the bit."""
    trace: Trace = {}
    for precision in ("float64", "float32", "twin"):
        one = np.ones(4, np.float64 if precision == "float64" else np.float32)
        names = (
            *("weights/a", "forward/logits", "loss/loss", "gradient/a", "gradient/b"),
            *("step/a", "step/buffer", "final/a", "evaluation/loss"),
        )
        trace |= {f"{precision}/{name}": one.copy() for name in names}
        trace[f"{precision}/steps/loss"] = np.ones(STEPS)
        trace[f"{precision}/steps/checksum"] = np.zeros(STEPS, np.uint32)
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
    about = np.frombuffer(json.dumps({"firm_steps": 10}).encode(), np.uint8)
    for name, trace in traces.items():
        np.savez(folder / f"{name}.npz", about=about, **trace)
    return {name: folder / f"{name}.npz" for name in traces}
