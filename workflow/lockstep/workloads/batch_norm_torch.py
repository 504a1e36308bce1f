"""Batch normalisation over images in PyTorch, its statistics over a declared scope.

`device` takes each process's own part of a batch; `global` the batch of all processes, by sums that
gradients flow through. `SyncBatchNorm` does not do for the latter: it refuses CPU tensors.

Normalisation divides by the biased variance; the running variance takes the unbiased one, n/(n-1)
times as large, with momentum 0.1 for the new value: what `torch.nn.BatchNorm2d` does. Statistics
and the normalisation are computed in the parameters' type, also where the images are bfloat16.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lockstep.workloads.ranks_torch import sum_over_ranks, world_size

MOMENTUM = 0.1
EPSILON = 1e-5


class BatchNorm(nn.Module):
    """Images ``(B, C, H, W)`` to the same shape and type.

    Attributes:
        scope: `global` or `device`.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, scope: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.joint = scope == "global" and world_size() > 1

    def forward(self, x: Tensor) -> Tensor:
        if not (self.joint and self.training):
            return functional.batch_norm(
                x,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                self.training,
                MOMENTUM,
                EPSILON,
            )
        y, mean, var = _Joint.apply(x, self.weight, self.bias)
        with torch.no_grad():
            n = world_size() * x.numel() // x.shape[1]
            self.running_mean.lerp_(mean, MOMENTUM)
            self.running_var.lerp_(var * (n / (n - 1)), MOMENTUM)
        return y


class _Joint(torch.autograd.Function):
    """Normalisation by the statistics of all processes; mean and biased variance beside it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        wide = x.to(weight.dtype)
        n = world_size() * x.numel() // x.shape[1]
        mean = sum_over_ranks(wide.sum((0, 2, 3))) / n
        centred = wide - _over_images(mean)
        var = sum_over_ranks(centred.square().sum((0, 2, 3))) / n
        inverse = 1 / torch.sqrt(var + EPSILON)
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.mark_non_differentiable(mean, var)
        y = centred * _over_images(inverse * weight) + _over_images(bias)
        return y.to(x.dtype), mean, var

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, mean, inverse = ctx.saved_tensors
        n = world_size() * x.numel() // x.shape[1]
        gradient = gradients[0].to(weight.dtype)
        normal = (x.to(weight.dtype) - _over_images(mean)) * _over_images(inverse)
        local = torch.stack([gradient.sum((0, 2, 3)), (gradient * normal).sum((0, 2, 3))])
        both = sum_over_ranks(local) / n
        dx = gradient - _over_images(both[0]) - normal * _over_images(both[1])
        # Those of weight and bias are this process's share, as of every other parameter.
        return (dx * _over_images(inverse * weight)).to(x.dtype), local[1], local[0]


def _over_images(per_channel: Tensor) -> Tensor:
    return per_channel[:, None, None]
