"""What happens to an image is drawn once and done to the bit on every backend."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from lockstep.workloads import augmentation, augmentation_flax, augmentation_torch
from lockstep.workloads.augmentation import Kind

CASES = {
    "crop_flip": Kind(
        name="crop_flip", padding=4, smallest_area=0.08, stored=(32, 32), size=(32, 32)
    ),
    "crop_of_larger": Kind(
        name="crop_flip", padding=0, smallest_area=0.08, stored=(20, 24), size=(16, 18)
    ),
    "wide_padding": Kind(
        name="crop_flip", padding=11, smallest_area=0.08, stored=(7, 3), size=(6, 2)
    ),
    "resized_crop": Kind(
        name="resized_crop", padding=0, smallest_area=0.08, stored=(40, 48), size=(28, 28)
    ),
    "enlarged": Kind(
        name="resized_crop", padding=0, smallest_area=0.08, stored=(24, 20), size=(20, 20)
    ),
}


def images_of(kind: Kind, count: int) -> np.ndarray:
    random = np.random.Generator(np.random.Philox(7))
    return random.integers(0, 256, (count, *kind.stored, 3), np.uint8)


def on_torch(images: np.ndarray, crops: np.ndarray | None, kind: Kind) -> np.ndarray:
    given = None if crops is None else torch.from_numpy(np.array(crops))
    return augmentation_torch.apply(torch.from_numpy(images), given, kind).numpy()


def on_jax(images: np.ndarray, crops: np.ndarray | None, kind: Kind) -> np.ndarray:
    given = None if crops is None else jnp.asarray(crops)
    return np.asarray(augmentation_flax.apply(jnp.asarray(images), given, kind))


@pytest.mark.parametrize("backend", [on_torch, on_jax])
@pytest.mark.parametrize("name", CASES)
def test_a_device_does_what_the_definition_says_to_the_bit(name: str, backend) -> None:
    kind = CASES[name]
    images, crops = images_of(kind, 200), augmentation.crops(kind, 200, 3, 5)
    expected = augmentation.apply(images, crops, kind.size)
    np.testing.assert_array_equal(backend(images, crops, kind), expected)


def test_resizing_is_bilinear_to_a_half() -> None:
    kind = CASES["resized_crop"]
    images, crops = images_of(kind, 50), augmentation.crops(kind, 50, 0, 0)
    shown = augmentation.apply(images, crops, kind.size)
    for image, (top, left, height, width, flip), mine in zip(images, crops, shown):
        part = image[top : top + height, left : left + width].transpose(2, 0, 1)
        exact = torch.nn.functional.interpolate(
            torch.from_numpy(part.astype(np.float64))[None], kind.size, mode="bilinear"
        )[0].permute(1, 2, 0)
        exact = exact.flip(1) if flip else exact
        assert np.abs(mine - exact.numpy()).max() <= 0.5 + 255 * 2 ** -(augmentation.BITS - 1)


@pytest.mark.parametrize("backend", [on_torch, on_jax])
def test_an_evaluation_takes_the_centre(backend) -> None:
    kind = CASES["crop_of_larger"]
    images = images_of(kind, 3)
    np.testing.assert_array_equal(backend(images, None, kind), images[:, 2:18, 3:21])
    whole = CASES["crop_flip"]
    images = images_of(whole, 3)
    np.testing.assert_array_equal(backend(images, None, whole), images)


@pytest.mark.parametrize("name", ["crop_flip", "resized_crop"])
def test_a_crop_depends_on_seed_epoch_and_example_alone(name: str) -> None:
    kind = CASES[name]
    crops = augmentation.crops(kind, 10000, 1, 2)
    np.testing.assert_array_equal(augmentation.crops(kind, 5000, 1, 2), crops[:5000])
    for seed, epoch in ((1, 3), (2, 2)):
        other = augmentation.crops(kind, 10000, seed, epoch)
        assert (other != crops).any(axis=1).mean() > 0.95
    assert len(np.unique(crops[:, :2], axis=0)) > 60


@pytest.mark.parametrize(
    ("name", "digest"), [("crop_flip", "1805d385a85c"), ("resized_crop", "b507bae1b85a")]
)
def test_crops_are_what_they_were_when_this_was_written(name: str, digest: str) -> None:
    """Guards archived studies: no library and no machine may draw others."""
    from lockstep import files

    crops = augmentation.crops(CASES[name], 6000, 0, 0)
    assert files.digest(crops.tolist()).startswith(digest)


def test_crops_of_resizing_are_spread_as_torchvisions() -> None:
    kind = Kind(
        name="resized_crop", padding=0, smallest_area=0.08, stored=(256, 256), size=(224, 224)
    )
    crops = augmentation.crops(kind, 8000, 0, 0)
    top, left, height, width, flip = crops.T
    assert (top >= 0).all() and (top + height <= 256).all()
    assert (left >= 0).all() and (left + width <= 256).all()
    ratio = width / height
    assert ratio.min() > 0.73 and ratio.max() < 1.36
    assert flip.mean() == pytest.approx(0.5, abs=0.02)

    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    image = torch.empty(1, 256, 256)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(8000)]
    )
    mine = np.stack([top, left, height, width], axis=1)
    np.testing.assert_allclose(mine.mean(axis=0), theirs.mean(axis=0), atol=3.0)
    np.testing.assert_allclose(mine.std(axis=0), theirs.std(axis=0), rtol=0.05)


def test_random_crops_reach_every_place_equally() -> None:
    crops = augmentation.crops(CASES["crop_flip"], 20000, 0, 0)
    for column in (0, 1):
        places, counts = np.unique(crops[:, column], return_counts=True)
        assert places.tolist() == list(range(-4, 5))
        assert counts.min() > 20000 / 9 * 0.9
    assert (crops[:, 2:4] == 32).all()


@pytest.mark.parametrize(
    ("name", "stored", "taken", "says"),
    [
        ("none", (28, 28, 1), (32, 32, 3), "stored examples are 28×28×1, the model takes 32×32×3"),
        ("crop_flip", (32, 32, 1), (32, 32, 3), "the same channels"),
        ("resized_crop", (64, 64, 3), (224, 224, 3), "as large at least"),
    ],
)
def test_images_that_do_not_fit_are_refused(name, stored, taken, says: str) -> None:
    settings = {"name": name, "padding": 4, "smallest_area": 0.08}
    assert says in (augmentation.problem(settings, stored, taken) or "")
    assert augmentation.problem(settings, (256, 256, 3), (224, 224, 3)) is None
