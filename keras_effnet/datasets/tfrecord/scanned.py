"""Read shards that other programs wrote, after one scan for labels and classes. TensorFlow."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_effnet.datasets.decoding import BadFile, decode_all
from keras_effnet.datasets.folders import Progress, check_bad_file_limit, check_decoded_classes, labels_of
from keras_effnet.datasets.listing.images import class_folders
from keras_effnet.datasets.listing.tree import displayed, is_hidden, walk
from keras_effnet.datasets.source_data import SourceData
from keras_effnet.datasets.splits import SPLIT_NAMES, Split
from keras_effnet.datasets.tfrecord.records import FILE, IMAGE, LABEL, SYNSET, TEXT, encoded_shards, stream
from keras_effnet.errors import UserError, first_line
from keras_effnet.system.documents import read_lines

_RECORD_FILE = re.compile(r"(\.tfrecords?|\.tfrec)$|(\.tfrecords?)?-\d{5}-of-\d{5}$")
_BATCH = 256


def find_records(folder: Path) -> dict[str, list[Path]]:
    """Find TFRecord files below a folder without class folders.

    Returns:
        Dict of `"train"`, `"val"`, `"test"`, by file or folder name, to sorted paths; empty if there are none.
    """
    found: dict[str, list[Path]] = {}
    for path in map(Path, walk(folder).files):
        if _RECORD_FILE.search(path.name) and not is_hidden(path.name):
            words = re.split(r"[^a-z]+", str(path.relative_to(folder)).lower())
            split = next((split for split, names in SPLIT_NAMES.items() if set(words) & set(names)), "train")
            found.setdefault(split, []).append(path)
    return found if found and not any(class_folders(folder).images.values()) else {}


class _Scan(NamedTuple):
    labels: np.ndarray
    names: dict[int, str]
    bad: list[tuple[int, BadFile]]


def _check_features(path: Path) -> None:
    """Refuse records without the expected features, judging by the first one."""
    for record in tf.data.TFRecordDataset(os.fsencode(path)).take(1).as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        if IMAGE not in features or LABEL not in features:
            raise UserError(
                f"{path} has no {IMAGE} with {LABEL}; its records hold {', '.join(sorted(features))[:200]}. "
                "Write the images as files, one folder per class, and pack those: keras-effnet pack FOLDER OUT."
            )


def _scan_file(path: Path, check: bool) -> _Scan:
    """Read the labels and class names of a file in one pass, and find images that cannot be decoded."""
    text = tf.io.FixedLenFeature((), tf.string, "")
    wanted = {LABEL: tf.io.FixedLenFeature((), tf.int64, -1), SYNSET: text, TEXT: text, FILE: text}
    labels: list[np.ndarray] = []
    class_words: dict[int, str] = {}
    file_names: list[str] = []
    bad: list[tuple[int, BadFile]] = []
    try:
        _check_features(path)
        records = tf.data.TFRecordDataset(os.fsencode(path)).batch(_BATCH)
        for batch in records.map(lambda r: tf.io.parse_example(r, wanted)).prefetch(1).as_numpy_iterator():
            words = np.where(batch[SYNSET] != b"", batch[SYNSET], batch[TEXT])
            class_words |= {int(k): word.decode(errors="replace") for k, word in zip(batch[LABEL], words, strict=True)}
            labels.append(batch[LABEL])
            file_names += [name.decode(errors="replace") for name in batch[FILE]]
        if check:
            names = [f"{path}: {name or f'record {number}'}" for number, name in enumerate(file_names)]
            found = decode_all(stream([path])(), names)
            bad = [(number, item) for number, item in enumerate(found) if isinstance(item, BadFile)]
    except UserError:
        raise
    except Exception as error:  # DataLossError, InvalidArgumentError, or protobuf's own types
        raise UserError(f"{path} cannot be read as TFRecords of images: {first_line(error)[:200]}.") from None
    return _Scan(np.concatenate(labels) if labels else np.zeros(0, int), class_words, bad)


def _class_names(folder: Path, numbers: np.ndarray, words: dict[int, str]) -> tuple[dict[int, int], tuple[str, ...]]:
    """Return class number in the records -> label, and the class names."""
    file = folder / "labels.txt"
    if file.is_file():
        lines = tuple(read_lines(file))
        if numbers.max() >= len(lines):
            raise UserError(f"Label {numbers.max()} is beyond the {len(lines)} classes of {file} (they count from 0).")
        return {number: number for number in range(len(lines))}, lines
    # ImageNet's shards count from 1, others from 0. Ambiguous names (two cranes) get their number appended.
    given = [words.get(number) or str(number) for number in numbers.tolist()]
    uses = Counter(given)
    unique = [
        word if uses[word] == 1 else f"{word} ({number})" for word, number in zip(given, numbers.tolist(), strict=True)
    ]
    return {number: label for label, number in enumerate(numbers.tolist())}, tuple(unique)


def read_records(
    folder: Path,
    files: dict[str, list[Path]],
    max_bad_files: int,
    check: bool,
    progress: Progress,
    skip_empty_classes: bool = False,
) -> SourceData:
    """Read TFRecord files with the features `image/encoded` and `image/class/label`, after one scan for the labels.

    Args:
        folder: Path, which may contain a `labels.txt`.
        files: Dict returned by `find_records`.
        max_bad_files: Int, number of undecodable images allowed.
        check: Bool, whether to decode every image once.
        progress: Wraps the iteration over files, for a progress bar.
        skip_empty_classes: Bool, whether all images of a class may be undecodable.

    Raises:
        UserError: Other features, damaged files, images without a label, only one class, or too many bad images.
    """
    everything = [(split, path) for split, paths in files.items() for path in paths]
    scans: dict[str, list[_Scan]] = {split: [] for split in files}
    for split, path in progress(everything):
        scans[split].append(_scan_file(path, check))
    labels = {split: np.concatenate([scan.labels for scan in found]) for split, found in scans.items()}
    if len(labels.get("test", ())) and labels["test"].min() < 0:
        del labels["test"]  # the unlabelled test set of a competition
    for split, numbers in labels.items():
        if not len(numbers) or numbers.min() < 0:
            found_instead = "images without a label" if len(numbers) else "no images"
            raise UserError(f"{folder}: the {split} records hold {found_instead}.")
    words = {number: name for found in scans.values() for scan in found for number, name in scan.names.items()}
    index, names = _class_names(folder, np.unique(np.concatenate(list(labels.values()))), words)
    if len(names) < 2:
        raise UserError(f"{folder} has only one class ({names[0]}); a classifier needs at least two.")

    splits: dict[str, Split] = {}
    listed: dict[str, np.ndarray] = {}
    skipped: list[BadFile] = []
    for split, numbers in labels.items():
        starts = np.cumsum([0] + [len(scan.labels) for scan in scans[split]])
        found = [(start + at, item) for start, scan in zip(starts, scans[split], strict=False) for at, item in scan.bad]
        skipped += [item for _, item in found]
        whole = encoded_shards([path.resolve() for path in files[split]], len(numbers))
        listed[split] = np.array([index[number] for number in numbers.tolist()], "int32")
        good = np.setdiff1d(np.arange(len(numbers)), [at for at, _ in found])
        part = Split(whole, listed[split])
        splits[split] = part.select(good) if found else part
    check_bad_file_limit(skipped, sum(map(len, labels.values())), max_bad_files)
    if not skip_empty_classes:
        check_decoded_classes(displayed(folder.resolve().name), names, listed, labels_of(splits))
    return SourceData(displayed(folder.resolve().name), names, splits, tuple(skipped))
