"""From a split to batches: the right pixels, the right labels, the same every time for the same seed."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from PIL import Image

from keras_effnet.datasets import ImageDataset, Split, load
from keras_effnet.errors import UserError
from keras_effnet.pipeline import Augmentation, evaluation_image, image_pipeline, resize
from keras_effnet.preprocessing import ImageSpec

SPEC = ImageSpec(32)
WHOLE = Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False)


def canvas_resize(image: np.ndarray, size: int) -> np.ndarray:
    """Bilinear interpolation between the centres of pixels, edges repeated: what a browser's drawImage computes."""

    def weights(length: int) -> np.ndarray:
        matrix = np.zeros((size, length))
        for target in range(size):
            position = min(max((target + 0.5) * length / size - 0.5, 0), length - 1)
            low = int(np.floor(position))
            high = min(low + 1, length - 1)
            matrix[target, low] += 1 - (position - low)
            matrix[target, high] += position - low
        return matrix

    rows, columns = weights(image.shape[0]), weights(image.shape[1])
    return np.einsum("ih,hwc,jw->ijc", rows, image.astype("float64"), columns)


def keys_resize(image: np.ndarray, size: int) -> np.ndarray:
    """Cubic convolution between the centres of pixels, weights beyond the edges dropped, cut to 0..255.

    Source: Keys, Cubic convolution interpolation for digital image processing (1981), eq. 15, a = -1/2.
    """

    def kernel(x):
        x = np.abs(x)
        return np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))

    def weights(length: int) -> np.ndarray:
        positions = (np.arange(size)[:, None] + 0.5) * length / size - 0.5
        matrix = kernel(positions - np.arange(length))
        return matrix / matrix.sum(axis=1, keepdims=True)

    rows, columns = weights(image.shape[0]), weights(image.shape[1])
    return np.clip(np.einsum("ih,hwc,jw->ijc", rows, image.astype("float64"), columns), 0, 255)


def collect(data) -> tuple[np.ndarray, np.ndarray]:
    batches = list(data.as_numpy_iterator())
    return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])


def greys(count: int, size: int = 40) -> Split:
    """Pictures of one grey each, which is ten times the label."""
    labels = np.arange(count, dtype="int32")
    return Split(np.broadcast_to((10 * labels)[:, None, None, None], (count, size, size, 3)).astype("uint8"), labels)


@pytest.fixture
def file_split(tmp_path):
    """Function that writes smooth pictures of several sizes to files of a format."""

    def write(suffix: str, count: int = 12) -> Split:
        rng = np.random.default_rng(0)
        paths = []
        for number in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3)).astype("uint8"))
            path = tmp_path / f"{number}{suffix}"
            coarse.resize((50 + 3 * number, 80 - 2 * number), Image.Resampling.BICUBIC).save(path)
            paths.append(str(path))
        return Split(tuple(paths), np.arange(count, dtype="int32"))

    return write


# ------------------------------------------------------------------ evaluation


@pytest.mark.parametrize("shape", [(40, 40), (23, 57), (130, 101), (32, 32), (7, 9)])
def test_evaluation_resizes_as_a_browsers_canvas_does(shape):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3)).astype("uint8")
    side = min(shape)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    expected = canvas_resize(image[top : top + side, left : left + side], 32)
    np.testing.assert_allclose(evaluation_image(image, SPEC), expected, atol=1e-3)


def test_resize_without_a_crop_stretches_as_a_canvas_does():
    image = np.random.default_rng(1).integers(0, 256, (61, 45, 3)).astype("uint8")
    np.testing.assert_allclose(resize(image, 24), canvas_resize(image, 24), atol=1e-3)


@pytest.mark.parametrize("shape", [(40, 40), (23, 57), (130, 101), (7, 9)])
def test_bicubic_resizes_by_cubic_convolution_and_stays_within_0_to_255(shape):
    # Black and white pixels overshoot most; TensorFlow's kernel is a table of 1024 steps.
    image = (255 * np.random.default_rng(0).integers(0, 2, (*shape, 3))).astype("uint8")
    resized = resize(image, 24, "bicubic").numpy()
    assert resized.min() == 0 and resized.max() == 255
    np.testing.assert_allclose(resized, keys_resize(image, 24), atol=1.5)
    assert np.abs(resized - resize(image, 24)).max() > 20


@pytest.mark.parametrize("training", [False, True])
def test_the_contract_says_how_pictures_are_resized(training):
    image = np.random.default_rng(2).integers(0, 256, (1, 48, 48, 3)).astype("uint8")
    split = Split(image, np.zeros(1, "int32"))
    images, _ = collect(
        image_pipeline(split, ImageSpec(32, interpolation="bicubic"), 1, training=training, augmentation=WHOLE)
    )
    np.testing.assert_allclose(images[0], resize(image[0], 32, "bicubic"), atol=1e-3)


