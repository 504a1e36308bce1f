"""What `resnet18_cifar10` is, without any framework.

ResNet-18 with a stem for small images: a 3x3 convolution of stride 1 and no pooling before four
stages of two basic blocks (11.2 million parameters; K. Liu's pytorch-cifar). SGD with Nesterov
momentum, weight decay on kernels alone, warm-up and cosine; random crops and flips.
"""

import functools

from lockstep.workloads import resnet, vision
from lockstep.workloads.contract import Workload
from lockstep.workloads.recipe import recipe

FAMILY = resnet.Family(bottleneck=False, large_stem=False)

WORKLOAD = Workload(
    name="resnet18_cifar10",
    summary="residual network of 18 layers on 32x32 images",
    recipe=recipe(
        epochs=60,
        global_batch=128,
        drop_last=True,
        optimizer={
            "learning_rate": 0.1,
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 5e-4,
        },
        schedule={"name": "cosine", "warmup_epochs": 5.0},
        augment={"name": "crop_flip", "padding": 4},
        target={"metric": "accuracy", "value": 0.94},
        model={
            "blocks": [2, 2, 2, 2],
            "width": 64,
            "classes": 10,
            "size": 32,
            "batch_norm": "global",
            "zero_last_gamma": False,
        },
    ),
    parameters=functools.partial(resnet.parameters, FAMILY),
    buffers=functools.partial(resnet.buffers, FAMILY),
    forward_flops=functools.partial(resnet.forward_flops, FAMILY),
    **vision.fields(
        resnet.example_shape, lambda model: model["classes"], metrics=("accuracy", "top5")
    ),
    small={"model": {"blocks": [1, 1, 1, 1], "width": 8}},
    check=functools.partial(resnet.check, FAMILY),
    firm_steps=1,
)
