"""Parity on the device: the small preset of each workload, in each precision, both frameworks.

Float64 and float32 are judged as in a study (`lockstep.parity`). TensorFloat-32 and bfloat16 have
no tolerances there: the figures are the difference between the frameworks and that of each from its
own float32, in units of the roundoff u of the operands' type (2^-11, 2^-8):

- logits of the first batch differ by at most `LOGITS` u and the median gradient by at most
  `GRADIENT` u, from the other framework's and from the framework's own in float32: the operands'
  rounding errors add up along the layers, and units turn;
- logits differ from the framework's own in float32 by at least `SAME` u: the precision was used.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.child import Failed
from benchmarks.gpu.session import Session
from benchmarks.gpu.trial import SEED, complete_recipe, complete_variant
from benchmarks.row import extremes
from lockstep import workloads
from lockstep.workloads import weights

VARIANTS: dict[str, dict[str, Any]] = {
    "torch": {"framework": "torch", "mode": "eager", "memory_format": "channels_last"},
    "jax": {"framework": "jax", "mode": "jit"},
}
WORKLOADS = ("mnist_cnn", "resnet18_cifar10", "resnet50_imagenet")
LADDER = "float64 and float32"
ROUNDOFF = {"tf32": 2.0**-11, "bfloat16": 2.0**-8}
LOGITS, GRADIENT, SAME = 16.0, 64.0, 0.01
LONGEST = 180.0
WINDOW = 5  # steps that a window of the ladder has room for

Arrays = Mapping[str, np.ndarray]


def measure(session: Session) -> None:
    """Climb in both frameworks and compare, a workload and a precision at a time."""
    with session.reusing():
        for precision in (LADDER, *ROUNDOFF):
            for workload in WORKLOADS[:1] if session.quick else WORKLOADS:
                _one(session, workload, precision)


def _one(session: Session, workload: str, precision: str) -> None:
    what = f"{workload}: {precision}"
    if session.deadline.left <= 0:
        session.results.note("parity", what, "not measured: no time was left")
        return
    traces = {}
    recipe = preset(workload, session.quick)
    stored = workloads.spec(workload).blank(complete_recipe(workload, recipe)["model"])
    shape = stored.arrays["image"].shape
    manifest, _ = session.dataset(f"parity-{workload}", shape, examples=160, tests=24)
    for framework, name in session.devices.items():
        output = session.scratch / "traces" / workload / f"{precision}-{framework}.npz"
        arguments = {
            "workload": workload,
            "recipe": recipe,
            "variant": VARIANTS[framework],
            "precision": precision,
            "steps": (6, 4) if session.quick else (25, 10),
            "manifest": manifest,
            "caches": session.caches("parity", framework),
            "output": output,
        }
        try:
            with session.child(framework) as child:
                child.ask("climb", session.allowed(LONGEST), **arguments)
            traces[framework] = output
        except Failed as error:
            note = f"not measured: {error}"
            session.results.note("parity", f"{what}: {framework}", note, name)
    if len(traces) < len(VARIANTS):
        return
    device = " : ".join(dict.fromkeys(session.devices.values()))
    if precision == LADDER:
        _judged(session, workload, traces, device)
    else:
        _distances(session, workload, precision, traces, device)


def preset(workload: str, quick: bool) -> dict[str, Any]:
    """Return changes of a workload's recipe: its small preset, or less of it."""
    small: dict[str, Any] = {**workloads.spec(workload).small, "global_batch": 16, "epochs": 2}
    return {**small, "evaluation_batch": 16} | ({"global_batch": 8} if quick else {})


# In the children ---------------------------------------------------------------------------------


