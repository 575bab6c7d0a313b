"""Crop windows: their aspect ratio and where they lie; antialiasing of large images, decoded at any scale."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_effnet.datasets.decoding import decode_window
from keras_effnet.datasets.splits import Split
from keras_effnet.pipeline.augmentation import Augmentation
from keras_effnet.pipeline.batches import image_pipeline
from keras_effnet.pipeline.geometry import crop_window, resize, resize_window
from keras_effnet.preprocessing import ImageSpec

SHAPE = (400, 400, 3)
HIGHEST = np.nextafter(np.float32(1), np.float32(0))


def box(*draws: float, **augmentation) -> list[int]:
    """Top, left, height and width for draws of area, aspect ratio, vertical and horizontal place."""
    return crop_window(SHAPE, np.array(draws, "float32"), Augmentation(**augmentation)).numpy().tolist()


def test_the_aspect_ratio_is_width_over_height():
    _, _, height, width = box(0, 0, 0, 0, crop_scale=(0.125, 0.125), crop_ratio=(2.0, 2.0))
    assert (height, width) == (100, 200)


@pytest.mark.parametrize(("place", "begin"), [(0, 0), (0.5, 100), (HIGHEST, 200)])
def test_a_window_lies_anywhere_up_to_the_far_edge(place, begin):
    ratio = {"crop_scale": (0.25, 0.25), "crop_ratio": (1.0, 1.0)}
    assert box(0, 0, place, 0, **ratio) == [begin, 0, 200, 200]
    assert box(0, 0, 0, place, **ratio) == [0, begin, 200, 200]


def test_every_place_is_equally_likely():
    """399 of 400 pixels have two places, each of which half of the draws choose."""
    area = (399 / 400) ** 2
    places = [box(0, 0, draw, 0, crop_scale=(area, area), crop_ratio=(1.0, 1.0))[0] for draw in (0.1, 0.4, 0.6, 0.9)]
    assert places == [0, 0, 1, 1]


# --- windows decoded at a smaller scale


def differences(contents: bytes, window: list[int], size: int, interpolation: str = "bilinear") -> np.ndarray:
    """Absolute differences in grey levels from full decoding and antialiased resizing, as in Pillow."""
    top, left, height, width = window
    scaled = decode_window(contents, lambda _: tf.constant(window), size)
    assert scaled.scale > 1
    with Image.open(io.BytesIO(contents)) as image:
        part = image.convert("RGB").crop((left, top, left + width, top + height))
    expected = part.resize((size, size), getattr(Image.Resampling, interpolation.upper()))
    return np.abs(resize_window(scaled, size, interpolation).numpy() - np.asarray(expected, "float32"))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_scaled_window_is_resized_as_if_it_had_been_decoded_fully(interpolation):
    rng, buffer = np.random.default_rng(0), io.BytesIO()
    coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3)).astype("uint8"))
    coarse.resize((403, 301), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95, subsampling=0)
    for size in (12, 25, 50):
        found = differences(buffer.getvalue(), [5, 51, 277, 331], size, interpolation)
        assert found.mean() < 1.5 and found.max() < 20


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_images_reduced_to_a_quarter_or_less_are_antialiased_as_in_pillow(interpolation):
    image = np.random.default_rng(0).integers(0, 256, (128, 131, 3)).astype("uint8")
    filtered = Image.fromarray(image).resize((32, 32), getattr(Image.Resampling, interpolation.upper()))
    assert np.abs(resize(image, 32, interpolation) - np.asarray(filtered, "float32")).max() < 2
    for plain in (image[1:], image[:, 4:]):  # one side is reduced less; 127 x 131 and 128 x 127
        expected = tf.image.resize(plain, (32, 32), interpolation, antialias=False)
        np.testing.assert_array_equal(resize(plain, 32, interpolation), np.clip(expected, 0, 255))


def test_training_and_evaluation_see_a_large_photo_alike(tmp_path):
    """Decoded at a smaller scale or fully, cached, and as an array: networks depend on how images are filtered."""
    rng = np.random.default_rng(0)
    noisy = rng.integers(0, 256, (400, 400, 3)).astype("uint8")
    Image.fromarray(noisy).save(tmp_path / "photo.jpg", quality=95, subsampling=0)
    spec, whole = ImageSpec(24), Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False)
    files, label = Split((str(tmp_path / "photo.jpg"),), np.zeros(1, "int32")), np.zeros(1, "int32")
    seen = [
        next(iter(image_pipeline(split, spec, 1, training=training, augmentation=whole, cache=cache)))[0].numpy()
        for split, training, cache in (
            (files, False, False),
            (files, True, False),
            (files, True, True),
            (Split(noisy[None], label), True, False),
        )
    ]
    # Without a filter, noise of 74 levels keeps two thirds of its amplitude.
    assert seen[0].std() < 15
    for other in seen[1:]:
        assert np.abs(other - seen[0]).mean() < 2


@pytest.mark.images
def test_real_images_scaled_while_decoding_are_close_to_antialiased_ones(images_root):
    """Antialiasing itself changes them by 6 to 12 grey levels on average."""
    for size in (24, 48, 80):
        means, tails = [], []
        for path in sorted((images_root / "imagenet-sample-300").glob("*.JPEG"))[:40]:
            with Image.open(path) as image:
                width, height = image.size
            if min(width, height) - 12 >= 4 * size:
                found = differences(path.read_bytes(), [5, 7, height - 12, width - 12], size)
                means.append(found.mean())
                tails.append(np.percentile(found, 99))
        assert len(means) > 10
        assert np.mean(means) < 1.5 and np.max(means) < 3 and np.mean(tails) < 6


@pytest.mark.parametrize(("side", "size"), [(500, 96), (333, 50)])
def test_white_stays_white_when_it_is_filtered(side, size):
    white = np.full((side, side, 3), 255, "uint8")
    assert resize(white, size).numpy().max() == 255  # 255.0001 is refused as a pixel by calibration
