"""The optimizers of `lockstep.workloads.optimizers` in PyTorch, over all tensors at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lockstep.workloads import optimizers
from lockstep.workloads.contract import Parameter

Tensors = list[Tensor]
Numbers = Mapping[str, float]


class Optimizer:
    """A recipe's optimizer.

    Attributes:
        slots: what it keeps, by slot and neutral name; zeros at first.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        described: Sequence[Parameter],
        parameters: Mapping[str, Tensor],
    ) -> None:
        """Make its slots.

        Args:
            settings: the recipe's `optimizer`.
            described: the trained parameters.
            parameters: tensors by neutral name.
        """
        self.settings = settings
        self.parameters = {p.name: parameters[p.name] for p in described}
        self.shares: dict[optimizers.Share, list[str]] = {}
        for p in described:
            self.shares.setdefault(optimizers.share(settings, p), []).append(p.name)
        self.slots = {
            slot: {name: _zeros(self.parameters[name], slot) for name in own}
            for slot, own in optimizers.kept(settings, described).items()
        }

    def clear(self) -> None:
        """Forget the gradients."""
        for tensor in self.parameters.values():
            tensor.grad = None

    def gradients(self) -> dict[str, Tensor]:
        """Return all gradients; zeros where the loss does not reach a parameter, as in JAX."""
        return {
            name: torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
            for name, tensor in self.parameters.items()
        }

    @torch.no_grad()
    def step(self, numbers: Numbers) -> None:
        """Change all parameters by their gradients.

        Args:
            numbers: of the step: `learning_rate` and `optimizers.scalars`.
        """
        grads = self.gradients()
        if self.settings["clip_norm"]:
            clip(list(grads.values()), self.settings["clip_norm"])
        for share, names in self.shares.items():
            values = [self.parameters[name] for name in names]
            own = optimizers.of_group(self.settings, share.group)
            kept = {s: [self.slots[s][name] for name in names] for s in optimizers.slots(own)}
            of_group = optimizers.own_numbers(numbers, share.group)
            change = update(own, share.decay, of_group, values, [grads[n] for n in names], kept)
            rate = numbers["learning_rate"] * share.rate
            torch._foreach_add_(values, change, alpha=-rate)


def _zeros(parameter: Tensor, slot: str) -> Tensor:
    if slot == optimizers.ROW_SQUARES:
        return parameter.new_zeros(len(parameter))
    return torch.zeros_like(parameter, requires_grad=False)


def norms(tensors: Tensors) -> list[Tensor]:
    """Return the norm of each tensor.

    On a CPU PyTorch's own functions add one square after the other, and a norm of 23 million
    float32 numbers, a table of words, is wrong by 2e-4; `sum` adds up in pairs.
    """
    if tensors[0].device.type == "cpu":
        return [tensor.square().sum().sqrt() for tensor in tensors]
    return list(torch._foreach_norm(tensors))


def clip(grads: Tensors, bound: float) -> None:
    """Bound the norm of all gradients together."""
    norm = torch.linalg.vector_norm(torch.stack(norms(grads)))
    factor = (bound / (norm + optimizers.CLIP_EPSILON)).clamp(max=1.0)
    torch._foreach_mul_(grads, factor)


def update(
    settings: Mapping[str, Any],
    decay: float,
    numbers: Numbers,
    values: Tensors,
    grads: Tensors,
    kept: Mapping[str, Tensors],
) -> Tensors:
    """Change the slots; return what, times the learning rate, is subtracted from the values."""
    if settings["name"] == "sgd":
        return _sgd(settings, decay, values, grads, kept)
    if settings["name"] in ("adagrad", "rowwise_adagrad"):
        return _adagrad(settings, decay, values, grads, kept)
    first, second = (kept[slot] for slot in optimizers.MOMENTS)
    torch._foreach_mul_(first, settings["beta1"])
    torch._foreach_add_(first, grads, alpha=1 - settings["beta1"])
    torch._foreach_mul_(second, settings["beta2"])
    torch._foreach_addcmul_(second, grads, grads, value=1 - settings["beta2"])
    scale = torch._foreach_sqrt(second)
    torch._foreach_mul_(scale, numbers["correction2"])
    torch._foreach_add_(scale, settings["epsilon"])
    result = list(torch._foreach_mul(first, numbers["correction1"]))
    torch._foreach_div_(result, scale)
    if decay:
        torch._foreach_add_(result, values, alpha=decay)
    if settings["name"] == "lamb":
        for value, one in zip(values, result):
            own, changed = norms([value, one])
            one *= torch.where((own > 0) & (changed > 0), own / changed, 1.0)
    return result


def _sgd(
    settings: Mapping[str, Any],
    decay: float,
    values: Tensors,
    grads: Tensors,
    kept: Mapping[str, Tensors],
) -> Tensors:
    coupled = settings["decay"] == "coupled"
    if decay and coupled:
        grads = list(torch._foreach_add(grads, values, alpha=decay))
    result = grads
    if settings["momentum"]:
        momentum = kept["momentum"]
        torch._foreach_mul_(momentum, settings["momentum"])
        torch._foreach_add_(momentum, grads)
        result = momentum
        if settings["nesterov"]:
            result = list(torch._foreach_add(grads, momentum, alpha=settings["momentum"]))
    if decay and not coupled:
        result = list(torch._foreach_add(result, values, alpha=decay))
    return result


def _adagrad(
    settings: Mapping[str, Any],
    decay: float,
    values: Tensors,
    grads: Tensors,
    kept: Mapping[str, Tensors],
) -> Tensors:
    if settings["name"] == "adagrad":
        totals = kept[optimizers.SQUARES]
        torch._foreach_addcmul_(totals, grads, grads)
        scale = list(torch._foreach_sqrt(totals))
    else:
        totals = kept[optimizers.ROW_SQUARES]
        torch._foreach_add_(totals, [g.square().flatten(1).mean(1) for g in grads])
        roots = torch._foreach_sqrt(totals)
        scale = [r.view(-1, *[1] * (g.dim() - 1)) for r, g in zip(roots, grads)]
    result = list(torch._foreach_div(grads, torch._foreach_add(scale, settings["epsilon"])))
    if decay:
        torch._foreach_add_(result, values, alpha=decay)
    return result
