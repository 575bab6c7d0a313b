"""Labels of every task in batches: masks move with their images, soft labels are mixed."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from keras_effnet.datasets import Masks, Split
from keras_effnet.datasets.labels.masks import encode_mask
from keras_effnet.errors import UserError
from keras_effnet.pipeline import Augmentation, image_pipeline
from keras_effnet.preprocessing import ImageSpec

COUNT, SIZE = 8, 16
SHAPE = (24, 36)


@pytest.fixture(scope="module")
def scenes():
    """Images whose red is 10 times the class of the pixel, in blocks of 4, and the masks."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 20, (COUNT, SHAPE[0] // 4, SHAPE[1] // 4))
    masks = blocks.repeat(4, axis=1).repeat(4, axis=2).astype("uint8")
    images = np.zeros((COUNT, *SHAPE, 3), "uint8")
    images[..., 0] = 10 * masks
    return images, masks


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(params=["arrays", "files", "encoded masks"])
def split(scenes, request, tmp_path):
    images, masks = scenes
    if request.param == "arrays":
        return Split(images, Masks(masks))
    paths = []
    for place, (image, mask) in enumerate(zip(images, masks, strict=True)):
        paths.append((str(tmp_path / f"{place}.png"), str(tmp_path / f"{place}_mask.png")))
        (tmp_path / f"{place}.png").write_bytes(png(image))
        (tmp_path / f"{place}_mask.png").write_bytes(encode_mask(mask))
    files, of_masks = zip(*paths, strict=True)
    return Split(files, Masks(tuple(map(encode_mask, masks)) if request.param == "encoded masks" else of_masks))


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_masks_follow_crop_resize_and_flip(split, cache):
    kept = 0
    augmentation = Augmentation(crop_scale=(0.3, 0.6), erasing=0.0)
    batches = image_pipeline(split, ImageSpec(SIZE), COUNT, training=True, augmentation=augmentation, cache=cache)
    for images, masks in batches:
        assert masks.dtype == "int32" and masks.shape == (COUNT, SIZE, SIZE)
        difference = np.abs(images[..., 0].numpy() - 10.0 * masks.numpy())
        kept = (difference < 1).mean()  # interpolation changes the pixels between two blocks
        shifted = np.abs(images[..., 0].numpy() - 10.0 * np.roll(masks.numpy(), 3, axis=2))
        assert kept > 0.4 and kept > 3 * (shifted < 1).mean()


def test_masks_of_evaluation_are_the_central_square(split, scenes):
    images, masks = next(iter(image_pipeline(split, ImageSpec(SHAPE[0]), COUNT)))
    np.testing.assert_array_equal(masks.numpy(), scenes[1][:, :, 6:30])
    np.testing.assert_array_equal(images[..., 0].numpy(), 10.0 * scenes[1][:, :, 6:30])


def test_ignored_pixels_stay_ignored_and_white_is_a_class():
    masks = np.zeros((2, 8, 8), "uint8")
    masks[:, 2:] = 255
    images = np.zeros((2, 8, 8, 3), "uint8")
    for white, value in ((False, 255), (True, 1)):
        _, found = next(iter(image_pipeline(Split(images, Masks(masks, white=white)), ImageSpec(8), 2)))
        assert set(np.unique(found)) == {0, value}


@pytest.mark.parametrize(
    ("augmentation", "message"),
    [
        (Augmentation(policy="autoaugment"), "policy autoaugment rotates and shears images"),
        (Augmentation(mixup=0.2), "mixup and cutmix mix one label per image"),
        (Augmentation(cutmix=1.0), "mixup and cutmix mix one label per image"),
    ],
)
def test_augmentation_that_masks_cannot_follow_is_refused_in_one_line(scenes, augmentation, message):
    split = Split(scenes[0], Masks(scenes[1]))
    with pytest.raises(UserError, match=message):
        image_pipeline(split, ImageSpec(SIZE), 4, training=True, augmentation=augmentation)


def test_randaugment_of_images_with_masks_moves_no_pixel():
    """Both halves of an image stay flat and where their mask is, whichever operations are drawn."""
    masks = np.zeros((COUNT, SIZE, SIZE), "uint8")
    masks[:, :, SIZE // 2 :] = 1
    split = Split(np.repeat((60 + 120 * masks)[..., None], 3, axis=-1), Masks(masks))
    strong = Augmentation((1.0, 1.0), (1.0, 1.0), flip=False, policy="randaugment", magnitude=10)
    options = {"training": True, "augmentation": strong, "epochs": (1, 4)}
    changed = 0
    for pixels, found in image_pipeline(split, ImageSpec(SIZE), COUNT, **options):
        np.testing.assert_array_equal(found, masks)
        for half in (pixels[:, :, : SIZE // 2 - 2], pixels[:, :, SIZE // 2 + 2 :]):  # sharpness changes the edge
            assert np.ptp(half, axis=(1, 2)).max() == 0
            changed += int(np.count_nonzero(~np.isin(half[:, 0, 0, 0], (60, 180))))
    assert changed


def test_labels_and_values_are_mixed_by_the_shares_of_their_images():
    images = np.zeros((COUNT, 8, 8, 3), "uint8")
    images[::2] = 200
    labels = np.stack([np.arange(COUNT) % 2 == 0, np.ones(COUNT)], axis=1).astype("float32")
    options = {"training": True, "augmentation": Augmentation(mixup=1.0), "classes": 2}
    pixels, mixed = next(iter(image_pipeline(Split(images, labels), ImageSpec(8), COUNT, **options)))
    assert mixed.shape == (COUNT, 2) and mixed.dtype == "float32"
    np.testing.assert_allclose(mixed[:, 1], 1, atol=1e-5)
    np.testing.assert_allclose(mixed[:, 0], pixels[:, 0, 0, 0] / 200, atol=1e-4)
    assert ((mixed[:, 0].numpy() > 0.05) & (mixed[:, 0].numpy() < 0.95)).any()
