"""Faults of one framework's side alone: what each is, and the shortest climb that shows it.

The tables are in `faults_torch`, `faults_jax`, `faults_feed` and `faults_several`, rewrites that
are harmless in `faults_harmless`. A framework is started once: engines are made in this process,
one after the other. The sound side of each preset climbs once; the faulty side climbs to the rung
that must fail, and no further.
"""

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep import engines, workloads
from lockstep.datasets.reader import Reader
from lockstep.engines.contract import Topology
from lockstep.errors import UserError
from lockstep.parity import EDGES, OVER_TWO, SWAPPED, compare, position, rungs
from lockstep.parity.climb import climb
from lockstep.parity.route import Route
from lockstep.parity.update import Rule
from lockstep.study import config
from lockstep.training.feed import SharedFeed
from lockstep.workloads import recipe, weights

Trace = dict[str, np.ndarray]
Patch = Callable[[pytest.MonkeyPatch], None]
OTHER = {"torch": "jax", "jax": "torch"}
EVALUATED = 33  # examples
DRAWN = re.compile(r"\((.*?)\)")  # what differs between two forward passes
ALONE = Topology()

CLIMBED = (
    *(
        "weights",
        "batch",
        "random",
        "layers",
        "forward",
        "loss",
        "gradient",
        "input",
        "gradients",
        "prepared",
        "rate",
    ),
    *("step", "steps", "final", "edges", "edge", "evaluation", "after", "restored", "general"),
    "canary",
)
"""What `climb` yields, in its order."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A small workload that both frameworks climb with.

    Attributes:
        changes: of its recipe.
        steps: that are trained in a row.
        window_steps: of its windows.
        variants: of both frameworks, where they are not the usual ones.
    """

    workload: str
    dataset: str
    changes: Mapping[str, Any]
    steps: int = 3
    window_steps: int = 3
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


