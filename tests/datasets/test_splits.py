"""Splits of arrays, files and streams; cross-validation folds and class weights."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from sklearn.utils.class_weight import compute_sample_weight

from keras_effnet.datasets.loading import from_arrays, load
from keras_effnet.datasets.source_data import SourceData
from keras_effnet.datasets.splits import Encoded, ImageDataset, Split
from keras_effnet.datasets.stratification import class_weights, k_folds
from keras_effnet.errors import UserError


def png(grey: int) -> bytes:
    return tf.io.encode_png(np.full((4, 5, 3), grey, "uint8")).numpy()


def stream(*greys: int) -> Encoded:
    """Images of one grey each, in a stream."""
    return Encoded(lambda: tf.data.Dataset.from_tensor_slices([png(grey) for grey in greys]), len(greys))


def greys(split: Split) -> list[int]:
    return [int(image[0, 0, 0]) for image in split.decoded()]


# ------------------------------------------------------------------ streams


def test_a_stream_yields_what_it_holds_and_knows_how_much():
    data = stream(1, 2, 3).read()
    assert data.cardinality() == 3
    assert list(data.as_numpy_iterator()) == [png(1), png(2), png(3)]


def test_a_selection_of_a_stream_keeps_its_order_and_its_labels():
    split = Split(stream(10, 11, 12, 13, 14), np.arange(5, dtype="int32"))
    chosen = split.select([3, 0, 4, 3])
    assert greys(chosen) == [10, 13, 14] and chosen.labels.tolist() == [0, 3, 4]
    assert chosen.images.read().cardinality() == len(chosen) == len(chosen.images) == 3
    again = chosen.select(np.array([2, 1]))
    assert greys(again) == [13, 14] and again.labels.tolist() == [3, 4]
    nothing = chosen.select([])
    assert len(nothing) == 0 and greys(nothing) == []


def test_a_sample_of_a_stream_keeps_labels_with_images():
    split = Split(stream(*range(30)), np.arange(30, dtype="int32"))
    sample = split.sample(9, seed=1)
    assert len(set(sample.labels)) == 9 and greys(sample) == sample.labels.tolist()


def test_a_stream_that_is_shorter_than_it_says_is_an_error():
    data = Encoded(stream(1, 2).open, 3).read()
    with pytest.raises(tf.errors.FailedPreconditionError):
        list(data)


def test_images_are_the_same_from_files_an_array_and_a_stream(tmp_path):
    files = []
    for grey in (5, 6):
        files.append(str(tmp_path / f"{grey}.png"))
        (tmp_path / f"{grey}.png").write_bytes(png(grey))
    array = np.stack([np.full((4, 5, 3), grey, "uint8") for grey in (5, 6)])
    for images in (tuple(files), array, stream(5, 6)):
        np.testing.assert_array_equal(list(Split(images, np.arange(2)).decoded()), array)


# ------------------------------------------------------------------ folds


def validated(datasets) -> list[int]:
    return sorted(grey for dataset in datasets for grey in greys(dataset.val))


def parts(kind: str) -> tuple[Split, Split]:
    """20 training and 10 validation images, the grey of each its own; the class is its parity."""
    first, second = np.arange(20), np.arange(20, 30)
    if kind == "array":
        images = [
            np.broadcast_to(part[:, None, None, None], (len(part), 2, 2, 3)).astype("uint8") for part in (first, second)
        ]
    elif kind == "two streams":
        images = [stream(*first), stream(*second)]
    else:
        whole = Split(stream(*range(30)), np.arange(30) % 2)
        return whole.select(first), whole.select(second)
    return Split(images[0], first % 2), Split(images[1], second % 2)


@pytest.mark.parametrize("kind", ["array", "one stream", "two streams"])
def test_folds_validate_every_image_exactly_once_and_train_on_the_others(kind):
    dataset = ImageDataset("toy", ("even", "odd"), *parts(kind))
    folds = dataset.folds(3, seed=1)
    assert validated(folds) == list(range(30))
    if kind != "array":
        assert folds[0].train.images.size == 30  # the stream is not read twice for its two parts
    for fold in folds:
        assert np.bincount(fold.val.labels).tolist() == [5, 5]
        assert sorted(greys(fold.train) + greys(fold.val)) == list(range(30))
        for part in (fold.train, fold.val):
            assert [grey % 2 for grey in greys(part)] == part.labels.tolist()
    assert {fold.name for fold in folds} == {"toy-fold1of3", "toy-fold2of3", "toy-fold3of3"}


def test_folds_of_files_leave_the_test_images_alone_and_load_again(image_folder):
    image_folder({"cat": 7, "dog": 5}, root="set/train")
    image_folder({"cat": 2, "dog": 2}, root="set/val")
    folder = image_folder({"cat": 2, "dog": 3}, root="set/test").parent
    dataset = load(folder, seed=4)
    folds = dataset.folds(4)
    assert sorted(path for fold in folds for path in fold.val.images) == sorted(
        dataset.train.images + dataset.val.images
    )
    assert all(fold.test is dataset.test for fold in folds)
    again = load(**folds[2].origin)
    assert again.val.images == folds[2].val.images and again.name == folds[2].name
    assert again.val.images == load(folder, seed=4, fold=(3, 4)).val.images
    assert dataset.folds(4, seed=5)[0].origin == {}


def test_folds_are_alike_in_size_and_in_classes():
    labels = np.repeat([0, 1, 2], [11, 7, 5])
    folds = k_folds(labels, 5, seed=0)
    assert sorted(np.concatenate(folds)) == list(range(23))
    assert sorted(map(len, folds)) == [4, 4, 5, 5, 5]
    per_class = np.array([np.bincount(labels[fold], minlength=3) for fold in folds])
    assert (np.ptp(per_class, axis=0) <= 1).all()
    assert [fold.tolist() for fold in folds] != [fold.tolist() for fold in k_folds(labels, 5, seed=1)]


def test_folds_that_cannot_be_are_refused():
    dataset = from_arrays(np.zeros((9, 2, 2, 3), "uint8"), [0] * 6 + [1] * 3, ["cat", "dog"])
    with pytest.raises(UserError, match="'dog' has 3 images, too few for 4 folds"):
        dataset.folds(4)
    with pytest.raises(UserError, match="at least 2 folds, got 1"):
        dataset.folds(1)
    for fold in ((0, 3), (4, 3), (1,)):
        with pytest.raises(UserError, match="k from 1 to n"):
            load("digits", fold=fold)


# ------------------------------------------------------------------ weights


def test_class_weights_are_scikit_learns_balanced_ones_and_average_1():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    weights = class_weights(labels, 3)
    np.testing.assert_allclose(weights[labels], compute_sample_weight("balanced", labels))
    assert weights[labels].mean() == pytest.approx(1)


def test_a_class_without_images_weighs_nothing():
    weights = class_weights(np.array([0, 0, 2]), 4)
    assert weights.tolist() == [0.75, 0, 1.5, 0]


# ------------------------------------------------------------------ what is held out


def test_a_part_of_a_source_that_stands_in_another_order_is_held_out_alike():
    labels = np.arange(20) % 2
    plain = SourceData("toy", ("a", "b"), {"train": Split(stream(*range(20)), labels)}).divide(0.3, 0)
    order = np.random.default_rng(0).permutation(20)
    shuffled = Split(stream(*order.tolist()), labels[order])
    again = SourceData("toy", ("a", "b"), {"train": shuffled}, order=order).divide(0.3, 0)
    assert sorted(greys(again.val)) == sorted(greys(plain.val))
    assert sorted(greys(again.train)) == sorted(greys(plain.train))


# ------------------------------------------------------------------ arrays


def test_arrays_are_divided_alike_and_keep_their_labels():
    images = np.broadcast_to(np.arange(40)[:, None, None, None], (40, 3, 4, 3))
    dataset = from_arrays(images, np.arange(40) % 4, val_split=0.25)
    assert dataset.class_names == ("0", "1", "2", "3") and dataset.origin == {}
    assert np.bincount(dataset.val.labels).tolist() == [2, 2, 2, 2]
    for part in (dataset.train, dataset.val):
        assert part.images.dtype == np.uint8 and part.images.shape[1:] == (3, 4, 3)
        assert [grey % 4 for grey in greys(part)] == part.labels.tolist()


def test_grey_and_float_arrays_become_rgb_bytes():
    images = np.full((4, 5, 5), 99.6)
    dataset = from_arrays(images, [0, 1, 0, 1], val=(images[..., None][:2], np.array([[0], [1]])), mirror=False)
    assert dataset.train.images.shape == (4, 5, 5, 3) and (dataset.train.images == 100).all()
    assert dataset.val.images.shape == (2, 5, 5, 3) and dataset.val.labels.tolist() == [0, 1]
    assert not dataset.train.mirror


GOOD = np.zeros((4, 5, 5, 3), "uint8")


@pytest.mark.parametrize(
    ("images", "labels", "names", "message"),
    [
        (np.zeros((4, 5)), [0, 1, 0, 1], None, "train images have shape"),
        (np.zeros((4, 5, 5, 4)), [0, 1, 0, 1], None, "train images have shape"),
        (GOOD + 0.5, [0, 1, 0, 1], None, "not 0..1"),
        (GOOD - 1.0, [0, 1, 0, 1], None, "range from -1 to -1; pixel values must be in 0..255"),
        (GOOD + np.nan, [0, 1, 0, 1], None, "range from nan to nan"),
        (GOOD, [0, 1, 0], None, "4 images but labels of shape"),
        (GOOD, np.eye(4), None, r"labels\.argmax\(axis=1\)"),
        (GOOD, [0.0, 1, 0, 1], None, "are of type float64; expected integers"),
        (GOOD, [-1, 1, 0, 1], None, "start at -1; expected integers from 0"),
        (GOOD, [0, 2, 0, 2], ["a", "b"], "Label 2 is beyond the 2 class names"),
        (GOOD, [0, 2, 0, 2], None, "no usable image of class '1' for train"),
        (GOOD, [0, 0, 0, 0], None, "only one class"),
    ],
)
def test_arrays_that_cannot_be_right_are_refused(images, labels, names, message):
    with pytest.raises(UserError, match=message):
        from_arrays(images, labels, names)


@pytest.mark.parametrize("name", ["", "  ", "a\nb"])
def test_names_of_classes_fit_into_a_file_with_one_a_line(name):
    split = Split(np.zeros((2, 8, 8, 3), "uint8"), np.array([0, 1], "int32"))
    with pytest.raises(UserError, match=r"x has a class named .*Rename it"):
        ImageDataset("x", ("a", name), split, split)
