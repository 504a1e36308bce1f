"""Faults of PyTorch's side: each a line of its model, its layers, its optimizer or its engine."""

import contextlib
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lockstep.engines.contract import at_rate
from lockstep.engines.torch_engine import TorchEngine
from lockstep.engines.torch_optimizer import Optimizer
from lockstep.parity import EDGES
from lockstep.workloads import batch_norm_torch, naming, resnet_torch, vision_torch
from lockstep.workloads.mnist_cnn import torch_model
from lockstep.workloads.mnist_cnn.torch_model import MnistCnn
from lockstep.workloads.resnet18_cifar10 import torch_model as residual
from tests.parity.faults import Fault, Patch, each, setting, wrapping

F32 = {"precision": "float32"}


def rounded(x: torch.Tensor, bits: int = 7) -> torch.Tensor:
    """Return a float32 tensor with so many bits behind the point: 7 as bfloat16, 10 as TF32."""
    if x.dtype is not torch.float32:
        return x
    unit = 1 << (23 - bits)
    return ((x.detach().view(torch.int32) + unit // 2) & -unit).view(torch.float32)


def through(x: torch.Tensor, bits: int) -> torch.Tensor:
    """The same, for a gradient to pass."""
    return x + (rounded(x, bits) - x.detach())


def renamed(name: str, layout: naming.Layout) -> Patch:
    return wrapping(
        torch_model,
        "names",
        lambda sound: lambda m: {**sound(m), name: (sound(m)[name][0], layout)},
    )


def settings(**changes: object) -> Patch:
    """An optimizer with other settings."""
    return wrapping(
        Optimizer,
        "__init__",
        lambda sound: lambda self, s, *rest: sound(self, {**s, **changes}, *rest),
    )


def all_decay(patch: pytest.MonkeyPatch) -> None:
    """Decay of norms and biases, too."""
    sound = Optimizer.__init__

    def make(self, settings, described, parameters):
        decaying = [dataclasses.replace(p, decay=True) for p in described]
        sound(self, settings, decaying, parameters)

    patch.setattr(Optimizer, "__init__", make)


def before_step(act) -> Patch:
    """Something done to each parameter between its gradient and its step."""

    def make(sound):
        def step(self, numbers):
            for name, parameter in self.parameters.items():
                if parameter.grad is not None:
                    act(self, name)
            return sound(self, numbers)

        return step

    return wrapping(Optimizer, "step", make)


def after_step(act) -> Patch:
    def make(sound):
        def step(self, numbers):
            done = sound(self, numbers)
            for name in self.parameters:
                act(self, name)
            return done

        return step

    return wrapping(Optimizer, "step", make)


def kept_rounded(it: Optimizer, name: str) -> None:
    slot = it.slots["momentum"][name]
    slot.copy_(rounded(slot))


def changed_gradient(change) -> Patch:
    return before_step(lambda it, name: change(it.parameters[name].grad))


def clipped(norm: float) -> Patch:
    def make(sound):
        def step(self, numbers):
            nn.utils.clip_grad_norm_(self.parameters.values(), norm)
            return sound(self, numbers)

        return step

    return wrapping(Optimizer, "step", make)


def loading(change) -> Patch:
    """A state that is changed on its way in."""
    return wrapping(TorchEngine, "load", lambda sound: lambda self, s: sound(self, change(self, s)))


def swapped(state: dict, a: str, b: str) -> dict:
    """Return a state with two of its tensors swapped; drawn weights have no slots yet."""
    return {**state, a: state[b], b: state[a]} if a in state else state


def after_evaluation(act) -> Patch:
    def make(sound):
        def evaluate(self, batches):
            sums = sound(self, batches)
            act(self)
            return sums

        return evaluate

    return wrapping(TorchEngine, "evaluate", make)


def evaluated(change) -> Patch:
    """An evaluation of other batches."""
    return wrapping(
        TorchEngine, "evaluate", lambda sound: lambda self, bs: sound(self, [*change(list(bs))])
    )


def trained(change) -> Patch:
    """Other windows to train on, of which a probe knows nothing."""
    return wrapping(
        TorchEngine, "train", lambda sound: lambda self, window: sound(self, change(self, window))
    )


def forwarded(model: type, change) -> Patch:
    return wrapping(model, "forward", lambda sound: lambda self, x: change(sound, self, x))


def biased(sound):
    def batch_norm(x, mean, var, weight, bias, training, momentum, eps):
        before, n = var.clone(), x.numel() // x.shape[1]
        y = sound(x, mean, var, weight, bias, training, momentum, eps)
        if training:
            fresh = (var - (1 - momentum) * before) * ((n - 1) / n)
            var.data.copy_((1 - momentum) * before + fresh)  # behind autograd's back
        return y

    return batch_norm


def same(sound):
    """Padding as SAME has it at stride 2: none before, one behind."""

    def convolution(layer):
        made = sound(layer)
        if layer.size == 3 and layer.stride == 2:
            made.padding = (0, 0)
            made.register_forward_pre_hook(lambda _, x: (functional.pad(x[0], (0, 1, 0, 1)),))
        return made

    return convolution


def hooked(hook) -> Patch:
    """A gradient changed on its way into the first kernel of each residual convolution."""

    def make(sound):
        def convolution(layer):
            made = sound(layer)
            made.weight.register_hook(hook)
            return made

        return convolution

    return wrapping(resnet_torch, "_convolution", make)


def one_rounded(name: str, bits: int) -> Patch:
    """One convolution whose operands have fewer bits, in float32."""

    def make(sound):
        def build(*arguments):
            made = sound(*arguments)
            layer = made.get_submodule(name)
            forward = type(layer)._conv_forward
            layer._conv_forward = lambda x, w, b: forward(
                layer, through(x, bits), through(w, bits), b
            )
            return made

        return build

    return each(wrapping(torch_model, "build", make), wrapping(residual, "build", make))


def in_bfloat16(sound, *arguments):
    with torch.autocast("cpu", torch.bfloat16):
        return sound(*arguments)


def not_reduced(sound, engine, batches):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "compute_dtype", engine.param_dtype)
        return sound(engine, batches)


def preparing(roles: tuple[str, ...]) -> Patch:
    """A preparation behind which only some of the state is as it was, the rest zero."""

    def make(sound):
        def prepare(self):
            kept = self.state()
            done = sound(self)
            self.load({n: v if n.startswith(roles) else 0 * v for n, v in kept.items()})
            return done

        return prepare

    return wrapping(TorchEngine, "prepare", make)


def forget_momentum(engine: TorchEngine) -> None:
    for slot in engine.optimizer.slots["momentum"].values():
        slot.zero_()


def restart(sound):
    """Momentum is dropped where an epoch has ended."""

    def train(self, window):
        pending = sound(self, window)
        if window.examples[window.steps - 1] < self.job.recipe["global_batch"]:
            forget_momentum(self)
        return pending

    return train


def cached(engine: TorchEngine, window):
    """Images that begin as the last ones did are not sent again."""
    images = window.batch["image"]
    last = getattr(engine, "sent", None)
    if last is not None and np.array_equal(images[0, 0], last[0, 0]):
        window = dataclasses.replace(window, batch={**window.batch, "image": last})
    engine.sent = window.batch["image"]
    return window


def row_of(index: int) -> Patch:
    """The learning rate of another row of a window."""
    return trained(lambda _, w: at_rate(w, w.scalars["learning_rate"][index]))


def row(name: str, preset: str, rung: str, named: str, patch: Patch, **more: str) -> Fault:
    return Fault(
        name=name, side="torch", preset=preset, rung=rung, named=named, patch=patch, **more
    )


relu, pool = functional.relu, functional.max_pool2d
SLOT = "momentum/dense2.bias"

FAULTS = [
    # Layers
    row("GELU for ReLU", "plain", "layers", "conv2",
        setting(functional, "relu", functional.gelu)),
    row("a leak of a millionth", "plain", "layers", "conv2",
        setting(functional, "relu", lambda x: functional.leaky_relu(x, 1e-6))),
    row("mean of the images off by 1e-9", "plain", "layers", "conv1",
        setting(torch_model, "MEAN", (0.5 + 1e-9,))),
    row("images moved by a pixel", "plain", "layers", "conv1",
        forwarded(MnistCnn, lambda sound, self, x: sound(self, x.roll(1, 3)))),
    row("height and width of a kernel swapped", "plain", "layers", "conv2",
        renamed("conv2.kernel", naming.Layout(axes=(3, 2, 1, 0)))),
    row("a flatten in another order", "plain", "layers", "dense1",
        renamed("dense1.kernel", naming.DENSE)),
    row("average for max", "plain", "layers", "conv2",
        setting(functional, "max_pool2d", functional.avg_pool2d)),
    row("dense layers in float32", "plain", "layers", "dense1",
        wrapping(nn.Linear, "forward", lambda sound: lambda self, x: sound(self, x.float().to(x)))),
    row("softmax before the loss too", "plain", "forward", "logits",
        forwarded(MnistCnn, lambda sound, self, x: sound(self, x).log_softmax(1))),
    row("another epsilon", "residual", "layers", "stem_norm",
        setting(batch_norm_torch, "EPSILON", 1e-6)),
    row("SAME padding at stride 2", "residual", "layers", "stage2_block1.conv1",
        wrapping(resnet_torch, "_convolution", same)),
    row("red and blue swapped", "residual", "layers", "stem",
        forwarded(resnet_torch.ResNet, lambda sound, self, x: sound(self, x.flip(1)))),
    # The loss and its gradient
    row("label smoothing of a millionth", "plain", "loss", "loss",
        wrapping(vision_torch, "cross_entropy", lambda sound: lambda x, y, _: sound(x, y, 1e-6))),
    row("a probability bounded at 1e-14", "plain", "general", "loss",
        setting(vision_torch, "cross_entropy", lambda x, y, _: functional.nll_loss(
            (x.softmax(1) + 1e-14).log(), y.long(), reduction="none"))),
    row("a gradient that is stopped", "plain", "gradient", "conv1.kernel",
        setting(functional, "max_pool2d",
                lambda x, n: pool(x, n).detach() if x.shape[1] == 10 else pool(x, n))),
    row("a bias that learns half", "plain", "gradient", "conv2.bias",
        forwarded(nn.Conv2d, lambda sound, self, x: sound(self, x) - (
            0.5 * (self.bias - self.bias.detach())[:, None, None] if len(self.bias) == 20 else 0))),
    # Statistics
    row("momentum the other way round", "residual", "step", "buffer/stem_norm.mean",
        setting(batch_norm_torch, "MOMENTUM", 0.9)),
    row("a biased running variance", "residual", "step", "buffer/stem_norm.var",
        wrapping(functional, "batch_norm", biased)),
    # The step
    row("decay that nobody asked for", "plain", "step", "param/conv1.kernel",
        settings(weight_decay=1e-4)),
    row("Nesterov", "plain", "step", "param/conv1.kernel", settings(nesterov=True)),
    row("no Nesterov", "residual", "step", "param/stem.kernel", settings(nesterov=False)),
    row("dampening", "plain", "step", "param/conv1.kernel",
        changed_gradient(lambda g: g.mul_(0.9))),
    row("momentum off by a millionth", "plain", "update", "momentum/conv1.kernel",
        settings(momentum=0.9 + 1e-6), until="general"),
    row("decay of norms and biases", "residual", "step", "param/stem_norm.scale",
        all_decay),
    row("gradients clipped at norm 5", "plain", "update", "momentum/conv1.kernel", clipped(5.0),
        until="general"),
    row("the same in a residual network", "residual", "update", "momentum/stem.kernel",
        clipped(5.0), until="general"),
    row("gradients bounded at 1", "plain", "update", "momentum/conv1.kernel",
        changed_gradient(lambda g: g.clamp_(-0.5, 0.5)), until="general"),
    row("activations bounded at 6", "plain", "general", "loss",
        setting(functional, "relu", functional.relu6)),
    row("logits bounded at 20", "plain", "general", "loss",
        forwarded(MnistCnn, lambda sound, self, x: sound(self, x).clamp(-20, 20))),
    # Steps in a row
    row("the first learning rate of a window for all of it", "residual", "final",
        "param/stem.kernel", row_of(0)),
    row("the last learning rate of a window for all of it", "residual", "steps", "step 2",
        row_of(-1), most="param/stage1_block1.norm1.bias"),
    # The edge of an epoch
    row("a mean over the padding too", "plain", "edge", f"loss of {EDGES[0]}",
        trained(lambda _, w: dataclasses.replace(w, weights=np.full_like(w.weights, 16)))),
    row("padding trained on", "plain", "edge", f"loss of {EDGES[0]}",
        wrapping(TorchEngine, "terms", lambda sound: lambda self, x, batch, n: sound(
            self, x, {**batch, "real": torch.ones_like(batch["real"])}, n))),
    row("momentum dropped at an epoch's end", "plain", "edge", f"loss of {EDGES[2]}",
        wrapping(TorchEngine, "train", restart)),
    # Evaluation, and what comes after
    row("padding evaluated", "plain", "evaluation", "examples",
        evaluated(lambda bs: [{**b, "real": np.ones_like(b["real"])} for b in bs])),
    row("an incomplete batch left out", "plain", "evaluation", "examples",
        evaluated(lambda bs: bs[:-1] or bs)),
    row("accuracy of the runner-up", "plain", "evaluation", "accuracy",
        setting(torch_model, "accuracy", lambda x, y: vision_torch.top_k(x, y, 2))),
    row("four for five", "residual", "evaluation", "top5",
        wrapping(vision_torch, "top_k", lambda sound: lambda x, y, k: sound(x, y, k - 1))),
    row("an evaluation by the batch's own statistics", "residual", "evaluation", "loss",
        setting(nn.Module, "eval", nn.Module.train)),
    row("left in evaluation mode", "residual", "after", "loss",
        after_evaluation(lambda engine: engine.module.eval())),
    row("momentum lost at an evaluation", "plain", "after", "param/conv1.kernel",
        after_evaluation(forget_momentum)),
    row("a variance bounded in evaluations", "residual", "after", "evaluation loss",
        wrapping(functional, "batch_norm", lambda sound: lambda x, mean, var, w, b, training, *r:
                 sound(x, mean, var if training else var.clamp(min=0.6), w, b, training, *r))),
    # States
    row("another initial value", "plain", "weights", "param/conv2.bias",
        loading(lambda _, s: {**s, "param/conv2.bias": 0 * s["param/conv2.bias"]})),
    row("momentum forgotten", "plain", "restored", "momentum/conv1.kernel",
        loading(lambda _, s: {n: 0 * v if n.startswith("momentum/") else v for n, v in s.items()})),
    row("one slot forgotten", "plain", "restored", SLOT,
        loading(lambda _, s: {n: 0 * v if n == SLOT else v for n, v in s.items()})),
    row("two slots swapped", "plain", "restored", "momentum/conv1.bias",
        loading(lambda _, s: swapped(s, SLOT, "momentum/conv1.bias"))),
    row("two slots swapped there and back", "plain", "step", "momentum/conv1.bias",
        each(loading(lambda _, s: swapped(s, SLOT, "momentum/conv1.bias")),
             wrapping(TorchEngine, "state", lambda sound: lambda self: swapped(
                 sound(self), SLOT, "momentum/conv1.bias")))),
    row("momentum lost where programs are prepared", "plain", "restored",
        "prepared/momentum/conv1.kernel", preparing(("param/", "buffer/")), until="canary"),
    row("a buffer forgotten", "residual", "restored", "buffer/stem_norm.var",
        loading(lambda _, s: {**s, "buffer/stem_norm.var": np.ones(4, np.float32)})),
    row("scales forgotten", "residual", "restored", "param/stem_norm.scale",
        loading(lambda _, s: {n: 0 * v + 1 if n.endswith(".scale") and n.startswith("param/")
                              else v for n, v in s.items()})),
    row("digits lost on the way in", "plain", "restored", "param/conv1.kernel",
        loading(lambda _, s: {n: v.astype(np.float32) for n, v in s.items()})),
    # Fewer digits
    row("momentum kept in bfloat16", "residual", "step", "momentum/stem.kernel",
        after_step(kept_rounded), **F32),
    row("momentum rounded before a step", "residual", "update", "momentum/stem.kernel",
        before_step(kept_rounded), until="general", **F32),
    row("an evaluation in bfloat16", "plain", "evaluation",
        "loss in general position",
        wrapping(TorchEngine, "evaluate", lambda sound: lambda self, bs: in_bfloat16(
            sound, self, bs)), until="general", **F32),
    row("gradients rounded to bfloat16", "residual", "step", "param/stem_norm.bias",
        changed_gradient(lambda g: g.copy_(rounded(g))), **F32),
    row("one convolution in bfloat16", "plain", "layers", "conv2", one_rounded("conv2", 7), **F32),
    row("one convolution in TF32", "residual", "layers", "stage1_block1.conv2",
        one_rounded("layer1.0.conv2", 10), **F32),
    row("gradients of kernels in TF32", "residual", "gradient", "stem.kernel",
        hooked(lambda g: rounded(g, 10)), **F32),
    row("bfloat16 not in force", "plain", "forward",
        "logits (as in float32: the precision is not in force)",
        setting(TorchEngine, "autocast", lambda _: contextlib.nullcontext()),
        precision="bfloat16"),
    row("a bias that does not learn in bfloat16", "plain", "gradient", "conv1.bias",
        forwarded(nn.Conv2d, lambda sound, self, x: sound(self, x) - (
            (self.bias - self.bias.detach()).bfloat16()[:, None, None]
            if torch.is_autocast_enabled("cpu") and len(self.bias) == 10 else 0)),
        precision="bfloat16"),
    row("an evaluation in float32", "plain", "evaluation",
        "loss in general position (as in float32: the precision is not in force)",
        wrapping(TorchEngine, "evaluate", lambda sound: lambda self, bs: not_reduced(
            sound, self, bs)), precision="bfloat16"),
    # Checksums and draws
    row("bytes that are not sent again", "plain", "canary", "checksum with another image",
        trained(cached)),
    row("the checksum of the stored images", "residual", "batches", "the first batch",
        wrapping(TorchEngine, "_loss", lambda sound: lambda self, b, n, slots: (
            sound(self, b, n, slots)[0],
            self.checksum({**b, "image": b["image"][:, 1:-1, 1:-1]}, slots)))),
    row("dropout", "plain", "draws", "output/logits",
        setting(functional, "relu", lambda x: functional.dropout(relu(x), 0.1))),
    row("noise of a millionth", "plain", "draws", "output/logits",
        setting(functional, "relu", lambda x: relu(x) + 1e-6 * torch.rand_like(x))),
    row("gradients that are never cleared", "plain", "draws", "grad/conv1.kernel",
        setting(Optimizer, "clear", lambda self: None)),
]  # fmt: skip