RESIDUAL = {
    "model": {"blocks": [1, 1], "width": 4, "size": 12, "batch_norm": "device"},
    "global_batch": 16,
    "epochs": 2,
    "optimizer": {"learning_rate": 0.05},
    "label_smoothing": 0.1,
}
PLAIN = {"global_batch": 16, "epochs": 2, "optimizer": {"learning_rate": 0.01}}
JIT = {"framework": "jax", "mode": "jit"}
PRESETS = {
    "plain": Preset(workload="mnist_cnn", dataset="digits", changes=PLAIN),
    "im2col": Preset(
        workload="mnist_cnn",
        dataset="digits",
        changes=PLAIN,
        variants={"jax": {"convolution": "im2col"}},
    ),
    "unrolled": Preset(
        workload="mnist_cnn",
        dataset="digits",
        changes={**PLAIN, "schedule": {"name": "cosine", "warmup_epochs": 1.0}},
        window_steps=2,
        variants={"jax": {**JIT, "steps_per_dispatch": 2}},
    ),
    "residual": Preset(
        workload="resnet18_cifar10",
        dataset="pictures",
        changes={**RESIDUAL, "augment": {"padding": 2}},
    ),
    "two": Preset(workload="mnist_cnn", dataset="digits", changes=PLAIN, variants={"jax": JIT}),
    "two_device": Preset(
        workload="resnet18_cifar10",
        dataset="pictures",
        changes={**RESIDUAL, "model": {**RESIDUAL["model"], "blocks": [1]}},
    ),
    "two_global": Preset(
        workload="resnet18_cifar10",
        dataset="pictures",
        changes={
            **RESIDUAL,
            "model": {**RESIDUAL["model"], "blocks": [1], "batch_norm": "global"},
        },
    ),
    "bottleneck": Preset(
        workload="resnet50_imagenet",
        dataset="pictures",
        changes={**RESIDUAL, "model": {**RESIDUAL["model"], "blocks": [1]}},
    ),
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A change of one side, and what must be said of it.

    Attributes:
        name: in plain words.
        side: `torch` or `jax`.
        preset: the smallest that shows it.
        rung: that must fail first.
        named: the tensor, layer or step that must be named.
        precision: of the rung.
        until: what must have been climbed for it, as `climb` calls it; as a rule the rung's own.
        most: of a step, the tensor that must be named beside it.
    """

    name: str
    side: str
    preset: str
    rung: str
    named: str
    patch: Patch
    precision: str = "float64"
    until: str = ""
    most: str = ""

    @property
    def last(self) -> str:
        """What `climb` must have yielded."""
        if self.until:
            return self.until
        if self.precision == "bfloat16" and self.rung != "weights":
            return "general" if self.rung == "evaluation" else "restored"  # judged before
        if self.rung == "batches":
            known = {"the first batch": "batch", **dict.fromkeys(EDGES, "edges")}
            return known.get(self.named, "steps")
        if self.most:
            return "final"
        return {"update": "step"}.get(self.rung, self.rung)


def setting(target: object, attribute: str, value: object) -> Patch:
    """Return a patch that replaces an attribute."""
    return lambda patch: patch.setattr(target, attribute, value)


def wrapping(target: object, attribute: str, make: Callable[[Any], Any]) -> Patch:
    """Return a patch that replaces an attribute by what is made of the sound one."""
    return lambda patch: patch.setattr(target, attribute, make(getattr(target, attribute)))


def each(*patches: Patch) -> Patch:
    """Return a patch that makes several."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        for one in patches:
            one(monkeypatch)

    return patch


class _Far(Exception):
    """Far enough."""


@dataclass(frozen=True)
class Ground:
    """Where ladders are climbed: data, weights and compiled programs; and what was climbed."""

    folder: Path
    manifests: Mapping[str, Path]
    caches: Path
    climbed: dict[tuple[str, str, str, str], Trace] = field(default_factory=dict)
    launched: dict[str, dict[str, Trace]] = field(default_factory=dict)

    def route(self, name: str, side: str, precision: str = "float32", mode: str = "eager") -> Route:
        """Return what a framework climbs a preset with, in a mode if the preset has no own."""
        preset = PRESETS[name]
        spec = workloads.spec(preset.workload)
        entry = recipe.override(spec.recipe, copy.deepcopy(dict(preset.changes)), where=name)
        assert spec.check(entry, 1) is None
        variant = {"framework": side, "mode": mode, **preset.variants.get(side, {})}
        study = {
            "study": name,
            "datasets": {"digits": {"source": "digits"}},
            "workloads": {"mnist_cnn": {"dataset": "digits"}},
            "variants": {"it": {**variant, "precision": precision}},
        }
        initial = self.folder / f"{name}.safetensors"
        if not initial.exists():
            weights.save(initial, weights.initial(spec, entry["model"], 0))
        return Route(
            recipe={"workload": preset.workload, **entry},
            variant=config.complete(study)["variants"]["it"],
            seed=0,
            manifest=self.manifests[preset.dataset],
            initial=initial,
            caches=self.caches,
            window_steps=preset.window_steps,
        )

    def climb(
        self,
        name: str,
        side: str,
        precision: str,
        last: str = "canary",
        topology: Topology = ALONE,
        mode: str = "eager",
    ) -> Trace:
        """Return a trace in one precision, up to and with what `climb` calls `last`."""
        real = {"twin": "float32", OVER_TWO: "float64"}.get(precision, precision)
        route = self.route(name, side, "float32" if real == "float64" else real, mode)
        job = route.job(real, topology)
        engine = engines.start(job)
        limit = CLIMBED.index(last)
        for method, first in (("prepare", "prepared"), ("evaluate", "evaluation")):
            if limit < CLIMBED.index(first):
                setattr(engine, method, _stop)
        state = weights.load(route.initial)
        if precision == "twin":
            state = weights.perturbed(state, route.seed)
        firm = job.workload.firm_steps > 1
        feed = SharedFeed(job, Reader(route.manifest, "train"), route.seed)
        general = position.general(job.workload, route.recipe, route.seed)
        evaluation = route.evaluation(job, EVALUATED)
        arrays: Trace = {}
        steps, batches = PRESETS[name].steps, 1 if firm or real != "float32" else 8
        try:
            for key, array in climb(engine, feed, evaluation, state, general, steps, batches):
                if CLIMBED.index(key.split("/")[0]) > limit:
                    break
                arrays[f"{precision}/{key}"] = array
        except _Far:
            pass
        return arrays  # the engine is not closed: others share its processes

    def sound(self, name: str, side: str, precision: str, mode: str = "eager") -> Trace:
        """Return the whole trace of a sound framework."""
        key = (name, side, precision, mode)
        if key not in self.climbed:
            self.climbed[key] = self.climb(name, side, precision, mode=mode)
        return self.climbed[key]

    def reference(self, name: str, side: str, precision: str) -> Trace:
        """Return the trace that the other side's faults are judged by, in its cheaper mode."""
        return self.sound(name, side, precision, {"torch": "eager", "jax": "jit"}[side])


def _stop(*_: object) -> None:
    raise _Far


WITH = {
    "float64": ("float64",),
    "float32": ("float32", "twin"),
    "bfloat16": ("bfloat16", "float32"),
}
"""The precisions that a comparison in one of them needs."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a ladder said of a fault.

    Attributes:
        rung: the first that failed, `none` if all passed; `draws` if a model's own draws were
            refused.
        named: what it names.
        said: the line that people are shown.
        moved: whether anything differs from the sound framework's trace.
    """

    rung: str
    named: str | None
    said: str
    moved: bool = True


def found(ground: Ground, fault: Fault, *, preset: str = "", last: str = "") -> Found:
    """Climb with a fault, in the precision of the rung that must fail.

    Args:
        preset: another one than the fault's own.
        last: what is climbed at most; as a rule what the fault's rung needs.
    """
    preset, precisions = preset or fault.preset, WITH[fault.precision]
    reference: Trace = {}
    for precision in precisions:
        reference |= ground.reference(preset, OTHER[fault.side], precision)
    trace: Trace = {}
    until = "" if last else fault.rung
    last = last or ("batch" if fault.rung == "draws" else fault.last)
    try:
        with pytest.MonkeyPatch.context() as monkeypatch:
            fault.patch(monkeypatch)
            for precision in precisions:
                trace |= ground.climb(preset, fault.side, precision, last)
    except UserError as error:
        assert "draws random numbers of its own" in str(error)
        return Found(rung="draws", named=DRAWN.findall(str(error))[0], said=str(error))
    rung, named, said = first_failure(
        compared(ground, preset, trace, reference, fault.precision), until
    )
    moved = True
    if rung == "none":
        own = {k: v for p in precisions for k, v in ground.sound(preset, fault.side, p).items()}
        moved = any(v.tobytes() != own[k].tobytes() for k, v in trace.items())
    return Found(rung=rung, named=named, said=said, moved=moved)


def compared(
    ground: Ground, preset: str, trace: Trace, reference: Trace, precision: str
) -> list[rungs.Rung]:
    """Compare as the gate does, as far as the trace goes; with all of it if that is all of it."""
    whole = f"{precision}/{CLIMBED[-1]}/checksum/{SWAPPED}" in trace
    shown = {key: v for key, v in reference.items() if whole or key in trace}
    entry = ground.route(preset, "torch").recipe
    spec = workloads.spec(entry["workload"])
    return rungs.compare(trace, shown, [precision], spec.firm_steps, Rule.of(spec, entry))


def first_failure(found: Iterable[rungs.Rung], until: str = "") -> tuple[str, str | None, str]:
    """Return the first rung that failed up to one of them, what it names, and what is said."""
    considered = []
    for rung in found:
        considered.append(rung)
        if rung.name == until:
            break
    said = compare.failure({"rungs": [{**vars(r), "passed": r.passed} for r in found]})
    for rung in considered:
        if not rung.passed:
            return rung.name, rung.first, said or ""
    return "none", None, ""
