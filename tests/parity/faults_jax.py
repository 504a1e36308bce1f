"""Faults of JAX's side: each a line of its model, its layers, its optimizer or its engine."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import lax

from lockstep.engines import jax_engine
from lockstep.engines.contract import at_rate
from lockstep.engines.jax_engine import JaxEngine
from lockstep.engines.jax_optimizer import Optimizer
from lockstep.parity import EDGES
from lockstep.workloads import batch_norm_flax, layers_flax, vision_flax
from lockstep.workloads.mnist_cnn import flax_model
from lockstep.workloads.mnist_cnn.flax_model import MnistCnn
from tests.parity.faults import Fault, Patch, each, setting, wrapping

F32 = {"precision": "float32"}


def rounded(x: jax.Array, bits: int = 7) -> jax.Array:
    """Return a float32 array with so many bits behind the point: 7 as bfloat16, 10 as TF32."""
    return lax.reduce_precision(x, 8, bits) if x.dtype == jnp.float32 else x


def all_rounded(tree, bits: int = 7):
    return jax.tree.map(lambda x: rounded(x, bits), tree)


def settings(**changes: object) -> Patch:
    """An optimizer with other settings."""
    return wrapping(
        Optimizer,
        "__init__",
        lambda sound: lambda self, s, described: sound(self, {**s, **changes}, described),
    )


def changed_gradients(change: Callable) -> Patch:
    """Something done to gradients before the optimizer; `change` is given them and the values."""
    return wrapping(
        Optimizer,
        "step",
        lambda sound: (
            lambda self, numbers, values, grads, slots: sound(
                self, numbers, values, change(grads, values), slots
            )
        ),
    )


def clipped(grads: dict, bound: float) -> dict:
    norm = jnp.sqrt(sum(jnp.sum(g * g) for g in grads.values()))
    return {name: g * jnp.minimum(1.0, bound / norm) for name, g in grads.items()}


def stepped(change: Callable) -> Patch:
    """A step that ends in another state; `change` is given the one before it and the one after."""

    def make(sound):
        def step(self, state, *arguments):
            after, result = sound(self, state, *arguments)
            return change(state, after), result

        return step

    return wrapping(JaxEngine, "_step", make)


def given(change: Callable) -> Patch:
    """A step of another batch, or other numbers."""
    return wrapping(
        JaxEngine,
        "_step",
        lambda sound: lambda self, s, b, numbers: sound(self, s, *change(self, b, numbers)),
    )


def loading(change: Callable) -> Patch:
    """A state that is changed on its way in."""
    return wrapping(JaxEngine, "load", lambda sound: lambda self, s: sound(self, change(s)))


def swapped(state: dict, a: str, b: str) -> dict:
    """Return a state with two of its tensors swapped; drawn weights have no slots yet."""
    return {**state, a: state[b], b: state[a]} if a in state else state


def after_evaluation(change: Callable) -> Patch:
    def make(sound):
        def evaluate(self, batches):
            sums = sound(self, batches)
            self.values = change(self, self.values)
            return sums

        return evaluate

    return wrapping(JaxEngine, "evaluate", make)


def evaluated(change: Callable) -> Patch:
    return wrapping(
        JaxEngine, "evaluate", lambda sound: lambda self, bs: sound(self, [*change(list(bs))])
    )


def called(model: type, change: Callable) -> Patch:
    """A module that gives something else."""
    return wrapping(
        model,
        "__call__",
        lambda sound: nn.compact(lambda self, *xs, **more: change(sound, self, *xs, **more)),
    )


def without_momentum(values: dict) -> dict:
    return {**values, "slots": jax.tree.map(jnp.zeros_like, values["slots"])}


def stale(sound):
    """An evaluation of what the first one was given."""

    def evaluate(self, batches):
        own = self.values
        if not hasattr(self, "kept"):
            self.kept = jax.tree.map(jnp.array, {k: own[k] for k in ("params", "buffers")})
        self.values = {**own, **self.kept}
        sums = sound(self, batches)
        self.values = own
        return sums

    return evaluate


def prepared(sound):
    """Momentum is dropped where programs are prepared."""

    def prepare(self):
        done = sound(self)
        self.values = without_momentum(self.values)
        return done

    return prepare


def staged(sound):
    """The numbers of the first window that was staged, in all."""

    def stage(self, window):
        self.first = getattr(self, "first", window)
        return sound(self, dataclasses.replace(window, scalars=self.first.scalars))

    return stage


def convolved(change: Callable) -> Patch:
    """A convolution of other operands, or of another place."""
    return wrapping(
        layers_flax,
        "_native",
        lambda sound: (
            lambda x, kernel, bias, stride, padding: change(sound, x, kernel, bias, stride, padding)
        ),
    )


def same(sound, x, kernel, bias, stride, padding):
    """Padding as SAME has it at stride 2: none before, one behind."""
    if stride == 2 and padding:
        x, padding = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))), 0
    return sound(x, kernel, bias, stride, padding)


def only(shape: tuple[int, ...], change: Callable) -> Callable:
    """That of a kernel of one shape."""

    def convolve(sound, x, kernel, *rest):
        if kernel.shape == shape:
            x, kernel = change(x, kernel)
        return sound(x, kernel, *rest)

    return convolve


def program(change: Callable) -> Patch:
    """The unrolled program with another row of its window."""

    def make(sound):
        def _program(self, count):
            def steps(state, rows):
                results = []
                named = [(batch, self._named(numbers)) for batch, numbers in rows]
                for k in range(count):
                    state, result = self._step(state, *change(named, k))
                    results.append(result)
                losses, sums = zip(*results)
                return state, (jnp.stack(losses), jnp.stack(sums))

            return jax.jit(steps, donate_argnums=0)

        return _program

    return wrapping(JaxEngine, "_program", make)


def other_order(x: jax.Array) -> jax.Array:
    """Features of the last maps, channels first."""
    if x.shape[1] != 320:
        return x
    return x.reshape(-1, 4, 4, 20).transpose(0, 3, 1, 2).reshape(-1, 320)


def taking(rows: list, k: int, other: int, number: str) -> tuple[dict, dict]:
    """A row with a number of another one."""
    batch, numbers = rows[k]
    return batch, {**numbers, number: rows[other][1][number]}


def row(name: str, preset: str, rung: str, named: str, patch: Patch, **more: str) -> Fault:
    return Fault(name=name, side="jax", preset=preset, rung=rung, named=named, patch=patch, **more)


SLOT = "momentum/dense2.bias"
CONV2 = (5, 5, 10, 20)

FAULTS = [
    # Layers
    row("GELU for ReLU", "plain", "layers", "conv2", setting(nn, "relu", jax.nn.gelu)),
    row("swish in one layer", "plain", "layers", "dense2",
        setting(nn, "relu", lambda x: jax.nn.silu(x) if x.ndim == 2 else jax.nn.relu(x))),
    row("a convolution turned round", "plain", "layers", "conv1",
        convolved(lambda sound, x, k, *rest: sound(x, k[::-1, ::-1], *rest))),
    row("channels of a kernel in another order", "plain", "layers", "conv2",
        convolved(only(CONV2, lambda x, k: (x, k[:, :, ::-1])))),
    row("a bias forgotten", "plain", "layers", "conv1",
        convolved(lambda sound, x, k, b, *rest: sound(x, k, None, *rest))),
    row("pooling from the second pixel", "plain", "layers", "conv2",
        wrapping(nn, "max_pool", lambda sound: lambda x, **how: sound(
            jnp.roll(x, 1, 1) if x.shape[1] == 24 else x, **how))),
    row("deviation of the images off by 1e-9", "plain", "layers", "conv1",
        setting(flax_model, "STD", (0.5 + 1e-9,))),
    row("a flatten in another order", "plain", "layers", "dense1",
        called(layers_flax.Dense, lambda sound, self, x: sound(self, other_order(x)))),
    row("SAME padding at stride 2", "residual", "layers", "stage2_block1.conv1", convolved(same)),
    row("another epsilon", "residual", "layers", "stem_norm",
        setting(batch_norm_flax, "EPSILON", 1e-3)),
    row("features bounded at one", "residual", "layers", "head",
        called(layers_flax.Dense, lambda sound, self, x: sound(self, x.clip(max=1)))),
    # The loss and its gradient
    row("label smoothing spread over the other classes", "residual", "loss", "loss",
        setting(optax, "smooth_labels", lambda y, a: y * (1 - a) + (1 - y) * a / 9)),
    row("a probability bounded at 1e-14", "plain", "general", "loss",
        setting(vision_flax, "cross_entropy", lambda x, y, _: -jnp.log(
            jnp.take_along_axis(jax.nn.softmax(x), y[:, None], 1)[:, 0] + 1e-14))),
    row("a gradient that is stopped", "plain", "gradient", "conv1.kernel",
        convolved(only(CONV2, lambda x, k: (lax.stop_gradient(x), k)))),
    row("a gradient of the other sign", "plain", "gradient", "dense2.kernel",
        wrapping(jax_engine.jax_gradient, "of", lambda sound: lambda *a: lambda *b: (
            lambda value, g: (value, {**g, "dense2.kernel": -g["dense2.kernel"]}))(
                *sound(*a)(*b)))),
    # Statistics
    row("momentum the other way round", "residual", "step", "buffer/stem_norm.mean",
        setting(batch_norm_flax, "MOMENTUM", 0.9)),
    row("Flax's own momentum", "residual", "step", "buffer/stem_norm.mean",
        setting(batch_norm_flax, "MOMENTUM", 0.01)),
    row("statistics that are not kept", "residual", "step", "buffer/stem_norm.mean",
        stepped(lambda before, after: {**after, "buffers": before["buffers"]})),
    # The step
    row("Optax's decay", "plain", "step", "param/conv1.kernel",
        settings(weight_decay=1e-4)),
    row("Nesterov", "plain", "step", "param/conv1.kernel", settings(nesterov=True)),
    row("decoupled for coupled", "residual", "step", "param/stem.kernel",
        settings(decay="decoupled")),
    row("momentum off by a millionth", "plain", "update", "momentum/conv1.kernel",
        settings(momentum=0.9 + 1e-6), until="general"),
    row("the learning rate within momentum", "residual", "step", "param/stem.kernel",
        given(lambda self, b, n: (b, {**n, "weight": n["weight"] / n["learning_rate"],
                                      "learning_rate": n["weight"] / n["weight"]}))),
    row("gradients clipped at norm 5", "plain", "update", "momentum/conv1.kernel",
        changed_gradients(lambda g, _: clipped(g, 5.0)), until="general"),
    row("gradients bounded at a half", "plain", "update", "momentum/conv1.kernel",
        changed_gradients(lambda g, _: jax.tree.map(lambda x: x.clip(-0.5, 0.5), g)),
        until="general"),
    row("activations bounded at 6", "plain", "general", "loss", setting(nn, "relu", jax.nn.relu6)),
    row("one parameter left out", "plain", "step", "param/dense1.bias",
        stepped(lambda before, after: {**after, "params": {
            **after["params"], "dense1.bias": before["params"]["dense1.bias"]}})),
    # Steps in a row
    row("the learning rate not updated", "residual", "final", "param/stem.kernel",
        wrapping(JaxEngine, "_window", lambda sound: lambda self, w: sound(
            self, at_rate(w, w.scalars["learning_rate"][0])))),
    row("the numbers of the first window that was staged", "unrolled", "steps", "step 2",
        wrapping(JaxEngine, "stage", staged), most="momentum/conv1.bias"),
    row("an unrolled program that repeats its first row", "unrolled", "batches", "step 2",
        program(lambda rows, k: rows[0])),
    row("an unrolled program with one learning rate", "unrolled", "final", "param/conv1.kernel",
        program(lambda rows, k: taking(rows, k, 0, "learning_rate"))),
    row("an unrolled program with the last learning rate", "unrolled", "steps", "step 2",
        program(lambda rows, k: taking(rows, k, -1, "learning_rate"))),
    row("an unrolled program with its first row's number of examples", "unrolled", "edge",
        f"loss of {EDGES[0]}",
        program(lambda rows, k: taking(rows, k, 0, "weight"))),
    # The edge of an epoch
    row("a mean over the padding too", "plain", "edge", f"loss of {EDGES[0]}",
        given(lambda self, b, n: (b, {**n, "weight": jnp.full_like(n["weight"], 16)}))),
    row("padding trained on", "plain", "edge", f"loss of {EDGES[0]}",
        wrapping(JaxEngine, "terms", lambda sound: lambda self, x, batch, n: sound(
            self, x, {**batch, "real": jnp.ones_like(batch["real"])}, n))),
    row("a local mean where the mask is", "plain", "edge", f"loss of {EDGES[0]}",
        wrapping(JaxEngine, "terms", lambda sound: lambda self, x, b, n: sound(
            self, x, b, len(b["real"])))),
    # Evaluation, and what comes after
    row("padding evaluated", "plain", "evaluation", "examples",
        evaluated(lambda bs: [{**b, "real": np.ones_like(b["real"])} for b in bs])),
    row("an incomplete batch left out", "plain", "evaluation", "examples",
        evaluated(lambda bs: bs[:-1] or bs)),
    row("accuracy of the least likely", "plain", "evaluation", "accuracy",
        setting(flax_model, "accuracy", lambda x, y: (x.argmin(-1) == y).astype(jnp.float32))),
    row("an evaluation by the batch's own statistics", "residual", "evaluation", "loss",
        wrapping(JaxEngine, "call", lambda sound: lambda self, p, rest, x, train, layers=(): sound(
            self, p, rest, x, True, layers))),
    row("weights of the first evaluation in all", "plain", "after", "evaluation loss",
        wrapping(JaxEngine, "evaluate", stale)),
    row("running statistics reset by an evaluation", "residual", "after",
        "buffer/stem_norm.mean",
        after_evaluation(lambda self, v: {**v, "buffers": jax.tree.map(
            jnp.ones_like, v["buffers"])})),
    row("momentum lost at an evaluation", "plain", "after", "param/conv1.kernel",
        after_evaluation(lambda self, v: without_momentum(v))),
    # States
    row("another initial value", "plain", "weights", "param/conv2.bias",
        loading(lambda s: {**s, "param/conv2.bias": 0 * s["param/conv2.bias"]})),
    row("momentum forgotten", "plain", "restored", "momentum/conv1.kernel",
        loading(lambda s: {n: 0 * v if n.startswith("momentum/") else v for n, v in s.items()})),
    row("digits lost on the way in", "plain", "restored", "param/conv1.kernel",
        loading(lambda s: {n: v.astype(np.float32) for n, v in s.items()})),
    row("two slots swapped", "plain", "restored", "momentum/conv1.bias",
        loading(lambda s: swapped(s, SLOT, "momentum/conv1.bias"))),
    row("momentum lost where programs are prepared", "unrolled", "restored",
        "prepared/momentum/conv1.kernel", wrapping(JaxEngine, "prepare", prepared),
        until="canary"),
    row("a buffer forgotten", "residual", "restored", "buffer/stem_norm.var",
        loading(lambda s: {**s, "buffer/stem_norm.var": np.ones(4, np.float32)})),
    row("two slots swapped there and back", "plain", "step", "momentum/conv1.bias",
        each(loading(lambda s: swapped(s, SLOT, "momentum/conv1.bias")),
             wrapping(JaxEngine, "state", lambda sound: lambda self: swapped(
                 sound(self), SLOT, "momentum/conv1.bias")))),
    # Fewer digits
    row("momentum kept in bfloat16", "residual", "step", "momentum/stem.kernel",
        stepped(lambda _, s: {**s, "slots": all_rounded(s["slots"])}), **F32),
    row("gradients rounded to bfloat16", "residual", "step", "param/stem_norm.bias",
        changed_gradients(lambda g, _: all_rounded(g)), **F32),
    row("an evaluation of weights in bfloat16", "plain", "evaluation",
        "loss in general position",
        wrapping(JaxEngine, "_evaluation_sums", lambda sound: lambda self, p, *rest: sound(
            self, all_rounded(p), *rest)), until="general", **F32),
    row("one convolution in TF32", "plain", "layers", "conv2",
        convolved(only(CONV2, lambda x, k: (rounded(x, 10), rounded(k, 10)))), **F32),
    row("parameters kept in bfloat16", "plain", "weights", "param/conv1.kernel",
        loading(lambda s: {n: np.asarray(all_rounded(jnp.asarray(v, jnp.float32))) for n, v in
                           s.items()}), **F32),
    row("logits in bfloat16", "plain", "forward", "logits",
        called(MnistCnn, lambda sound, self, *xs, **more: rounded(sound(self, *xs, **more))),
        **F32),
    row("bfloat16 not in force", "plain", "forward",
        "logits (as in float32: the precision is not in force)",
        wrapping(flax_model, "build", lambda sound: lambda m, s: sound(
            m, dataclasses.replace(s, dtype=s.param_dtype))), precision="bfloat16"),
    row("parameters in bfloat16", "plain", "weights", "weights/param/conv1.kernel",
        setting(jax_engine, "PARAMETER_DTYPE", {"bfloat16": "bfloat16", "float32": "float32"}),
        precision="bfloat16"),
    # Draws
    row("dropout", "plain", "draws", "dropout or noise",
        setting(nn, "relu", lambda x: nn.Dropout(0.1, deterministic=False)(jax.nn.relu(x)))),
]  # fmt: skip
