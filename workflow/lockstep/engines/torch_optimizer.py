"""A recipe's optimizer in PyTorch."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lockstep.engines.contract import Job


def make(job: Job, parameters: Mapping[str, Tensor]) -> torch.optim.Optimizer:
    """Return the optimizer of parameters by neutral name.

    Coupled decay is added to the gradient and passes through momentum (L2 regularisation). For
    decoupled decay PyTorch's SGD has no switch: it shrinks the parameters by learning rate x decay
    before each step (Loshchilov and Hutter, Decoupled weight decay regularization, 2019).
    """
    settings = job.recipe["optimizer"]
    decay = settings["weight_decay"]
    decays = {p.name: p.decay for p in job.workload.parameters(job.recipe["model"])}
    coupled = settings["decay"] == "coupled"
    groups = [
        {
            "params": [tensor for name, tensor in parameters.items() if decays[name] == decayed],
            "weight_decay": decay if decayed and coupled else 0.0,
            "shrinks": bool(decay) and decayed and not coupled,
        }
        for decayed in (True, False)
    ]
    optimizer = torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=settings["learning_rate"],
        momentum=settings["momentum"],
        nesterov=settings["nesterov"],
        dampening=0.0,
    )
    if any(group["shrinks"] for group in optimizer.param_groups):
        optimizer.register_step_pre_hook(lambda it, *_: _shrink(it, decay))
    return optimizer


@torch.no_grad()
def _shrink(optimizer: torch.optim.Optimizer, decay: float) -> None:
    for group in optimizer.param_groups:
        if group["shrinks"]:
            torch._foreach_mul_(group["params"], 1.0 - group["lr"] * decay)
