"""Calibration images: every kind of source, at the network's size, and implausible ones refused."""

from __future__ import annotations

import logging
import tracemalloc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_effnet.datasets.decoding import read
from keras_effnet.datasets.splits import ImageDataset, Split
from keras_effnet.errors import UserError
from keras_effnet.export.calibration import check_images, load_images, neighbour_correlation, span_input_range
from keras_effnet.pipeline.batches import image_pipeline
from keras_effnet.pipeline.geometry import evaluation_image
from keras_effnet.preprocessing import ImageSpec

SPEC = ImageSpec(32)


# ------------------------------------------------------------------ where they come from


def test_every_kind_of_source_gives_the_same_images(tmp_path, smooth_images):
    pixels = smooth_images(6, 48)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    expected = np.stack([evaluation_image(image, SPEC).numpy() for image in pixels])
    labels = np.zeros(6, "int32")
    files = Split(tuple(str(tmp_path / f"{number}.png") for number in range(6)), labels)
    split = Split(pixels, labels)
    batches = tf.data.Dataset.from_tensor_slices(pixels).batch(4)
    sources = {
        "folder": tmp_path,
        "folder as text": str(tmp_path),
        "array": pixels,
        "batches": batches,
        "labelled batches": tf.data.Dataset.zip((batches, batches)),
        "split": split,
        "split of files": files,
        "dataset": ImageDataset("toy", ("a",), train=split, val=split.select(np.arange(2))),
    }
    for name, source in sources.items():
        got = load_images(source, SPEC, 6)
        assert got.shape == (6, 32, 32, 3) and got.dtype == np.float32, name
        key = [np.argmin([np.abs(image - one).mean() for one in expected]) for image in got]
        assert sorted(key) == list(range(6)), name
        np.testing.assert_allclose(got, expected[key], atol=1e-3, err_msg=name)


def test_images_are_found_in_class_folders(image_folder):
    assert load_images(image_folder({"cat": 3, "dog": 2}), SPEC).shape == (5, 32, 32, 3)


def test_a_sample_is_drawn_seeded_and_spread_over_the_classes(image_folder):
    folder = image_folder({"a": 30, "b": 30, "c": 30})
    first, again = (load_images(folder, SPEC, 24, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(first) == 24 and len(np.unique(first)) == 3
    assert not np.array_equal(first, load_images(folder, SPEC, 24, seed=2))


def test_images_are_prepared_exactly_as_evaluation_prepares_them(digits):
    # also where an image happens to have the network's size already
    for spec in (ImageSpec(32, crop=0.75), ImageSpec(8, crop=0.5)):
        split = digits.val.select(np.arange(6))
        (expected, _) = next(image_pipeline(split, spec, 6).as_numpy_iterator())
        np.testing.assert_allclose(load_images(split, spec, 6), expected, atol=1e-3)


def test_a_corrupt_file_among_calibration_images_is_skipped_with_a_warning(image_folder, caplog):
    folder = image_folder({"cat": 3, "dog": 3})
    (folder / "cat" / "broken.jpg").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "keras_effnet"):
        assert len(load_images(folder, SPEC)) == 6
    assert "broken.jpg" in caplog.text


@pytest.mark.parametrize("split", [False, True])
def test_one_original_image_is_held_at_a_time(image_folder, monkeypatch, split):
    held: list[weakref.ref] = []
    folder = image_folder({"cat": 6})

    def reading(path):
        assert sum(each() is not None for each in held) <= 1
        held.append(weakref.ref(image := np.array(read(path))))
        return image

    for module in ("export.calibration", "datasets.splits"):
        monkeypatch.setattr(f"keras_effnet.{module}.read", reading)
    source = Split(tuple(map(str, sorted(folder.rglob("*.png")))), np.zeros(6, "int32")) if split else folder
    assert len(load_images(source, SPEC, 5)) == len(held) == 5


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone/", "Calibration folder gone/ does not exist"),
        (np.zeros((0, 32, 32, 3)), "the source is empty"),
        (np.zeros((32, 32, 3)), r"must have shape \(height, width, 3\), got \[\(32, 3\)\]"),
        (np.zeros((5, 32, 32)), r"must have shape \(height, width, 3\), got \[\(32, 32\)\]"),
        (np.zeros((5, 32, 32, 1)), r"must have shape \(height, width, 3\), got \[\(32, 32, 1\)\]"),
        (np.zeros((5, 40, 40, 4)), r"must have shape \(height, width, 3\), got \[\(40, 40, 4\)\]"),
    ],
    ids=["missing", "empty", "one image", "no channels", "one channel", "alpha"],
)
def test_what_holds_no_images_is_refused(source, message):
    with pytest.raises(UserError, match=message):
        load_images(source, SPEC)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="contains no images to calibrate on"):
        load_images(tmp_path, SPEC)


