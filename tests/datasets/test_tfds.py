"""TensorFlow Datasets: a small set written by that library, read without decoding."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_effnet.datasets.loading import load
from keras_effnet.datasets.splits import Encoded
from keras_effnet.errors import UserError


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """A folder with the set `toy_images`: 20 training, 8 validation and 6 test images, each of its own grey."""
    tfds = pytest.importorskip("tensorflow_datasets", reason="TensorFlow Datasets is not installed")
    counts = {"train": range(20), "validation": range(20, 28), "test": range(28, 34)}

    class ToyImages(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        labelled, greys = True, counts

        def _info(self):
            kinds = {"image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"), "id": tf.int64}
            if self.labelled:
                kinds["label"] = tfds.features.ClassLabel(names=["even", "odd"])
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(kinds))

        def _split_generators(self, manager):
            return {split: self._generate_examples(greys) for split, greys in self.greys.items()}

        def _generate_examples(self, greys):
            for grey in greys:
                example = {"image": np.full((4, 5, 3), grey, "uint8"), "id": grey}
                yield grey, example | ({"label": grey % 2} if self.labelled else {})

    class Unlabelled(ToyImages):
        VERSION = tfds.core.Version("1.0.0")
        labelled = False

    class OnlyTrain(ToyImages):
        VERSION = tfds.core.Version("1.0.0")
        greys = {"train": range(20)}  # noqa: RUF012

    folder = str(tmp_path_factory.mktemp("tfds"))
    tfds.disable_progress_bar()
    for builder in (ToyImages, Unlabelled, OnlyTrain):
        builder(data_dir=folder).download_and_prepare()
    return folder


def greys(split) -> list[int]:
    return [int(image[0, 0, 0]) for image in split.decoded()]


def test_a_set_is_read_encoded_with_its_splits_and_labels(catalogue):
    dataset = load("tfds:toy_images", data_dir=catalogue)
    assert dataset.class_names == ("even", "odd") and dataset.name == "toy_images"
    for part, expected in ((dataset.train, range(20)), (dataset.val, range(20, 28)), (dataset.test, range(28, 34))):
        assert isinstance(part.images, Encoded) and sorted(greys(part)) == list(expected)
        assert [grey % 2 for grey in greys(part)] == part.labels.tolist()
        assert all(contents.startswith(b"\x89PNG") for contents in part.images.read().as_numpy_iterator())


def test_the_order_is_the_same_each_time_and_the_origin_loads_it_again(catalogue):
    dataset = load("tfds:toy_images", data_dir=catalogue)
    again = load(**dataset.origin)
    assert greys(dataset.train) == greys(dataset.train) == greys(again.train)


def test_a_set_without_validation_images_is_divided(catalogue):
    dataset = load("tfds:only_train", data_dir=catalogue, val_split=0.3)
    assert sorted(greys(dataset.train) + greys(dataset.val)) == list(range(20))
    assert np.bincount(dataset.val.labels).tolist() == [3, 3] and dataset.test is None


def test_sets_that_are_unknown_or_have_no_classes_are_refused_in_one_line(catalogue):
    with pytest.raises(UserError, match=r"tfds:imagenett: .*not found\. Did you mean tfds:imagenet") as caught:
        load("tfds:imagenett", data_dir=catalogue)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"not a dataset of images with one class each; its features are .*image"):
        load("tfds:unlabelled", data_dir=catalogue)


@pytest.mark.parametrize("source", ["tfds:", "tfds:/", "tfds::"])
def test_a_source_without_a_name_is_refused(source):
    with pytest.raises(
        UserError, match=rf"^tfds: needs the name of a dataset, such as tfds:imagenette.*; got {source}\.$"
    ):
        load(source)


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r'pip install "keras-effnet\[tfds\]"'):
        load("tfds:imagenette/160px-v2")
