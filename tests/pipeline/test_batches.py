"""Batches from a split: pixels, labels, and reproducibility by seed."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_effnet.config.train_config import TrainConfig
from keras_effnet.datasets.decoding import decode, decode_window
from keras_effnet.datasets.loading import load
from keras_effnet.datasets.splits import Encoded, ImageDataset, Split
from keras_effnet.errors import UserError
from keras_effnet.pipeline.augmentation import Augmentation
from keras_effnet.pipeline.batches import image_pipeline
from keras_effnet.pipeline.geometry import evaluation_image, resize
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.training.checkpoints import read_rows
from keras_effnet.training.run import train_dataset

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
    """Images of one grey each, which is ten times the label."""
    labels = np.arange(count, dtype="int32")
    return Split(np.broadcast_to((10 * labels)[:, None, None, None], (count, size, size, 3)).astype("uint8"), labels)


@pytest.fixture
def file_split(tmp_path):
    """Function that writes smooth images of several sizes to files of a format."""

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


def test_images_that_have_the_size_already_become_floats_too():
    image = np.random.default_rng(1).integers(0, 256, (24, 24, 3)).astype("uint8")
    resized = resize(image, 24)
    assert resized.dtype == tf.float32
    np.testing.assert_array_equal(resized, image)


@pytest.mark.parametrize("shape", [(40, 40), (23, 57), (130, 101), (7, 9)])
def test_bicubic_resizes_by_cubic_convolution_and_stays_within_0_to_255(shape):
    # Black and white pixels overshoot most; TensorFlow's kernel is a table of 1032 steps.
    image = (255 * np.random.default_rng(0).integers(0, 2, (*shape, 3))).astype("uint8")
    resized = resize(image, 32, "bicubic").numpy()
    assert resized.min() == 0 and resized.max() == 255
    np.testing.assert_allclose(resized, keys_resize(image, 32), atol=1.5)
    assert np.abs(resized - resize(image, 32)).max() > 20


@pytest.mark.parametrize("training", [False, True])
def test_the_contract_says_how_images_are_resized(training):
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


def test_training_batches_are_float_images_in_0_to_255_of_the_networks_size(digits):
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


def test_labels_stay_with_their_images_through_shuffle_and_crop():
    images, labels = collect(image_pipeline(greys(20), SPEC, 5, training=True))
    assert sorted(labels) == list(range(20)) and labels.tolist() != list(range(20))
    np.testing.assert_allclose(images, np.broadcast_to(10.0 * labels[:, None, None, None], images.shape), atol=1e-3)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("cache", [False, True])
def test_labels_stay_with_their_files(image_folder, suffix, cache):
    dataset = load(image_folder({"a": 8, "b": 8, "c": 8}, suffix=suffix))
    images, labels = collect(image_pipeline(dataset, SPEC, 3, training=True, cache=cache))
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), 20 + 40 * labels, atol=1.5)


@pytest.mark.parametrize("training", [False, True])
def test_no_iteration_waits_for_autotuning_to_end(training):
    assert image_pipeline(greys(8), SPEC, 4, training=training).options().autotune.enabled is False


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
    one_image = Split(np.repeat(image, 8, axis=0), np.arange(8))
    data = image_pipeline(one_image, SPEC, 8, training=True)
    (first, first_labels), (second, second_labels) = collect(data), collect(data)
    assert first_labels.tolist() != second_labels.tolist()
    crops = {image.tobytes() for image in (*first, *second)}
    assert len(crops) == 16  # the same image, never the same crop


def test_cached_pngs_give_exactly_the_same_batches(file_split):
    split = file_split(".png")
    cached, fresh = (collect(image_pipeline(split, SPEC, 4, training=True, cache=cache)) for cache in (True, False))
    np.testing.assert_array_equal(cached[1], fresh[1])
    np.testing.assert_array_equal(cached[0], fresh[0])


def test_a_window_decoded_out_of_a_jpeg_differs_from_a_crop_in_its_outermost_columns_alone(file_split):
    # There libjpeg has no neighbour from which to interpolate the colour of half the resolution. Rows have theirs.
    rng = np.random.default_rng(0)
    for path in file_split(".jpg").images:
        contents = Path(path).read_bytes()
        whole = decode(contents).numpy().astype(int)
        for _ in range(20):
            height, width = (int(rng.integers(10, side + 1)) for side in whole.shape[:2])
            top, left = int(rng.integers(whole.shape[0] - height + 1)), int(rng.integers(whole.shape[1] - width + 1))
            window = decode_window(contents, lambda shape, box=(top, left, height, width): tf.constant(box)).pixels
            difference = np.abs(window.numpy() - whole[top : top + height, left : left + width])
            assert difference[:, 1:-1].max() == 0
            assert difference.max() <= 30  # colour alone, half of what two neighbours differ by


def test_cropping_while_decoding_a_jpeg_gives_the_same_batches_but_for_the_left_and_right_edges(file_split):
    split = file_split(".jpg")
    cached, fresh = (collect(image_pipeline(split, SPEC, 4, training=True, cache=cache)) for cache in (True, False))
    np.testing.assert_array_equal(cached[1], fresh[1])
    # Two columns on each side are interpolated from the outermost ones of the window.
    np.testing.assert_allclose(fresh[0][:, :, 2:-2], cached[0][:, :, 2:-2], atol=1e-3)
    assert np.abs(cached[0] - fresh[0]).mean() < 0.5


def test_a_flip_mirrors_about_half_of_the_images_and_does_nothing_else():
    ramp = np.broadcast_to(np.arange(32, dtype="uint8")[None, None, :, None] * 8, (64, 32, 32, 3))
    augmentation = Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=True)
    split = Split(ramp.copy(), np.zeros(64, "int32"))
    images, _ = collect(image_pipeline(split, SPEC, 64, training=True, augmentation=augmentation))
    plain = [np.array_equal(image, ramp[0]) for image in images]
    mirrored = [np.array_equal(image, ramp[0][:, ::-1]) for image in images]
    assert sum(plain) + sum(mirrored) == 64
    assert 16 <= sum(mirrored) <= 48


@pytest.mark.parametrize(("mirror", "expected"), [(False, {"left"}), (True, {"left", "right"})])
def test_images_are_mirrored_only_where_the_dataset_allows_it(mirror, expected):
    dark_left = np.zeros((64, 32, 32, 3), "uint8")
    dark_left[:, :, 16:] = 255
    images, _ = collect(image_pipeline(Split(dark_left, np.zeros(64, "int32"), mirror), SPEC, 64, training=True))
    steps = images[..., -1, 0].mean(axis=1) - images[..., 0, 0].mean(axis=1)
    sides = {"left" if step > 0 else "right" for step in steps if step}
    assert sides == expected


def test_a_crop_keeps_the_share_of_the_area_that_was_asked_for():
    # An image whose values are its coordinates shows how much of it a crop holds.
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


# ------------------------------------------------------------------ epochs

MIXED = Augmentation(policy="randaugment", mixup=0.2, cutmix=1.0)


def epochs_of(data, epochs: tuple[int, int], **options) -> list[tuple[np.ndarray, np.ndarray]]:
    options = {"training": True, "augmentation": MIXED, "classes": 12, "seed": 5} | options
    return list(image_pipeline(data, SPEC, 4, epochs=epochs, **options).as_numpy_iterator())


def assert_same_batches(first, second) -> None:
    assert len(first) == len(second)
    for (images, labels), (others, other_labels) in zip(first, second, strict=True):
        np.testing.assert_array_equal(labels, other_labels)
        np.testing.assert_array_equal(images, others)


def test_epochs_are_the_same_batches_wherever_a_training_goes_on(smooth_images):
    split = Split(smooth_images(14, 40), np.arange(14, dtype="int32") % 12)
    whole = epochs_of(split, (0, 4))
    assert len(whole) == 12
    assert_same_batches(whole, epochs_of(split, (0, 2)) + epochs_of(split, (2, 4)))
    assert_same_batches(whole[6:9], epochs_of(split, (2, 3)))


def test_epochs_depend_on_their_number_and_the_seed_and_on_no_other_seed(smooth_images):
    split = Split(smooth_images(12, 40), np.arange(12, dtype="int32"))
    tf.random.set_seed(0)
    expected = epochs_of(split, (0, 2))
    for seed in (1, None):
        tf.random.set_seed(seed)
        assert_same_batches(epochs_of(split, (0, 2)), expected)
    assert any((a[0] != b[0]).any() for a, b in zip(expected[:3], expected[3:], strict=True))
    other = epochs_of(split, (0, 2), seed=6)
    assert all((a[0] != b[0]).any() for a, b in zip(other, expected, strict=True))


def test_neighbouring_epochs_and_seeds_share_no_order():
    orders = set()
    for seed in range(4):
        plain = epochs_of(greys(12), (0, 4), seed=seed, classes=None, augmentation=WHOLE)
        for start in range(0, 12, 3):
            orders.add(tuple(np.concatenate([labels for _, labels in plain[start : start + 3]]).tolist()))
    assert len(orders) == 16


def test_every_epoch_has_every_image_once():
    batches = epochs_of(greys(12), (3, 6), classes=None, augmentation=WHOLE)
    for start in range(0, 9, 3):
        images, labels = (np.concatenate(parts) for parts in zip(*batches[start : start + 3], strict=True))
        assert sorted(labels.tolist()) == list(range(12))
        np.testing.assert_allclose(images[:, 0, 0, 0], 10 * labels)


def test_mixed_labels_are_shares_of_one_image(smooth_images):
    split = Split(smooth_images(12, 40), np.arange(12, dtype="int32"))
    labels = np.concatenate([labels for _, labels in epochs_of(split, (0, 4))])
    assert labels.shape == (48, 12) and labels.dtype == np.float32
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)
    assert ((labels > 0.01) & (labels < 0.99)).any()
    plain = np.concatenate([labels for _, labels in epochs_of(split, (0, 1), augmentation=WHOLE)])
    assert sorted(plain.argmax(axis=1).tolist()) == list(range(12)) and set(plain.ravel().tolist()) == {0.0, 1.0}


# ------------------------------------------------------------------ a tf.data service


@pytest.fixture
def service():
    """Function that starts a tf.data service of some workers in this process; returns its address."""
    alive = []

    def start(workers: int) -> str:
        dispatcher = tf.data.experimental.service.DispatchServer()
        address = dispatcher.target.split("://")[1]
        config = tf.data.experimental.service.WorkerConfig(dispatcher_address=address, heartbeat_interval_ms=100)
        alive.extend([*(tf.data.experimental.service.WorkerServer(config) for _ in range(workers)), dispatcher])
        return dispatcher.target

    yield start
    for server in alive:
        server.stop()
        # Never freed: the destructor of TensorFlow's worker once waited for its own heartbeat for ever.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(server))


def encoded_greys(count: int) -> Split:
    contents = [tf.io.encode_png(image).numpy() for image in greys(count).images]
    return Split(Encoded(lambda: tf.data.Dataset.from_tensor_slices(contents), count), greys(count).labels)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_service_deals_every_image_out_once_with_its_label(service, workers):
    data = image_pipeline(greys(24), SPEC, 4, training=True, augmentation=WHOLE, service=service(workers))
    images, labels = collect(data)
    assert len(set(labels.tolist())) == len(labels)
    # Each of two workers drops what fills no batch of four: together nothing or four images.
    assert len(labels) in ({24} if workers == 1 else {20, 24})
    np.testing.assert_allclose(images[:, 0, 0, 0], 10 * labels)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("split", [greys(24), encoded_greys(24)], ids=["pixels", "stream"])
def test_epochs_of_a_service_have_their_length_and_differ(service, workers, split):
    keras.utils.set_random_seed(0)  # which a service would begin every job with
    data = image_pipeline(split, SPEC, 4, training=True, service=service(workers), epochs=(1, 4))
    assert int(data.cardinality()) == 18
    batches = list(data.as_numpy_iterator())
    assert len(batches) == 18
    for images, labels in batches:
        np.testing.assert_allclose(images[:, 0, 0, 0], 10 * labels, atol=1e-3)
    orders = [np.concatenate([labels for _, labels in batches[at : at + 6]]).tolist() for at in (0, 6, 12)]
    assert orders[0] != orders[1] != orders[2]
    counts = np.bincount(np.concatenate(orders), minlength=24)
    assert counts.sum() == 72 and counts.min() >= 1


def test_a_service_crops_each_image_anew(service):
    image = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3)).astype("uint8")
    one_image = Split(np.repeat(image, 8, axis=0), np.arange(8))
    images, _ = collect(image_pipeline(one_image, SPEC, 8, training=True, service=service(1), epochs=(0, 2)))
    assert len({image.tobytes() for image in images}) == 16


@pytest.mark.slow
def test_a_training_by_a_service_takes_all_its_epochs(service, digits, tmp_path):
    config = TrainConfig(
        model="lite0", depth=0.1, width=0.1, image_size=32, epochs=2, batch_size=16, data_service=service(1), seed=1
    )
    small = replace(digits, train=digits.train.sample(64), val=digits.val.sample(32))
    result = train_dataset(small, config, tmp_path)
    assert result.epochs == 2
    assert [row["epoch"] for row in read_rows(tmp_path)] == [1, 2]


# ------------------------------------------------------------------ errors


def test_fewer_images_than_a_batch_is_an_error_in_training_only():
    with pytest.raises(UserError, match="7 training images do not fill a batch of 8; lower the batch size"):
        image_pipeline(greys(7), SPEC, 8, training=True)
    assert len(collect(image_pipeline(greys(7), SPEC, 8))[1]) == 7


def test_anything_but_a_dataset_is_refused_by_its_type():
    with pytest.raises(UserError, match=r"takes an ImageDataset or a Split of it, got ndarray"):
        image_pipeline(np.zeros((4, 8, 8, 3)), SPEC, 2)


@pytest.mark.images
def test_real_jpegs_are_cropped_alike_with_and_without_the_cache(images_root):
    files = sorted((images_root / "imagenet-sample-300").glob("*.JPEG"))[:16]
    split = Split(tuple(map(str, files)), np.arange(16, dtype="int32"))
    cached, fresh = (
        collect(image_pipeline(split, ImageSpec(96), 8, training=True, cache=cache)) for cache in (True, False)
    )
    assert np.abs(cached[0] - fresh[0]).mean() < 0.5
