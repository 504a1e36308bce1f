"""Faults that only several processes show: python -m tests.parity.faults_several REQUEST.

One launch a framework: its two processes climb once soundly and then with each fault in turn.
REQUEST is JSON: `side`, `folder`, `manifests`, `caches`, `output`.
"""

import dataclasses
import json
import pydoc
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lockstep.cluster.launch import launch
from lockstep.cluster.place import Place
from lockstep.engines.contract import at_rate
from lockstep.parity import EDGES, OVER_TWO
from lockstep.training.feed import SharedFeed
from tests.conftest import ROOT
from tests.parity.faults import (
    OTHER,
    Fault,
    Ground,
    Patch,
    Trace,
    compared,
    first_failure,
    setting,
    wrapping,
)


def row(side: str, name: str, preset: str, rung: str, named: str, patch: Callable) -> Fault:
    return Fault(
        name=name, side=side, preset=preset, rung=rung, named=named, patch=patch, precision=OVER_TWO
    )


# PyTorch's side ----------------------------------------------------------------------------------


def torch_faults() -> list[Fault]:
    import torch
    import torch.distributed as dist

    from lockstep.engines import torch_setup
    from lockstep.engines.torch_engine import TorchEngine
    from lockstep.workloads import batch_norm_torch

    def communicated(hook: Callable) -> Patch:
        """Gradients that are summed by another hook, given a bucket and the sound result."""

        def make(sound):
            def distributed(module):
                made = sound(module)

                def hooked(_, bucket):
                    own = bucket.buffer()
                    total = own.clone()
                    dist.all_reduce(total)
                    future = torch.futures.Future()
                    future.set_result(hook(own, total / dist.get_world_size()))
                    return future

                made.register_comm_hook(None, hooked)
                return made

            return distributed

        return wrapping(torch_setup, "distributed", make)

    def left_out(sound):
        def distributed(module):
            module._ddp_params_and_buffers_to_ignore = ["fc2.bias"]
            return sound(module)

        return distributed

    def alone(method: str) -> Patch:
        """A method whose sums are of each rank by itself."""

        def make(sound):
            def call(self, *arguments):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(self, "_sum", lambda tensor: tensor)
                    return sound(self, *arguments)

            return call

        return wrapping(TorchEngine, method, make)

    def mean_loss(change: Callable) -> Patch:
        return wrapping(
            TorchEngine,
            "terms",
            lambda sound: lambda self, x, b, n: sound(self, x, *change(self.topology, b, n)),
        )

    def unmasked(topology, batch, count):
        real = torch.ones_like(batch["real"]) if topology.rank else batch["real"]
        return {**batch, "real": real}, count

    def shared_from(rank: int) -> Callable:
        def share(self):
            for buffer in self.buffers.values():
                dist.broadcast(buffer, rank)

        return share

    def averaged(self):
        for buffer in self.buffers.values():
            dist.all_reduce(buffer)
            buffer /= dist.get_world_size()

    def after_evaluation(act: Callable) -> Patch:
        """Something that rank 1 does after an evaluation."""

        def make(sound):
            def evaluate(self, batches):
                sums = sound(self, batches)
                if self.topology.rank:
                    act(self)
                return sums

            return evaluate

        return wrapping(TorchEngine, "evaluate", make)

    def unshared(sound, engine, batches):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, "_share_buffers", lambda: None)
            return sound(engine, batches)

    def of_one_rank(sound, layer, x):
        before, n = layer.running_var.clone(), x.numel() // x.shape[1]
        y = sound(layer, x)
        if layer.training:
            fresh = (layer.running_var - 0.9 * before) * ((2 * n - 1) / (2 * n)) * (n / (n - 1))
            layer.running_var.copy_(0.9 * before + fresh)
        return y

    def other_rate(topology, window):
        rate = window.scalars["learning_rate"][0]
        return at_rate(window, rate * 1.001) if topology.rank else window

    def row_of(*arguments) -> Fault:
        return row("torch", *arguments)

    return [
        row_of("a gradient averaged twice", "two", "gradient", "conv1.kernel",
               communicated(lambda own, mean: mean / 2)),
        row_of("a gradient summed and not averaged", "two", "gradient", "conv1.kernel",
               communicated(lambda own, mean: mean * 2)),
        row_of("gradients of each rank alone", "two", "gradient", "conv1.kernel",
               communicated(lambda own, mean: own)),
        row_of("gradients communicated in bfloat16", "two", "gradient", "conv1.kernel",
               communicated(lambda own, mean: mean.bfloat16().to(mean))),
        row_of("one parameter outside of the all-reduce", "two", "gradient", "dense2.bias",
               wrapping(torch_setup, "distributed", left_out)),
        row_of("an evaluation of rank 0 alone", "two", "evaluation", "examples",
               alone("evaluate")),
        row_of("losses of rank 0 alone", "two", "batches", "step 0", alone("fetch")),
        row_of("a mean of local means", "two", "edge", f"loss of {EDGES[0]}",
               mean_loss(lambda _, b, n: (b, 2 * b["real"].sum().clamp(min=1)))),
        row_of("a mask that rank 1 ignores", "two", "edge", f"loss of {EDGES[0]}",
               mean_loss(unmasked)),
        row_of("another learning rate on rank 1", "two", "steps", "step 1",
               wrapping(TorchEngine, "train", lambda sound: lambda self, w: sound(
                   self, other_rate(self.topology, w)))),
        row_of("other weights on rank 1", "two", "loss", "loss",
               wrapping(TorchEngine, "load", lambda sound: lambda self, s: sound(
                   self, {**s, "param/dense2.bias": s["param/dense2.bias"] + self.topology.rank}))),
        row_of("momentum that only rank 0 loads", "two", "general", "later/loss",
               wrapping(TorchEngine, "load", lambda sound: lambda self, s: sound(
                   self, {k: v * 0 if k.startswith("momentum/") and self.topology.rank else v
                          for k, v in s.items()}))),
        row_of("statistics of the whole batch", "two_device", "forward", "logits",
               wrapping(batch_norm_torch.BatchNorm, "__init__", lambda sound: lambda self, n, _:
                        sound(self, n, "global"))),
        row_of("running statistics of rank 1", "two_device", "step", "buffer/stem_norm.mean",
               setting(TorchEngine, "_share_buffers", shared_from(1))),
        row_of("running statistics averaged", "two_device", "step", "buffer/stem_norm.mean",
               setting(TorchEngine, "_share_buffers", averaged)),
        row_of("statistics whose sums pass no gradient", "two_global", "gradient", "stem.kernel",
               wrapping(batch_norm_torch._Joint, "backward", lambda sound: staticmethod(
                   lambda ctx, *g: _unsummed(sound, batch_norm_torch, ctx, *g)))),
        row_of("momentum that rank 1 loses at an evaluation", "two", "after", "later loss",
               after_evaluation(lambda engine: [
                   slot.zero_() for slot in engine.optimizer.slots["momentum"].values()])),
        row_of("rank 1 left in evaluation mode", "two_device", "after", "loss",
               after_evaluation(lambda engine: engine.module.eval())),
        row_of("an evaluation by each rank's own statistics", "two_device", "after",
               "evaluation loss",
               wrapping(TorchEngine, "evaluate", lambda sound: lambda self, bs: unshared(
                   sound, self, bs))),
        row_of("a running variance as if of one rank", "two_global", "step",
               "buffer/stem_norm.var",
               wrapping(batch_norm_torch.BatchNorm, "forward", lambda sound: lambda self, x:
                        of_one_rank(sound, self, x))),
        row_of("rank 0's examples on both", "two", "batches", "the first batch", repeated),
    ]  # fmt: skip


