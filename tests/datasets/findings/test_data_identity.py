"""Runs are resumed on the data they were started with, wherever it lies, and on no other."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_effnet import datasets
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.datasets.findings.data_identity import (
    DATA,
    MODIFIED,
    check_identity,
    difference,
    identity,
    save_identity,
    warn_if_changed,
)
from keras_effnet.datasets.labels.masks import Masks
from keras_effnet.datasets.packing import pack
from keras_effnet.errors import UserError
from keras_effnet.training.run import train_dataset


@pytest.fixture
def started(image_folder, tmp_path):
    """Images, and the folder of a run that was started on them."""
    images, run = image_folder({"cat": 6, "dog": 6}), tmp_path / "run"
    run.mkdir()
    save_identity(datasets.load(images), run)
    return images, run


def remove(images):
    (images / "cat/005.png").unlink()


def replace(images):
    Image.new("RGB", (90, 70), "red").save(images / "cat/005.png")


def relabel(images):
    (images / "cat/005.png").rename(images / "dog/006.png")


def rename(images):
    (images / "cat/005.png").rename(images / "cat/006.png")


def add_classes(images):
    for name in ("bird", "fish"):
        shutil.copytree(images / "cat", images / name)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (remove, "class 'cat' had 5 train, 1 val, now 4 train, 1 val"),
        (replace, "files have other sizes"),
        (relabel, "class 'cat' had 5 train, 1 val, now 4 train, 1 val and 1 other classes changed"),
        (rename, "files were renamed or replaced by others"),
        (add_classes, "class 'bird' and 1 other classes added"),
        (lambda images: shutil.rmtree(images / "cat"), "class 'cat' removed"),
    ],
)
def test_changed_data_is_refused_with_what_changed_and_what_to_do(started, change, told):
    images, run = started
    add = images / "ant"
    shutil.copytree(images / "dog", add)
    save_identity(datasets.load(images), run)
    change(images)
    with pytest.raises(UserError) as caught:
        check_identity(datasets.load(images), run)
    assert str(caught.value) == (
        f"The data of images have changed since {run} was started ({told}), so its results would mix both. Restore "
        f"them, start a new training, or remove {run / DATA} to resume on the changed data."
    )
    (run / DATA).unlink()
    check_identity(datasets.load(images), run)


def test_test_images_are_part_of_the_identity_unless_an_earlier_version_left_them_out(started):
    images, run = started
    dataset = datasets.load(images, test_split=0.2)
    save_identity(dataset, run)
    fewer = dataclasses.replace(dataset, test=dataset.test.select(range(len(dataset.test) - 1)))
    with pytest.raises(UserError, match="test, now"):
        check_identity(fewer, run)
    (run / DATA).write_text(json.dumps(identity(dataset, ("train", "val"))))
    check_identity(fewer, run)


def test_the_same_data_elsewhere_is_accepted(started, tmp_path):
    images, run = started
    shutil.copytree(images, tmp_path / "elsewhere" / "copy")
    check_identity(datasets.load(tmp_path / "elsewhere" / "copy"), run)


def test_an_edit_that_keeps_name_and_size_is_warned_of(started, caplog):
    images, run = started
    check_identity(datasets.load(images), run)
    assert not caplog.messages
    before = (images / "cat/005.png").stat()
    os.utime(images / "cat/005.png", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    check_identity(datasets.load(images), run)
    assert caplog.messages == [
        f"images: files of the same names and sizes were modified since {run} was started. If they are other images, "
        "its results mix both: start anew then."
    ]


def test_times_that_an_earlier_version_did_not_record_are_not_compared(started, caplog):
    images, run = started
    record = json.loads((run / DATA).read_text())
    (run / DATA).write_text(json.dumps({key: value for key, value in record.items() if key != "modified"}))
    check_identity(datasets.load(images), run)
    assert not caplog.messages


def test_an_edited_mask_is_other_data(tmp_path):
    mask = tmp_path / "mask.png"
    Image.new("L", (8, 8)).save(mask)
    images = np.zeros((1, 8, 8, 3), "uint8")
    split = datasets.Split(images, Masks((str(mask),)))
    dataset = datasets.ImageDataset("scene", ("a", "b"), split, split, task="segmentation")
    before = identity(dataset)
    os.utime(mask, ns=(0, 1))
    assert difference(before, identity(dataset)) == MODIFIED and difference(before, before) is None


def test_labels_of_data_without_files_are_compared():
    pixels, labels = np.zeros((4, 8, 8, 3), "uint8"), np.array([0, 0, 1, 1], "int32")
    before, now = (identity_of(datasets.Split(pixels, each)) for each in (labels, labels[::-1]))
    assert difference(before, now) == "images have other labels" and difference(now, now) is None


def test_classes_in_another_order_are_other_data():
    """Numbers of a list whose labels.txt was edited: as many images of each class, and the same files and numbers."""
    split = datasets.Split(np.zeros((4, 8, 8, 3), "uint8"), np.array([0, 0, 1, 1], "int32"))
    before, now = (identity(datasets.ImageDataset("x", each, split, split)) for each in (("a", "b"), ("b", "a")))
    assert difference(before, now) == "the classes are in another order" and difference(now, now) is None


def test_held_out_images_that_may_have_been_trained_on_are_warned_of(started, caplog):
    images, run = started
    warn_if_changed(datasets.load(images), run)
    os.utime(images / "cat/005.png", ns=(0, 1))  # as of a copy
    warn_if_changed(datasets.load(images), run)
    assert not caplog.messages
    remove(images)
    warn_if_changed(datasets.load(images), run)
    assert caplog.messages == [
        f"The data of images have changed since {run} was started (class 'cat' had 5 train, 1 val, now 4 train, 1 val)"
        ": images that are held out now may have been trained on, which makes results look better than they are."
    ]
    (run / DATA).unlink()
    warn_if_changed(datasets.load(images), run)
    assert len(caplog.messages) == 1


def test_a_pack_made_anew_with_other_pixels_is_other_data(image_folder, tmp_path):
    images = image_folder({"cat": 6, "dog": 6})
    for size in (None, 16):
        pack(images, tmp_path / str(size), size=size)
    before, now = (identity(datasets.load(tmp_path / name)) for name in ("None", "16"))
    assert difference(before, now) == "files have other sizes"


def test_absolute_and_relative_paths_may_be_mixed(started, tmp_path, monkeypatch):
    images, _ = started
    monkeypatch.chdir(tmp_path)
    paths = [images / "cat/000.png", images.relative_to(tmp_path) / "cat/001.png"]
    paths += [images / "dog/000.png", images.relative_to(tmp_path) / "dog/001.png"]
    labels = np.array([0, 0, 1, 1], "int32")
    mixed, absolute = (
        datasets.Split(tuple(map(str, each)), labels) for each in (paths, [path.resolve() for path in paths])
    )
    assert identity_of(mixed) == identity_of(absolute)


def identity_of(split):
    return identity(datasets.ImageDataset("mixed", ("cat", "dog"), split, split))


@pytest.mark.parametrize("text", ["[]", "{}", '{"classes": "x"}', "{"])
def test_a_damaged_record_is_named(started, text):
    images, run = started
    (run / DATA).write_text(text)
    with pytest.raises(UserError, match=r"^\S+data\.json is damaged: (?!.*is damaged)"):
        check_identity(datasets.load(images), run)


def test_a_resumed_run_is_refused_before_it_trains(digits, tmp_path):
    (tmp_path / DATA).write_text(json.dumps({"classes": {}, "labels": "", "names": "", "sizes": ""}))
    with pytest.raises(UserError, match="have changed since"):
        train_dataset(digits, TrainConfig(model="lite0"), tmp_path, resume=True)
