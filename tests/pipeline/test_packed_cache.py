"""`train --cache packed`: a downscaled copy beside the data, made once, made again for other data, or refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from keras_effnet.config.train_config import TrainConfig
from keras_effnet.datasets import loading
from keras_effnet.datasets.packing import pack
from keras_effnet.datasets.tfrecord.packed import PARTIAL
from keras_effnet.errors import UserError
from keras_effnet.pipeline import packed_cache
from keras_effnet.pipeline.packed_cache import Saving, estimate, obstacle, packed_dataset, packed_folder
from keras_effnet.training import input_pipelines, run
from keras_effnet.training.by_task.judging import judge
from keras_effnet.training.input_pipelines import build_pipelines

SIZE = 32


@pytest.fixture
def photos(image_folder) -> Path:
    return image_folder({"ant": 6, "bee": 4}, root="photos", size=80)


@pytest.fixture
def no_estimate(monkeypatch):
    """Nothing is read twice to be timed, which traces two pipelines."""
    monkeypatch.setattr(packed_cache, "estimate", lambda dataset, size: Saving(2e6, 1e6, 2.0, 1.0))


@pytest.fixture
def said() -> list[str]:
    return []


def never(*args, **options):
    raise AssertionError("packed again")


def shapes(split) -> set:
    return {image.shape for image in split.decoded()}


@pytest.mark.usefixtures("no_estimate")
def test_a_copy_has_the_classes_and_splits_of_its_source(photos, said):
    source = loading.load(photos, val_split=0.3, seed=3, fold=(2, 3))
    copy = packed_dataset(source, SIZE, said.append)
    assert packed_folder(source, SIZE) == photos.parent / "photos.packed-32"
    assert len(said) == 1 and said[0].endswith("writing " + str(photos.parent / "photos.packed-32") + ".")
    assert (copy.name, copy.class_names, copy.task) == (source.name, source.class_names, source.task)
    for part in ("train", "val"):
        ours, theirs = getattr(copy, part), getattr(source, part)
        assert sorted(ours.labels.tolist()) == sorted(theirs.labels.tolist())
        assert shapes(ours) == {(37, 41, 3)} and shapes(theirs) == {(80, 88, 3)}


@pytest.mark.usefixtures("no_estimate")
def test_a_copy_is_made_once_and_again_when_the_data_change(photos, said, monkeypatch):
    packed_dataset(loading.load(photos), SIZE)
    with monkeypatch.context() as patched:
        patched.setattr(packed_cache, "pack", never)
        packed_dataset(loading.load(photos), SIZE, said.append)
        assert not said
    shutil.copy(photos / "ant" / "000.png", photos / "ant" / "new.png")
    copy = packed_dataset(loading.load(photos), SIZE, said.append)
    assert "again, because the data have changed: class 'ant' had 6 train, now 7 train" in said[0]
    assert len(copy.train) + len(copy.val) == 11
    edited = photos / "ant" / "000.png"
    os.utime(edited, ns=(edited.stat().st_atime_ns, edited.stat().st_mtime_ns + 1))
    packed_dataset(loading.load(photos), SIZE, said.append)
    assert said[1].endswith("again, because the data have changed: files of the same names and sizes were modified.")


@pytest.mark.usefixtures("no_estimate")
def test_several_labels_are_packed_too(photos, said):
    rows = [
        f"{path},{'ant|small' if number % 2 else 'bee'}" for number, path in enumerate(sorted(photos.rglob("*.png")))
    ]
    (photos.parent / "list.csv").write_text("\n".join(["path,label", *rows]))
    source = loading.load(photos.parent / "list.csv", task="multilabel")
    copy = packed_dataset(source, SIZE)
    assert copy.task == "multilabel" and copy.class_names == source.class_names
    np.testing.assert_array_equal(np.sort(copy.train.labels, axis=0), np.sort(source.train.labels, axis=0))
    assert (photos.parent / "list.csv.packed-32").is_dir()


@pytest.mark.usefixtures("no_estimate")
def test_remains_of_a_killed_run_are_replaced_and_folders_of_others_are_not(photos):
    source = loading.load(photos)
    folder = packed_folder(source, SIZE)
    (folder / PARTIAL).mkdir(parents=True)
    packed_dataset(source, SIZE)
    assert not (folder / PARTIAL).exists() and (folder / "index.json").is_file()
    other = packed_folder(source, 33)
    other.mkdir()
    (other / "diary.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty and not a packed folder"):
        packed_dataset(source, 33)
    assert (other / "diary.txt").read_text() == "mine"


def test_what_cannot_be_packed_is_refused_in_one_line(photos, digits, tmp_path, smooth_images):
    pack(photos, tmp_path / "shards")
    arrays = loading.from_arrays(smooth_images(8, 8), np.arange(8) % 2)
    masks = loading.from_arrays(smooth_images(8, 8), np.zeros((8, 8, 8), int), ["a", "b"], task="segmentation")
    moved = loading.load(photos)
    shutil.move(photos, tmp_path / "elsewhere")
    for dataset, reason in (
        (digits, "in memory already"),
        (arrays, "in memory already"),
        (loading.load(tmp_path / "shards"), "already a stream"),
        (masks, "does not cover segmentation"),
        (moved, "not known where photos lies"),
    ):
        assert reason in (obstacle(dataset) or "")
        with pytest.raises(UserError, match=f"cache='packed' is not possible: .*{reason}") as error:
            packed_dataset(dataset, SIZE)
        assert "\n" not in str(error.value)


def test_other_processes_and_services_are_refused(photos):
    dataset = loading.load(photos)
    for options in ({"data_service": "grpc://host:1"}, {"strategy": "data-parallel"}):
        with pytest.raises(UserError, match="one process that reads the images itself"):
            input_pipelines.prepare_cache(dataset, TrainConfig(cache="packed", **options))


@pytest.mark.slow
def test_the_estimate_is_that_of_the_shrunk_files(image_folder):
    folder = image_folder({"ant": 4, "bee": 4}, root="large", size=800)
    dataset = loading.load(folder)
    saving = estimate(dataset, SIZE)
    assert saving.bytes == sum(path.stat().st_size for path in folder.rglob("*.png"))
    assert 0 < saving.packed_bytes < saving.bytes / 4
    assert saving.worth_offering


def test_a_saving_in_words():
    assert not Saving(1.0, 1.0, 1.2, 1.0).worth_offering
    text = str(Saving(2.5e9, 4e7, 81.4, 2.34))
    assert text == "2.50 GB of image files become about 40.0 MB, and reading an epoch takes about 2.3 s instead of 81 s"


def config(**options) -> TrainConfig:
    return TrainConfig(model="b0", image_size=SIZE, batch_size=2, epochs=1, **options)


@pytest.mark.usefixtures("no_estimate")
def test_training_reads_the_copy_and_the_final_evaluation_the_images(photos, tmp_path, said):
    dataset = loading.load(photos)
    pipelines = build_pipelines(dataset, config(cache="packed"), tmp_path / "cache", said.append)
    assert f"images are read from {packed_folder(dataset, SIZE)}; " in said[-1] and "in memory" in said[-1]
    shutil.rmtree(packed_folder(dataset, SIZE))
    plain = build_pipelines(dataset, config(cache="none"), tmp_path / "cache")
    for (images, labels), (others, expected) in zip(pipelines.judged, plain.val, strict=True):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, expected)


@pytest.mark.slow
@pytest.mark.usefixtures("no_estimate")
def test_a_training_is_judged_by_images_in_the_order_of_their_labels(image_folder, tmp_path, monkeypatch):
    """A copy is shuffled: with its images in place of the source's, each was compared with the label of another."""
    dataset, judged = loading.load(image_folder({"ant": 12, "bee": 12}), val_split=0.5), []

    def recording(model, val, *others):
        judged.append(np.concatenate([labels for _, labels in val.as_numpy_iterator()]))
        return judge(model, val, *others)

    monkeypatch.setattr(run, "judge", recording)
    run.train_dataset(dataset, config(cache="packed", width=0.1, depth=0.1), tmp_path / "run")
    assert len(judged) == 2
    np.testing.assert_array_equal(judged, [dataset.val.labels] * 2)


def test_packing_is_offered_where_it_saves_time(photos, tmp_path, said, monkeypatch):
    dataset = loading.load(photos)
    none = packed_cache.Cache("none", "too many")
    monkeypatch.setattr(input_pipelines, "choose_cache", lambda *args: none)
    for seconds, offers in ((2.0, 1), (1.0, 0)):
        monkeypatch.setattr(input_pipelines, "estimate", lambda *args, s=seconds: Saving(2e6, 1e6, s, 1.0))
        said.clear()
        build_pipelines(dataset, config(), tmp_path / "cache", said.append)
        assert sum("With --cache packed, 2.0 MB of image files become" in line for line in said) == offers
    said.clear()
    build_pipelines(dataset, config(cache="none"), tmp_path / "cache", said.append)
    assert len(said) == 1