def _unsummed(sound, module, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "sum_over_ranks", lambda x: x * 2)
        return sound(*arguments)


def repeated(patch: pytest.MonkeyPatch) -> None:
    """Every rank reads what rank 0 reads."""
    sound = SharedFeed.window

    def window(self, first, steps):
        job = self.job
        self.job = dataclasses.replace(job, topology=dataclasses.replace(job.topology, rank=0))
        made = sound(self, first, steps)
        self.job = job
        return made

    patch.setattr(SharedFeed, "window", window)


# JAX's side --------------------------------------------------------------------------------------


def jax_faults() -> list[Fault]:
    import jax
    import jax.numpy as jnp
    from jax import lax

    from lockstep.engines import jax_gradient
    from lockstep.engines.jax_engine import JaxEngine
    from lockstep.workloads.contract import AXIS

    def summed(change: Callable) -> Patch:
        """Losses and gradients that are summed in another way."""
        return wrapping(jax_gradient, "_as_one_vector", lambda sound: lambda x: change(sound, x))

    def only_gradients(change: Callable) -> Patch:
        return summed(lambda sound, x: (sound(x)[0], change(sound(x)[1])))

    def first_alone(sound, parts):
        grads = parts[1]
        own = jnp.where(lax.axis_index(AXIS) == 0, grads["dense2.bias"], 0.0)
        total = sound(parts)
        return total[0], {**total[1], "dense2.bias": 2 * lax.psum(own, AXIS)}

    def mean_loss(change: Callable) -> Patch:
        return wrapping(
            JaxEngine,
            "terms",
            lambda sound: lambda self, x, b, n: sound(self, x, *change(b, n)),
        )

    def unmasked(batch, count):
        real = jnp.where(lax.axis_index(AXIS) == 1, jnp.ones_like(batch["real"]), batch["real"])
        return {**batch, "real": real}, count

    def loading(change: Callable) -> Patch:
        return wrapping(
            JaxEngine, "load", lambda sound: lambda self, s: sound(self, change(self, s))
        )

    def row_of(*arguments) -> Fault:
        return row("jax", *arguments)

    return [
        row_of("a gradient averaged twice", "two", "gradient", "conv1.kernel",
               only_gradients(lambda g: jax.tree.map(lambda x: x / 2, g))),
        row_of("gradients communicated in bfloat16", "two", "gradient", "conv1.kernel",
               summed(lambda sound, x: (sound(x)[0], jax.tree.map(
                   lambda g: g.astype(jnp.float64), sound(jax.tree.map(
                       lambda g: g.astype(jnp.bfloat16), x[1])))))),
        row_of("one parameter outside of the sum", "two", "gradient", "dense2.bias",
               summed(first_alone)),
        row_of("an evaluation of rank 0 alone", "two", "evaluation", "examples",
               wrapping(JaxEngine, "evaluate", lambda sound: lambda self, bs: sound(self, (
                   {**b, "real": b["real"] * (self.topology.rank == 0)} for b in bs)))),
        row_of("a mean of local means", "two", "edge", f"loss of {EDGES[0]}",
               mean_loss(lambda b, n: (b, 2 * b["real"].sum()))),
        row_of("a mask that rank 1 ignores", "two", "edge", f"loss of {EDGES[0]}",
               mean_loss(unmasked)),
        row_of("other weights on rank 1", "two", "loss", "loss",
               loading(lambda self, s: {**s, "param/dense2.bias": s["param/dense2.bias"] +
                                        self.topology.rank})),
        row_of("momentum that only rank 0 loads", "two", "general", "later/loss",
               loading(lambda self, s: {k: v * 0 if k.startswith("momentum/") and
                                        self.topology.rank else v for k, v in s.items()})),
        row_of("rank 0's examples on both", "two", "batches", "the first batch", repeated),
    ]  # fmt: skip


