"""What a workload says of itself without any framework.

A workload is a folder with three files:

`spec.py`         `WORKLOAD: Workload`, below.
`torch_model.py`  `build(model) -> torch.nn.Module` and the functions that an engine calls, and
`flax_model.py`   the same for Flax. Both map their own parameter names to the neutral ones by
                  `names(model) -> Names`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

AXIS = "data"
"""The axis over devices: in a compiled training step over several, a Flax model is shown one's part
of a batch, and a mean over the whole is `jax.lax.pmean(x, AXIS)` (see `batch_norm_flax`)."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One trained tensor, in neutral naming and layout.

    Attributes:
        name: such as ``conv1.kernel``.
        shape: neutral layout: dense ``(in, out)``, convolution ``(height, width, in, out)``.
        bound: initial values are uniform in ``[-bound, bound)``; 0 with `constant` for others.
        constant: initial value where `bound` is 0 (a normalisation's scale is 1).
        std: if positive, initial values are normal with this standard deviation instead.
        decay: whether weight decay applies.
    """

    name: str
    shape: tuple[int, ...]
    bound: float = 0.0
    constant: float = 0.0
    std: float = 0.0
    decay: bool = True


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """One tensor that training updates but no gradient reaches, such as a running mean."""

    name: str
    shape: tuple[int, ...]
    constant: float


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A workload's description.

    Attributes:
        recipe: its hyperparameters (`lockstep.workloads.recipe`).
        example_shape: from the recipe's `model` to the shape of an example as the model takes it,
            such as ``(28, 28, 1)`` (height, width, channels), uint8. A stored example may be
            higher and wider: augmentation, or a crop of its centre, brings it to this shape.
        parameters: from the recipe's `model` to all parameters, in a fixed order.
        buffers: likewise, to all buffers.
        forward_flops: from the recipe's `model` to floating-point operations of one example's
            forward pass, a multiplication and an addition counted as two.
        metrics: what evaluation reports beside the loss: shares of examples, the larger the
            better.
        classes: from the recipe's `model` to how many classes it tells apart, if it does.
        small: changes of the recipe that make a preset for a test on a CPU: few layers, few
            channels, small images.
        check: says what is wrong with a complete recipe over so many devices, or None.
        firm_steps: float32 steps whose losses the ladder holds to the fixed tolerance alone. One
            where a unit within rounding of zero moves a gradient: then gradients are compared on
            several batches (`lockstep.parity.rungs`).
    """

    name: str
    summary: str
    recipe: dict[str, Any]
    example_shape: Callable[[Mapping[str, Any]], tuple[int, ...]]
    parameters: Callable[[Mapping[str, Any]], tuple[Parameter, ...]]
    forward_flops: Callable[[Mapping[str, Any]], int]
    buffers: Callable[[Mapping[str, Any]], tuple[Buffer, ...]] = lambda model: ()
    metrics: tuple[str, ...] = ("accuracy",)
    classes: Callable[[Mapping[str, Any]], int | None] = lambda model: None
    small: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[Mapping[str, Any], int], str | None] = lambda recipe, devices: None
    firm_steps: int = 10