# ------------------------------------------------------------------ what cannot be right


def test_photograph_like_images_and_digits_pass(smooth_images, digits):
    check_images(smooth_images(20, 32).astype("float32"))
    check_images(load_images(digits.train, SPEC, 50))


def noise(low: float, high: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(low, high, (20, 32, 32, 3)).astype("float32")


def test_noise_is_refused():
    with pytest.raises(UserError, match="look like noise"):
        check_images(noise(0, 255))


@pytest.mark.parametrize("value", [0, 128])
def test_constant_images_are_refused(value):
    with pytest.raises(UserError, match=f"Every calibration pixel is {value}: these are not images"):
        check_images(np.full((20, 32, 32, 3), value, "float32"))


def test_pixels_scaled_to_0_1_are_refused_with_the_cure(smooth_images):
    with pytest.raises(UserError, match=r"give 0\.\.255, not 0\.\.1 \(multiply by 255\)"):
        check_images(smooth_images(20, 32) / np.float32(255))


@pytest.mark.parametrize(("scale", "offset"), [(1 / 127.5, -1), (1, -120), (3, 0)])
def test_normalised_pixels_are_refused_with_the_range_that_is_wanted(smooth_images, scale, offset):
    with pytest.raises(UserError, match=r"the network normalises itself and takes 0\.\.255"):
        check_images(smooth_images(20, 32) * np.float32(scale) + offset)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_refused(smooth_images, value):
    images = smooth_images(20, 32).astype("float32")
    images[3, 4, 5, 0] = value
    with pytest.raises(UserError, match="contain NaN or infinite values"):
        check_images(images)


def test_images_of_one_column_are_refused():
    with pytest.raises(UserError, match=r"1 pixel wide, .*: use a precision that needs no calibration"):
        check_images(np.random.default_rng(0).uniform(0, 255, (20, 8, 1, 3)))


def test_correlation_of_neighbours_tells_images_from_noise(smooth_images):
    assert neighbour_correlation(smooth_images(20, 32)) > 0.9
    assert abs(neighbour_correlation(noise(0, 255))) < 0.05


def test_correlation_is_that_of_numpy_with_the_memory_of_one_image(smooth_images):
    images = np.concatenate([smooth_images(20, 32).astype("float32"), noise(0, 255)[:20]])
    expected = np.corrcoef(images[:, :, :-1].ravel(), images[:, :, 1:].ravel())[0, 1]
    tracemalloc.start()
    found = neighbour_correlation(images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == pytest.approx(expected, rel=1e-6)
    assert peak < images.nbytes / 2


def test_an_array_at_the_network_size_is_not_copied(smooth_images):
    images = smooth_images(6, 32).astype("float32")
    assert np.shares_memory(load_images(images, SPEC, 4), images)


@pytest.mark.images
def test_real_photographs_pass_at_a_network_size(images_root):
    images = load_images(images_root / "imagenet-sample-300", ImageSpec(224, crop=0.875), 20)
    check_images(images)
    assert neighbour_correlation(images) > 0.9


def test_spanning_the_input_range_changes_two_pixels_of_a_copy(smooth_images):
    images = smooth_images(4, 32).astype("float32") * 0.5 + 20
    before = images.copy()
    spanned = span_input_range(images)
    np.testing.assert_array_equal(images, before)
    assert (spanned.min(axis=(1, 2, 3)) == 0).all() and (spanned.max(axis=(1, 2, 3)) == 255).all()
    assert (spanned != images).any(axis=-1).sum() == 2 * 4


def test_a_pipeline_serves_as_calibration_too(digits):
    images = load_images(image_pipeline(digits.val, SPEC, 16), SPEC, 40)
    assert images.shape == (40, 32, 32, 3)
    expected = keras.ops.image.resize(digits.val.images[:40].astype("float32"), (32, 32), antialias=False)
    np.testing.assert_allclose(images, expected, atol=1e-3)