# The two processes -------------------------------------------------------------------------------

FAULTS = {"torch": torch_faults, "jax": jax_faults}
PRESETS = ("two", "two_device", "two_global")
LEAVE = {"torch": "torch.distributed.destroy_process_group", "jax": "jax.distributed.shutdown"}


def climbed(ground: Ground, side: str) -> dict[str, Trace]:
    """Launch a framework once; return its sound traces by preset, and those of faults by name."""
    output = ground.folder / f"several-{side}.npz"
    request = ground.folder / f"several-{side}.json"
    told = {
        "side": side,
        "folder": str(ground.folder),
        "manifests": {name: str(path) for name, path in ground.manifests.items()},
        "caches": str(ground.caches),
        "output": str(output),
    }
    request.write_text(json.dumps(told))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}/workflow:{ROOT}")
        patch.setenv("JAX_PLATFORMS", "cpu")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        command = [sys.executable, "-m", "tests.parity.faults_several", str(request)]
        assert launch(command, processes=2, threads=2) == 0
    traces: dict[str, Trace] = {}
    with np.load(output) as stored:
        for key, array in stored.items():
            name, _, rest = key.partition("|")
            traces.setdefault(name, {})[rest] = array
    return traces


def wrong(ground: Ground, side: str) -> list[str]:
    """Launch both frameworks, one with its faults; return what is not as the table says.

    The sound traces of the two must agree.
    """
    found = []
    for each in OTHER:  # both, once
        if each not in ground.launched:
            ground.launched[each] = climbed(ground, each)
    mine, theirs = ground.launched[side], ground.launched[OTHER[side]]
    cases = [*((name, name, "none", None) for name in PRESETS)]
    cases += [(f.name, f.preset, f.rung, f.named) for f in FAULTS[side]()]
    for name, preset, rung, named in cases:
        judged = compared(ground, preset, mine[name], theirs[preset], OVER_TWO)
        *first, said = first_failure(judged, "" if rung == "none" else rung)
        if first != [rung, named]:
            found.append(f"{side}: {name}: {rung} of {named} expected, found {first}: {said}")
    return found


def main(path: Path) -> None:
    here = Place.from_environment()
    here.pin()
    told = json.loads(path.read_text())
    manifests = {name: Path(value) for name, value in told["manifests"].items()}
    ground = Ground(Path(told["folder"]), manifests, Path(told["caches"]))
    side, arrays = told["side"], {}

    def climb(name: str, preset: str, last: str) -> None:
        for key, array in ground.climb(preset, side, OVER_TWO, last, here.topology).items():
            arrays[f"{name}|{key}"] = array

    for preset in PRESETS:
        climb(preset, preset, "canary")
    for fault in FAULTS[side]():
        with pytest.MonkeyPatch.context() as patch:
            fault.patch(patch)
            climb(fault.name, fault.preset, fault.last)
    if here.topology.rank == 0:
        np.savez(told["output"], **arrays)
    leave = pydoc.locate(LEAVE[side])
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
