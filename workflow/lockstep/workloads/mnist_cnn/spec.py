"""What `mnist_cnn` is, without any framework.

Two 5x5 convolutions (10 and 20 channels), each followed by ReLU and 2x2 max-pooling, then dense
layers 320 -> 50 -> 10; SGD with momentum. Initial weights as PyTorch draws them: uniform within
1/sqrt(fan in), biases too.
"""

import math
from collections.abc import Mapping
from typing import Any

from lockstep.workloads import vision
from lockstep.workloads.contract import Parameter, Workload
from lockstep.workloads.recipe import recipe

KERNEL = 5
CHANNELS = (10, 20)
FEATURES = 4 * 4 * CHANNELS[1]  # after two convolutions and poolings of a 28x28 image
HIDDEN = 50
CLASSES = 10


def shape(model: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of an image."""
    return (28, 28, 1)


def parameters(model: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """Return all parameters, in the order of the layers."""
    first, second = CHANNELS
    kernels = {
        "conv1": (KERNEL, KERNEL, 1, first),
        "conv2": (KERNEL, KERNEL, first, second),
        "dense1": (FEATURES, HIDDEN),
        "dense2": (HIDDEN, CLASSES),
    }
    result = []
    for layer, sizes in kernels.items():
        bound = math.prod(sizes[:-1]) ** -0.5  # of the fan in
        result.append(Parameter(name=f"{layer}.kernel", shape=sizes, bound=bound))
        result.append(Parameter(name=f"{layer}.bias", shape=sizes[-1:], bound=bound))
    return tuple(result)


def forward_flops(model: Mapping[str, Any]) -> int:
    """Return two operations for each multiplication in convolutions and dense layers."""
    first, second = CHANNELS
    conv1 = 24 * 24 * first * KERNEL**2
    conv2 = 8 * 8 * second * KERNEL**2 * first
    dense = FEATURES * HIDDEN + HIDDEN * CLASSES
    return 2 * (conv1 + conv2 + dense)


WORKLOAD = Workload(
    name="mnist_cnn",
    summary="two convolutions and two dense layers on 28x28 images",
    recipe=recipe(
        epochs=10,
        global_batch=64,
        optimizer={"learning_rate": 0.001, "momentum": 0.9},
        target={"metric": "accuracy", "value": 0.97},
    ),
    parameters=parameters,
    forward_flops=forward_flops,
    **vision.fields(shape, lambda model: CLASSES),
)