def test_the_central_square_of_the_shorter_side_is_kept():
    image = np.zeros((60, 100, 3), "uint8")
    image[15:45, 35:65] = 200  # half of the shorter side, in the middle
    inside = evaluation_image(image, ImageSpec(32, crop=0.5)).numpy()
    assert (inside == 200).all()
    whole = evaluation_image(image, SPEC).numpy()
    assert whole[0, 0, 0] == 0 and whole[16, 16, 0] == 200
    assert 0.2 < (whole[..., 0] > 100).mean() < 0.3  # a quarter of the area


def test_evaluation_keeps_order_and_the_last_small_batch():
    data = image_pipeline(greys(10), SPEC, 4)
    assert [len(labels) for _, labels in data.as_numpy_iterator()] == [4, 4, 2]
    images, labels = collect(data)
    assert labels.tolist() == list(range(10))
    np.testing.assert_allclose(images, np.broadcast_to(10.0 * labels[:, None, None, None], images.shape))


def test_evaluation_of_files_equals_evaluation_of_their_pixels(file_split):
    split = file_split(".png")
    images, labels = collect(image_pipeline(split, ImageSpec(32, crop=0.8), 5))
    for image, label in zip(images, labels, strict=True):
        pixels = np.asarray(Image.open(split.images[label]).convert("RGB"))
        np.testing.assert_allclose(image, evaluation_image(pixels, ImageSpec(32, crop=0.8)), atol=1e-3)


# ------------------------------------------------------------------ training


def test_training_batches_are_float_pictures_in_0_to_255_of_the_networks_size(digits):
    images, labels = next(image_pipeline(digits, SPEC, 16, training=True).as_numpy_iterator())
    assert images.shape == (16, 32, 32, 3) and images.dtype == np.float32
    assert labels.shape == (16,) and labels.dtype == np.int32
    assert images.min() >= 0 and images.max() <= 255 and images.max() > 200


def test_training_takes_train_and_evaluation_takes_val():
    dataset = ImageDataset("toy", ("a", "b"), train=greys(8), val=greys(3))
    assert len(collect(image_pipeline(dataset, SPEC, 2, training=True))[1]) == 8
    assert len(collect(image_pipeline(dataset, SPEC, 2))[1]) == 3


def test_training_drops_the_last_small_batch_and_knows_its_length():
    data = image_pipeline(greys(10), SPEC, 4, training=True)
    assert int(data.cardinality()) == 2
    assert [len(labels) for _, labels in data.as_numpy_iterator()] == [4, 4]


def test_labels_stay_with_their_pictures_through_shuffle_and_crop():
    images, labels = collect(image_pipeline(greys(20), SPEC, 5, training=True))
    assert sorted(labels) == list(range(20)) and labels.tolist() != list(range(20))
    np.testing.assert_allclose(images, np.broadcast_to(10.0 * labels[:, None, None, None], images.shape), atol=1e-3)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("cache", [False, True])
def test_labels_stay_with_their_files(picture_folder, suffix, cache):
    dataset = load(picture_folder({"a": 8, "b": 8, "c": 8}, suffix=suffix))
    images, labels = collect(image_pipeline(dataset, SPEC, 3, training=True, cache=cache))
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), 20 + 40 * labels, atol=1.5)


def test_the_same_seed_gives_the_same_batches(digits):
    first, again = (collect(image_pipeline(digits.val, SPEC, 16, training=True, seed=3)) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


def test_the_same_seeds_give_the_same_batches_whatever_was_drawn_before(digits):
    keras.utils.set_random_seed(1234)
    first = collect(image_pipeline(digits.val, SPEC, 16, training=True, seed=3))
    keras.utils.set_random_seed(99)
    keras.utils.set_random_seed(1234)
    again = collect(image_pipeline(digits.val, SPEC, 16, training=True, seed=3))
    np.testing.assert_array_equal(first[1], again[1])
    np.testing.assert_array_equal(first[0], again[0])


def test_another_seed_gives_other_batches(digits):
    first = collect(image_pipeline(digits.val, SPEC, 16, training=True, seed=3))
    other = collect(image_pipeline(digits.val, SPEC, 16, training=True, seed=4))
    assert first[1].tolist() != other[1].tolist()


def test_each_epoch_shuffles_and_crops_anew():
    image = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3)).astype("uint8")
    one_picture = Split(np.repeat(image, 8, axis=0), np.arange(8))
    data = image_pipeline(one_picture, SPEC, 8, training=True)
    (first, first_labels), (second, second_labels) = collect(data), collect(data)
    assert first_labels.tolist() != second_labels.tolist()
    crops = {picture.tobytes() for picture in (*first, *second)}
    assert len(crops) == 16  # the same picture, never the same crop


