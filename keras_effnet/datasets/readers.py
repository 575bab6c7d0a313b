"""Read a source with the reader for its kind: embedded data, TensorFlow Datasets, a file or a folder. TensorFlow."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from keras_effnet.datasets.annotations.reading import find_boxes, name_of, read_boxes, scenes
from keras_effnet.datasets.csv_lists import find_manifest, read_manifest
from keras_effnet.datasets.digits import cluttered_digits, plain_digits
from keras_effnet.datasets.folders import Progress, read_folder, without_empty_classes
from keras_effnet.datasets.labels.conversion import TAKES, check_conversion
from keras_effnet.datasets.labels.task_names import DATA_TASKS, DataTask
from keras_effnet.datasets.segmentation.layouts import find_layout
from keras_effnet.datasets.segmentation.pairs import read_pairs
from keras_effnet.datasets.source_data import SourceData
from keras_effnet.datasets.tfds import PREFIX, read_tfds
from keras_effnet.datasets.tfrecord.packed import PARTIAL, read_index, read_packed
from keras_effnet.datasets.tfrecord.scanned import find_records, read_records
from keras_effnet.errors import UserError, check_path, one_of, unknown, whole_number
from keras_effnet.system.files import why_no_file

EMBEDDED = ("digits", "digits-cluttered", "digits-scenes")


def read_source(
    source: str | os.PathLike,
    *,
    task: DataTask | None = None,
    seed: int = 0,
    image_size: int = 64,
    max_bad_files: int = 10,
    skip_empty_classes: bool = False,
    check: bool = True,
    data_dir: str | os.PathLike | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> SourceData:
    """Read a source before a validation split is held out; arguments and errors as in `datasets.load`."""
    check_path("source", source)
    if data_dir is not None and not str(source).startswith(PREFIX):
        raise UserError(f"data_dir is for {PREFIX}NAME only, the folder of TensorFlow Datasets; leave it out.")
    whole_number("seed", seed, 0)
    whole_number("max_bad_files", max_bad_files, 0)
    if task is not None:
        one_of("task", task, DATA_TASKS)
    reading = _Reading(max_bad_files, check, progress, skip_empty_classes)
    data = _read(source, seed, image_size, reading, data_dir, task)
    if task is not None:
        check_conversion(data.name, data.task, task, data.class_names)
        data = replace(data, task=task)
    return without_empty_classes(data) if skip_empty_classes else data


class _Reading(NamedTuple):
    """Last arguments of the readers of files."""

    max_bad_files: int
    check: bool
    progress: Progress
    skip_empty_classes: bool


def _read(
    source: str | os.PathLike,
    seed: int,
    image_size: int,
    reading: _Reading,
    data_dir: str | os.PathLike | None,
    task: DataTask | None,
) -> SourceData:
    if source == "digits":
        return plain_digits(seed)
    if source == "digits-cluttered":
        return cluttered_digits(seed, image_size)
    if source == "digits-scenes":
        return scenes(seed, image_size)
    if str(source).startswith(PREFIX):
        return read_tfds(str(source).removeprefix(PREFIX), str(data_dir) if data_dir else None, reading.progress)
    path = Path(source)
    if task in (None, "detection") and (boxes := path.is_file() and find_boxes(path)):
        return read_boxes(name_of(path), boxes, *reading[:3])
    if path.is_file() and task == "detection":
        raise UserError(f"{path} has no boxes; the task detection takes {TAKES['detection']}.")
    if path.is_file() and path.suffix.lower() == ".csv":
        return read_manifest(path, *reading, task)
    if path.is_dir():
        return _read_directory(path, reading, task)
    if path.is_file():
        raise UserError(
            f"{path} is a file; data is a folder of class folders, a .csv list of images, a .json or data.yaml with "
            f"boxes, a folder of TFRecord shards, or one of: {', '.join(EMBEDDED)}."
        )
    if path.is_symlink():
        raise UserError(f"{path} {why_no_file(path)}.")
    if os.sep in str(source) or str(source).startswith("."):
        raise UserError(f"Folder {path} does not exist.")
    raise UserError(unknown("dataset", str(source), EMBEDDED) + " No folder of this name exists either.")


def _read_directory(folder: Path, reading: _Reading, task: DataTask | None) -> SourceData:
    if index := read_index(folder):
        return read_packed(folder, index)
    if (folder / PARTIAL).is_dir():
        raise UserError(
            f"Packing {folder} was not completed; run `keras-effnet pack DATA {shlex.quote(str(folder))}` again."
        )
    if manifest := find_manifest(folder):
        return read_manifest(manifest, *reading, task)
    if records := find_records(folder):
        return read_records(folder, records, *reading)
    if task in (None, "segmentation") and (layout := find_layout(folder)):
        return read_pairs(layout, reading.max_bad_files, reading.check, reading.progress)
    if task == "segmentation":
        raise UserError(
            f"{folder} has no images with masks: put images in {folder.name}/images and, under the same names, PNG "
            f"files in {folder.name}/masks whose values are classes."
        )
    if task in (None, "detection") and (boxes := find_boxes(folder)):
        return read_boxes(name_of(folder), boxes, *reading[:3])
    if task == "detection":
        raise UserError(f"{folder} has no boxes; the task detection takes {TAKES['detection']}.")
    return read_folder(folder, *reading)
