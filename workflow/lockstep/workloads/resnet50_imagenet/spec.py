"""What `resnet50_imagenet` is, without any framework.

torchvision's `resnet50` (bottlenecks with the stride in their 3x3 convolution, 25.6 million
parameters) with the recipe of Goyal et al., Accurate, large minibatch SGD (2017), a cosine instead
of its steps, and label smoothing (Szegedy et al., Rethinking the inception architecture, 2016).
Crops are taken of stored squares, not of the originals (docs/residual-networks.md).
"""

import functools

from lockstep.workloads import resnet, vision
from lockstep.workloads.contract import Workload
from lockstep.workloads.recipe import recipe

FAMILY = resnet.Family(bottleneck=True, large_stem=True)

WORKLOAD = Workload(
    name="resnet50_imagenet",
    summary="residual network of 50 layers on 224x224 images",
    recipe=recipe(
        epochs=90,
        global_batch=256,
        drop_last=True,
        evaluation_batch=256,
        optimizer={
            "learning_rate": 0.1,
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 1e-4,
        },
        schedule={"name": "cosine", "warmup_epochs": 5.0},
        label_smoothing=0.1,
        augment={"name": "resized_crop"},
        target={"metric": "accuracy", "value": 0.759},
        model={
            "blocks": [3, 4, 6, 3],
            "width": 64,
            "classes": 1000,
            "size": 224,
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
    small={"model": {"blocks": [1, 1, 1, 1], "width": 8, "classes": 100, "size": 64}},
    check=functools.partial(resnet.check, FAMILY),
    firm_steps=1,
)