def test_cached_pngs_give_exactly_the_same_batches(file_split):
    split = file_split(".png")
    cached, fresh = (collect(image_pipeline(split, SPEC, 4, training=True, cache=cache)) for cache in (True, False))
    np.testing.assert_array_equal(cached[1], fresh[1])
    np.testing.assert_array_equal(cached[0], fresh[0])


def test_cropping_while_decoding_a_jpeg_gives_the_same_batches_within_a_few_grey_levels(file_split):
    split = file_split(".jpg")
    cached, fresh = (collect(image_pipeline(split, SPEC, 4, training=True, cache=cache)) for cache in (True, False))
    np.testing.assert_array_equal(cached[1], fresh[1])
    assert np.abs(cached[0] - fresh[0]).max() <= 6


def test_a_flip_mirrors_about_half_of_the_pictures_and_does_nothing_else():
    ramp = np.broadcast_to(np.arange(32, dtype="uint8")[None, None, :, None] * 8, (64, 32, 32, 3))
    augmentation = Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=True)
    split = Split(ramp.copy(), np.zeros(64, "int32"))
    images, _ = collect(image_pipeline(split, SPEC, 64, training=True, augmentation=augmentation))
    plain = [np.array_equal(image, ramp[0]) for image in images]
    mirrored = [np.array_equal(image, ramp[0][:, ::-1]) for image in images]
    assert sum(plain) + sum(mirrored) == 64
    assert 16 <= sum(mirrored) <= 48


@pytest.mark.parametrize(("mirror", "expected"), [(False, {"left"}), (True, {"left", "right"})])
def test_pictures_are_mirrored_only_where_the_dataset_allows_it(mirror, expected):
    dark_left = np.zeros((64, 32, 32, 3), "uint8")
    dark_left[:, :, 16:] = 255
    images, _ = collect(image_pipeline(Split(dark_left, np.zeros(64, "int32"), mirror), SPEC, 64, training=True))
    steps = images[..., -1, 0].mean(axis=1) - images[..., 0, 0].mean(axis=1)
    sides = {"left" if step > 0 else "right" for step in steps if step}
    assert sides == expected


def test_a_crop_keeps_the_share_of_the_area_that_was_asked_for():
    # A picture whose values are its coordinates shows how much of it a crop holds.
    rows, columns = np.mgrid[0:200, 0:200]
    coordinates = np.stack([rows, columns, rows], axis=-1).astype("uint8")
    split = Split(np.repeat(coordinates[None], 32, axis=0), np.zeros(32, "int32"))
    augmentation = Augmentation(crop_scale=(0.25, 0.5), flip=False)
    images, _ = collect(image_pipeline(split, ImageSpec(64), 32, training=True, augmentation=augmentation))
    height = (images[:, -1, 0, 0] - images[:, 0, 0, 0]) * 64 / 63 / 200
    width = (images[:, 0, -1, 1] - images[:, 0, 0, 1]) * 64 / 63 / 200
    assert (height * width >= 0.23).all() and (height * width <= 0.52).all()
    assert (width / height >= 0.70).all() and (width / height <= 1.40).all()
    assert np.std(height * width) > 0.03


def test_without_crop_and_flip_training_sees_what_evaluation_sees():
    image = np.random.default_rng(0).integers(0, 256, (1, 48, 48, 3)).astype("uint8")
    split = Split(image, np.zeros(1, "int32"))
    trained, _ = collect(image_pipeline(split, SPEC, 1, training=True, augmentation=WHOLE))
    evaluated, _ = collect(image_pipeline(split, SPEC, 1))
    np.testing.assert_allclose(trained, evaluated, atol=1e-3)


# ------------------------------------------------------------------ errors


def test_fewer_pictures_than_a_batch_is_an_error_in_training_only():
    with pytest.raises(UserError, match="7 training pictures do not fill a batch of 8; lower the batch size"):
        image_pipeline(greys(7), SPEC, 8, training=True)
    assert len(collect(image_pipeline(greys(7), SPEC, 8))[1]) == 7


def test_anything_but_a_dataset_is_refused_by_its_type():
    with pytest.raises(UserError, match=r"takes what datasets\.load returns, or a Split of it; got ndarray"):
        image_pipeline(np.zeros((4, 8, 8, 3)), SPEC, 2)


@pytest.mark.pictures
def test_real_jpegs_are_cropped_alike_with_and_without_the_cache(pictures_root):
    files = sorted((pictures_root / "imagenet-sample-300").glob("*.JPEG"))[:16]
    split = Split(tuple(map(str, files)), np.arange(16, dtype="int32"))
    cached, fresh = (
        collect(image_pipeline(split, ImageSpec(96), 8, training=True, cache=cache)) for cache in (True, False)
    )
    assert np.abs(cached[0] - fresh[0]).mean() < 0.5