def climbed(
    *,
    workload: str,
    recipe: dict[str, Any],
    variant: dict[str, Any],
    precision: str,
    steps: tuple[int, int],
    manifest: Path,
    caches: Path,
    output: Path,
) -> None:
    """Climb with one framework and write what it computes, as the workflow's stage does.

    Args:
        precision: `LADDER` for the whole ladder, or one of `ROUNDOFF`.
        steps: of the ladder, in float64 and in float32.
    """
    from lockstep import engines
    from lockstep.datasets.reader import Reader
    from lockstep.engines.contract import Topology
    from lockstep.parity import position
    from lockstep.parity.climb import climb
    from lockstep.parity.route import Route
    from lockstep.parity.trace import trace
    from lockstep.training.feed import SharedFeed

    output.parent.mkdir(parents=True, exist_ok=True)
    whole = complete_recipe(workload, recipe)
    initial = output.with_name("initial.safetensors")
    weights.save(initial, weights.initial(workloads.spec(workload), whole["model"], SEED))
    route = Route(
        recipe=whole,
        variant=complete_variant(variant),
        seed=SEED,
        manifest=manifest,
        initial=initial,
        caches=caches,
        window_steps=WINDOW,
    )
    if precision == LADDER:
        trace(
            route,
            steps=steps[0],
            float32_steps=steps[1],
            several_steps=0,
            threads=1,
            output=output,
        )
        return
    job = route.job(precision, Topology())
    engine = engines.start(job)
    feed = SharedFeed(job, Reader(manifest, "train"), SEED)
    state = weights.load(initial)
    general = position.general(job.workload, whole, SEED)
    climbed = climb(engine, feed, route.evaluation(job), state, general, 1)
    np.savez(output, **dict(climbed))  # type: ignore[arg-type]


# In the command's own process --------------------------------------------------------------------


def _judged(session: Session, workload: str, traces: Mapping[str, Path], device: str) -> None:
    """Write for each precision the largest share of its tolerance that a rung takes."""
    from lockstep.parity.compare import explain, judge

    verdict = judge(workload, {name: traces[name] for name in VARIANTS})
    (comparison,) = verdict["comparisons"].values()
    for precision in ("float64", "float32"):
        rungs = [rung for rung in comparison["rungs"] if rung["precision"] == precision]
        shares = [_share(rung) for rung in rungs]
        failed = [rung["name"] for rung in rungs if not rung["passed"]]
        note = f"{len(rungs) - len(failed)} of {len(rungs)} rungs pass"
        if failed:
            note += "; " + "; ".join(explain(verdict)) + f"; failed: {', '.join(failed)}"
        row = extremes(
            f"{workload}: {precision}: largest share of a rung's tolerance",
            "",
            [max(shares, default=float("inf"))],
            ("<=", 1.0),
        )
        session.results.figure("parity", row, device, note, {"rungs": rungs})


def _share(rung: Mapping[str, Any]) -> float:
    value, tolerance = float(rung["value"]), float(rung["tolerance"])
    return value / tolerance if tolerance else (0.0 if value == 0 else float("inf"))


def _distances(
    session: Session, workload: str, precision: str, traces: Mapping[str, Path], device: str
) -> None:
    """Write the difference between the frameworks, and of each from its own float32."""
    unit = ROUNDOFF[precision]
    loaded = {name: _read(path) for name, path in traces.items()}
    pairs = {"jax : torch": (loaded["jax"], loaded["torch"])}
    for name, path in traces.items():
        plain = path.with_name(f"{LADDER}-{name}.npz")
        if plain.exists():
            pairs[f"{name} : its float32"] = (loaded[name], _float32(_read(plain)))
    for pair, (one, other) in pairs.items():
        for rung, most in (("logits", LOGITS), ("gradients", GRADIENT)):
            found = distances("forward" if rung == "logits" else "gradient", one, other)
            value = float(np.median(found)) / unit if found else float("inf")
            limit, note = ("<=", most), f"in units of {unit:.1e}"
            if len(found) > 1:
                note += f"; median of {len(found)} tensors"
            if rung == "logits" and "float32" in pair and value < SAME and not session.quick:
                limit, note = (">=", SAME), f"{note}; so near that the precision was not used"
            row = extremes(f"{workload}: {precision}: {pair}: {rung}", "u", [value], limit)
            session.results.figure("parity", row, device, note)


def distances(rung: str, one: Arrays, other: Arrays) -> list[float]:
    """Return the relative distance of each tensor of a rung."""
    from lockstep.parity.distances import distance

    names = [name for name in other if name.startswith(f"{rung}/")]
    return [distance(one.get(name), other[name]) for name in names]


def _read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as stored:
        return dict(stored)


def _float32(arrays: Arrays) -> dict[str, np.ndarray]:
    return {
        name.removeprefix("float32/"): array
        for name, array in arrays.items()
        if name.startswith("float32/")
    }
