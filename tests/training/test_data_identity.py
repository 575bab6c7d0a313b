"""Runs are resumed on the data they were started with, wherever it lies, and on no other."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_effnet import datasets
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError
from keras_effnet.training.data_identity import DATA, check_identity, identity, save_identity
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


@pytest.mark.parametrize("change", [remove, replace, relabel])
def test_changed_data_is_refused_with_what_to_do(started, change):
    images, run = started
    change(images)
    with pytest.raises(UserError, match=rf"have changed since {run} was started \(.*Restore them, start a new"):
        check_identity(datasets.load(images), run)
    (run / DATA).unlink()
    check_identity(datasets.load(images), run)


def test_the_same_data_elsewhere_is_accepted(started, tmp_path):
    images, run = started
    shutil.copytree(images, tmp_path / "elsewhere" / "copy")
    check_identity(datasets.load(tmp_path / "elsewhere" / "copy"), run)


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


@pytest.mark.parametrize("text", ["[]", "{}", '{"train": "x"}', "{"])
def test_a_damaged_record_is_named(started, text):
    images, run = started
    (run / DATA).write_text(text)
    with pytest.raises(UserError, match=r"data\.json"):
        check_identity(datasets.load(images), run)


def test_a_resumed_run_is_refused_before_it_trains(digits, tmp_path):
    (tmp_path / DATA).write_text(json.dumps({"train": 1, "val": 1, "digest": "0"}))
    with pytest.raises(UserError, match="have changed since"):
        train_dataset(digits, TrainConfig(model="lite0"), tmp_path, resume=True)
