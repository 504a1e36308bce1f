"""`resnet50_imagenet` at batch 256: images per second, MFU, memory, and what the host waits for.

A turn is some windows of a few steps. `synthetic` trains on windows of noise that lie on the
device; `HDF5` reads examples of 256 x 256 from a file through the shared reader, brings them to the
device and crops them there. The windows before those that count use up what the reader gathered
while the other framework had its turn.

MFU is 3 x forward FLOPs per image x images per second / the device's dense peak in the precision
(`benchmarks.gpu.device.PEAKS`; a multiplication and an addition are two).
"""

from typing import Any

import numpy as np

from benchmarks.gpu import device
from benchmarks.gpu.child import Failed
from benchmarks.gpu.session import FEWEST, Session, Trial
from benchmarks.row import Values, ratio, times

PART = "resnet50"
WORKLOAD = "resnet50_imagenet"
BATCH, WINDOW, ROUNDS, WINDOWS, SKIP = 256, 4, 10, 2, 2
EXAMPLES = 16 * BATCH  # 0.8 GB
STORED = (256, 256, 3)
WANTED = (">=", 3500.0)  # images per second, bfloat16
NEAR = ("<=", 1.05)
LONGEST = 20.0  # seconds for the turns of one input
EAGER = {"framework": "torch", "mode": "eager", "memory_format": "channels_last"}
JIT = {"framework": "jax", "mode": "jit"}
SETTINGS: tuple[tuple[str, dict[str, dict[str, Any]]], ...] = (
    ("bfloat16", {"torch-eager": EAGER, "jax-jit": JIT}),
    ("tf32", {"torch-eager": EAGER, "jax-jit": JIT}),
    ("float32", {"torch-eager": EAGER, "jax-jit": JIT}),
    ("bfloat16", {"torch-compile": {**EAGER, "mode": "compile"}}),
)
"""The precisions and variants, the most wanted first: what does not fit is named."""


def measure(session: Session) -> None:
    """Measure each precision."""
    quick = session.quick
    shape, examples = ((16, 16, 3), 64) if quick else (STORED, EXAMPLES)
    manifest, data = session.dataset("resnet50", shape, examples, tests=16)
    session.results.note(PART, "data", data)
    recipe: dict[str, Any] = {"global_batch": BATCH}
    if quick:
        recipe = {"global_batch": 8, "model": {"blocks": [1], "width": 4, "size": 12}}
    settings = {
        "workload": WORKLOAD,
        "recipe": recipe,
        "manifest": manifest,
        "window_steps": 2 if quick else WINDOW,
    }
    for precision, variants in SETTINGS[:1] if quick else SETTINGS:
        if session.deadline.left <= 0:
            what = f"{', '.join(variants)}, {precision}"
            session.results.note(PART, what, "not measured: no time was left")
            continue
        named = {
            f"{name}, {precision}": {**variant, "precision": precision}
            for name, variant in variants.items()
        }
        with session.trials(PART, named, settings) as trials:
            for place, on_device in (("synthetic", True), ("HDF5", False)):
                _turns(session, trials, precision, place, on_device, recipe["global_batch"])
            for trial in trials.values():
                _memory(session, trial)


def _turns(
    session: Session,
    trials: dict[str, Trial],
    precision: str,
    place: str,
    on_device: bool,
    batch: int,
) -> None:
    rounds = FEWEST if session.quick else ROUNDS
    settings = {"on_device": on_device, "skip": 0 if on_device else SKIP}
    # The algorithms of convolutions are chosen, and blocks of data verified, on first use.
    session.turns(PART, place, trials, 1, "windows", count=WINDOWS, **settings)
    found = session.turns(
        PART, place, trials, rounds, "windows", LONGEST, count=WINDOWS, **settings
    )
    seconds = {}
    for name, turns in found.items():
        rows = [row for turn in turns for row in turn]
        if len(turns) < FEWEST:
            session.results.note(PART, f"{name}: {place}", "not measured: too few turns in time")
            continue
        whole = np.array([row["data"] + row["dispatch"] + row["device"] for row in rows])
        speeds = batch * np.array([row["steps"] for row in rows]) / whole
        wanted = session.limit(WANTED) if precision == "bfloat16" else None
        figure = times(f"{name}: {place}", "images/s", speeds, wanted)
        facts = {"windows": rows, "batch": batch, "preparation": trials[name].preparation}
        session.results.figure(PART, figure, trials[name].device, facts=facts)
        utilisation(session, PART, trials[name], precision, f"{name}: {place}: MFU", speeds)
        for part, meaning in (
            ("data", "waiting for data"),
            ("device", "waiting for the device"),
        ):
            figure = ratio(f"{name}: {place}: {meaning} : step", [r[part] for r in rows], whole)
            session.results.figure(PART, figure, trials[name].device)
        seconds[name] = [sum(r["data"] + r["dispatch"] + r["device"] for r in t) for t in turns]
    reference = next((name for name in seconds if name.startswith("torch")), "")
    session.ratios(PART, f"{place}, a step", seconds, reference, session.limit(NEAR))


def utilisation(
    session: Session, part: str, trial: Trial, precision: str, what: str, speeds: Values
) -> None:
    """Write the share of the device's peak that images per second come to."""
    top = device.peak(trial.device, precision)
    if top is None:
        note = f"no MFU: the dense peak of {trial.device} in {precision} is not known here"
        session.results.note(part, what, note, trial.device)
        return
    flops = trial.preparation["flops_per_example"]
    note = f"3 x {flops / 3e9:.2f} GFLOP x images/s / {top / 1e12:g} TFLOP/s"
    figure = times(what, "%", 100 * flops * np.asarray(speeds) / top)
    session.results.figure(part, figure, trial.device, note)


def _memory(session: Session, trial: Trial) -> None:
    try:
        found = trial.child.ask("memory", session.allowed(60.0))
    except Failed as error:
        session.results.note(PART, f"{trial.name}: memory", str(error), trial.device)
        return
    if not found:
        note = "not measured: this device keeps no count of its memory"
        session.results.note(PART, f"{trial.name}: memory", note, trial.device)
    for kind, value in found.items():
        figure = times(f"{trial.name}: memory {kind}, peak", "GB", [value / 1e9])
        note = "with an epoch of images that lies on the device"
        session.results.figure(PART, figure, trial.device, note)
