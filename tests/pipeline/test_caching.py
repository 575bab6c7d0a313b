"""Caches of decoded images: where they are kept, and that every cache yields the same images."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_effnet.datasets.splits import Encoded, Split
from keras_effnet.errors import UserError
from keras_effnet.pipeline import caching
from keras_effnet.pipeline.batches import image_pipeline
from keras_effnet.pipeline.caching import Cache, cached_split, choose_cache, decoded_bytes
from keras_effnet.preprocessing import ImageSpec

COUNT, HEIGHT, WIDTH = 13, 40, 50
BYTES = COUNT * HEIGHT * WIDTH * 3
SPEC = ImageSpec(32)


@pytest.fixture
def files(tmp_path, smooth_images) -> Split:
    """PNG files, whose decoder is exact."""
    paths = []
    for number, image in enumerate(smooth_images(COUNT, WIDTH)):
        path = tmp_path / f"{number}.png"
        Image.fromarray(image[:HEIGHT]).save(path)
        paths.append(str(path))
    return Split(tuple(paths), np.arange(COUNT, dtype="int32"))


@pytest.fixture
def stream(files) -> Split:
    contents = [Path(path).read_bytes() for path in files.images]
    return Split(Encoded(lambda: tf.data.Dataset.from_tensor_slices(contents), COUNT), files.labels)


@pytest.fixture
def room(monkeypatch):
    """Function that makes a machine have this much memory and disk."""

    def have(memory: float, disk: float) -> None:
        monkeypatch.setattr(caching, "host_bytes", lambda: (int(memory), "memory"))
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(int(disk), 0, int(disk)))

    return have


def collect(images, epochs=(0, 3), batch=4) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(image_pipeline(images, SPEC, batch, training=True, epochs=epochs).as_numpy_iterator())


def assert_same(first, second) -> None:
    assert len(first) == len(second)
    for (images, labels), (others, other_labels) in zip(first, second, strict=True):
        np.testing.assert_array_equal(labels, other_labels)
        np.testing.assert_array_equal(images, others)


# ------------------------------------------------------------------ which one


@pytest.mark.parametrize("kind", ["files", "stream"])
def test_size_is_that_of_the_pixels(kind, request):
    assert decoded_bytes(request.getfixturevalue(kind)) == BYTES


@pytest.mark.parametrize(
    ("memory", "disk", "expected"),
    [
        (4 * BYTES + 4, 0, "memory"),
        (4 * BYTES, 2 * BYTES + 2, "disk"),
        (4 * BYTES, 2 * BYTES, "none"),
        (0, 0, "none"),
    ],
)
def test_auto_takes_a_quarter_of_memory_else_half_of_the_disk(files, room, tmp_path, memory, disk, expected):
    room(memory, disk)
    assert choose_cache(files, "auto", tmp_path).kind == expected


def test_auto_without_a_folder_never_takes_the_disk(files, room):
    room(0, 1e12)
    assert choose_cache(files).kind == "none"


def test_the_reason_names_the_measured_size_and_the_room(smooth_images, room, tmp_path, files, monkeypatch):
    monkeypatch.setattr(caching, "decoded_bytes", lambda split: 1_230_000_000)
    room(8e9, 50e9)
    assert choose_cache(files, "auto", tmp_path).reason == "1.23 GB of pixels are cached in memory, 8.0 GB are free"
    room(2e9, 50e9)
    assert choose_cache(files, "auto", tmp_path).reason == "1.23 GB of pixels are cached on disk, 50.0 GB are free"
    room(2e9, 1e9)
    reason = choose_cache(files, "auto", tmp_path).reason
    assert reason.startswith("1.23 GB of pixels are too many for 2.0 GB of memory and 1.0 GB of disk: ")
    assert "disk" not in choose_cache(files, "auto").reason


def test_images_that_are_pixels_need_no_cache(smooth_images):
    cache = choose_cache(Split(smooth_images(4, 8), np.zeros(4, "int32")), "disk")
    assert cache.kind == "none" and "already in memory" in cache.reason


def test_what_is_asked_for_is_done_whatever_room_there_is(files, room, tmp_path):
    room(0, 0)
    for kind in ("memory", "disk", "none"):
        assert choose_cache(files, kind, tmp_path).kind == kind
    with pytest.raises(UserError, match='cache="disk" needs a folder'):
        choose_cache(files, "disk")
    with pytest.raises(UserError, match="Unknown cache 'ram'"):
        choose_cache(files, "ram")


# ------------------------------------------------------------------ the same images


@pytest.mark.parametrize("shuffled", [256 << 20, HEIGHT * WIDTH * 3])  # all images together, or one by one
@pytest.mark.parametrize("kind", ["files", "stream"])
def test_files_and_streams_give_the_same_epochs_from_every_cache(request, tmp_path, monkeypatch, kind, shuffled):
    split = request.getfixturevalue(kind)
    batch = 5  # leaves three images over
    memory, none = (collect(cached_split(split, Cache(cache)), batch=batch) for cache in ("memory", "none"))
    assert_same(memory, none)
    assert len(none) == 3 * (COUNT // batch)
    monkeypatch.setattr(caching, "_SHUFFLE_BYTES", shuffled)
    on_disk = cached_split(split, Cache("disk", folder=tmp_path / "cache"))
    assert on_disk.buffer == (COUNT + 1 if shuffled > BYTES else 1)
    kept = collect(on_disk, batch=batch)
    if on_disk.buffer > COUNT:
        assert_same(kept, none)
    else:  # an order of its own, of the same images
        for start in (0, 2, 4):
            labels = np.concatenate([labels for _, labels in kept[start : start + 2]])
            assert len(set(labels.tolist())) == 10
        assert_same(collect(on_disk, batch=batch), kept)  # from a complete cache too


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_file_is_decoded_once(files, tmp_path, kind):
    images = cached_split(files, Cache(kind, folder=tmp_path / "cache"))
    first = collect(images, (0, 1))
    uncached = cached_split(files, Cache("none"))
    second = collect(uncached, (1, 2))
    for path in files.images:
        Path(path).unlink()
    assert_same(collect(images, (1, 2)), second)
    assert_same(collect(images, (0, 1)), first)
    with pytest.raises(tf.errors.NotFoundError):
        collect(uncached, (1, 2))


def test_images_that_fill_no_batch_complete_a_cache_on_disk(files, tmp_path, monkeypatch):
    monkeypatch.setattr(caching, "_SHUFFLE_BYTES", 1)  # one by one: nothing else would read them
    images = cached_split(files, Cache("disk", folder=tmp_path / "cache"))
    first = collect(images, (0, 1), batch=5)
    for path in files.images:
        Path(path).unlink()
    assert_same(collect(images, (0, 1), batch=5), first)


def test_what_a_killed_run_left_on_disk_is_removed(files, tmp_path):
    folder, left = tmp_path / "cache", tmp_path / "left"
    unfinished = iter(cached_split(files, Cache("disk", folder=folder)).data)
    next(unfinished)
    shutil.copytree(folder, left)  # as SIGKILL leaves it; an iterator that ends in order takes its lock along
    del unfinished
    assert list(left.glob("*.lockfile"))
    control = tmp_path / "control"
    shutil.copytree(left, control)
    with pytest.raises(tf.errors.AlreadyExistsError):
        next(iter(tf.data.Dataset.range(3).cache(str(control / "pixels"))))
    assert_same(collect(cached_split(files, Cache("disk", folder=left))), collect(cached_split(files, Cache("none"))))
    assert not list(left.glob("*.lockfile"))


def test_an_iterator_that_stops_early_does_not_spoil_the_cache_in_memory(files):
    images = cached_split(files, Cache("memory"))
    next(iter(image_pipeline(images, SPEC, 4, training=True, epochs=(0, 1))))
    assert_same(collect(images), collect(cached_split(files, Cache("none"))))
