"""What image workloads share without any framework: arrays, crops, metrics.

A stored example is `image`, uint8 ``(height, width, channels)``, and `label`, int32. A crop (drawn,
or the centre) brings the image to the shape that the model takes, on the device
(`lockstep.workloads.augmentation`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lockstep.datasets.arrays import image_arrays
from lockstep.workloads import augmentation
from lockstep.workloads.contract import Array, Arrays, Data, Draw, Metric, Model, Recipe

Shape = tuple[int, ...]
ShapeOf = Callable[[Model], Shape]
METRICS = ("accuracy", "top5")


def fields(
    shape: ShapeOf, classes: Callable[[Model], int], metrics: tuple[str, ...] = ("accuracy",)
) -> dict[str, Any]:
    """Return what a `Workload` over images says beside its own.

    Args:
        shape: from the recipe's `model` to the shape of an image as the model takes it. A stored
            one may be higher and wider.
        classes: likewise, to how many classes it tells apart.
        metrics: shares of `METRICS`.
    """

    def stored(model: Model) -> tuple[Array, ...]:
        return tuple(image_arrays(shape(model), classes(model)).values())

    def arrays(recipe: Recipe, data: Data, train: bool) -> tuple[Array, ...]:
        stored = data.arrays["image"].shape
        middle = (stored[0] // 2, stored[1] // 2, 0)
        image = Array(name="image", dtype="uint8", shape=stored, probe=middle)
        label = Array(name="label", dtype="int32", high=classes(recipe["model"]))
        if not (train and kind(shape, recipe, data).draws):
            return (image, label)
        top, left = augmentation.centre(stored, shape(recipe["model"]))
        blank = (top, left, *shape(recipe["model"])[:2], 0)
        return (image, label, Array(name="crop", dtype="int32", shape=(5,), blank=blank))

    def draws(recipe: Recipe, data: Data) -> tuple[Draw, ...]:
        how = kind(shape, recipe, data)

        def make(examples: int, seed: int, epoch: int) -> np.ndarray:
            return augmentation.crops(how, examples, seed, epoch)

        return (Draw(name="crop", make=make),) if how.draws else ()

    def shown(batch: Arrays, recipe: Recipe, data: Data) -> Arrays:
        size = shape(recipe["model"])[:2]
        if "crop" in batch:
            image = augmentation.apply(batch["image"], batch["crop"], size)
        else:
            top, left = augmentation.centre(batch["image"].shape[1:], size)
            image = batch["image"][:, top : top + size[0], left : left + size[1]]
        return {**{n: a for n, a in batch.items() if n != "crop"}, "image": image}

    def check_data(recipe: Recipe, data: Data) -> str | None:
        found = {name: (array.dtype, len(array.shape)) for name, array in data.arrays.items()}
        if found != {"image": ("uint8", 3), "label": ("int32", 0)}:
            return (
                f"it holds {', '.join(sorted(found))}; the model learns from image (uint8, height "
                "x width x channels) and label (int32)"
            )
        known, outputs = data.facts.get("classes"), classes(recipe["model"])
        # JAX clamps a label that is out of range, PyTorch raises: neither may ever see one.
        if known is not None and len(known) > outputs:
            return (
                f"{len(known)} classes, but the model tells {outputs} apart; set its "
                "model.classes or choose another dataset"
            )
        stored = data.arrays["image"].shape
        return augmentation.problem(recipe["augment"], stored, shape(recipe["model"]))

    return {
        "stored": stored,
        "arrays": arrays,
        "draws": draws,
        "shown": shown,
        "check_data": check_data,
        "metrics": tuple(Metric(name=name) for name in metrics),
        "finish": finish,
    }


def kind(shape: ShapeOf, recipe: Recipe, data: Data) -> augmentation.Kind:
    """Return how a stored image gets to the shape that the model takes."""
    stored = data.arrays["image"].shape
    return augmentation.Kind.of(recipe["augment"], stored, shape(recipe["model"]))


def finish(sums: Mapping[str, float], columns: Arrays, recipe: Recipe) -> dict[str, float]:
    """Return the share of all examples of each metric."""
    return {name: sums[name] / sums["examples"] for name in METRICS if name in sums}
