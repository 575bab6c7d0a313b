"""Read datasets with one folder per class, and skip files that cannot be decoded. TensorFlow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.datasets.decoding import BadFile
from keras_effnet.datasets.labels.kinds import KINDS
from keras_effnet.datasets.listing.images import (
    ClassFolders,
    class_folders,
    left_out_note,
    list_images,
    warn_of,
)
from keras_effnet.datasets.listing.tree import LeftOut, contents, displayed
from keras_effnet.datasets.many_files import find_bad_files
from keras_effnet.datasets.source_data import SourceData
from keras_effnet.datasets.splits import SPLIT_NAMES, Split
from keras_effnet.errors import UserError, listed

logger = logging.getLogger(__name__)

Progress = Callable[[Iterable], Iterable]
SKIP_EMPTY = "leave it out (skip_empty_classes, --skip-empty-classes)"
_NAMED = 5  # names in a message


def check_bad_file_limit(bad: Sequence[BadFile], total: int, limit: int, defect: str = "cannot be decoded") -> None:
    """Log a warning that lists undecodable files, or raise if there are too many.

    Args:
        bad: `BadFile`s found.
        total: Int, number of images checked.
        limit: Int, number of bad files allowed.
        defect: String, what is wrong with them.

    Raises:
        UserError: There are more than `limit` bad files.
    """
    listing = "; ".join(f"{item.path} ({item.reason})" for item in bad[:5]) + ("; ..." if len(bad) > 5 else "")
    if len(bad) > limit:
        raise UserError(
            f"{len(bad)} of {total} images {defect}, more than the {limit} allowed "
            f"(max_bad_files, --max-bad-files): {listing}"
        )
    if bad:
        logger.warning("Skipped %d of %d images that %s: %s", len(bad), total, defect, listing)


def check_decoded_classes(
    name: str,
    class_names: Sequence[str],
    listed: Mapping[str, Any],
    decoded: Mapping[str, Any],
    task: str = "classification",
) -> None:
    """Refuse data with a class none of whose images can be decoded.

    Data for evaluation only may be without images of some classes.

    Args:
        name: String, name of the dataset.
        class_names: Strings; a label is an index into them.
        listed: Mapping of split to the labels of all its images.
        decoded: Mapping of split to the labels of those that can be decoded.
        task: String, what the labels are for.

    Raises:
        UserError: Names the first such class, or no image at all can be decoded.
    """
    if not any(map(len, decoded.values())):
        raise UserError(f"{name} has no image that can be decoded.")
    kind = KINDS[task]
    for split, labels in listed.items() if listed.keys() != {"test"} else ():
        total, left = (kind.counts(each, len(class_names)) for each in (labels, decoded[split]))
        for label in np.flatnonzero((total > 0) & (left == 0))[:1]:
            raise UserError(
                f"{name}: no usable image of {kind.noun} {class_names[label]!r} for {split}: none of its "
                f"{total[label]} files can be decoded. Repair or add some, or {SKIP_EMPTY}."
            )


def without_empty_classes(data: SourceData) -> SourceData:
    """Leave out the classes without an image to train on or, where the source has such a split, to validate on.

    Args:
        data: `SourceData`; data for evaluation only is returned unchanged.

    Raises:
        UserError: Fewer than two classes are left.
    """
    kind = KINDS[data.task]
    if not kind.named:
        return data
    needed = [part.labels for split, part in data.splits.items() if split != "test"]
    everything = np.arange(len(data.class_names))
    kept = everything
    for labels in needed:
        kept = np.intersect1d(kept, np.flatnonzero(kind.counts(labels, len(everything))))
    if len(kept) == len(everything):
        return data
    names = [data.class_names[label] for label in np.setdiff1d(everything, kept)]
    listing = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    if len(kept) < 2:
        raise UserError(
            f"{data.name}: fewer than two classes remain without the empty ones ({listing}); a classifier needs two."
        )
    if data.task == "multilabel":  # an image without the label is an image nevertheless
        logger.warning("Left out %d of %d labels, which no image has: %s.", len(names), len(everything), listing)
        flags = {split: replace(part, labels=part.labels[:, kept]) for split, part in data.splits.items()}
        return replace(data, class_names=tuple(data.class_names[label] for label in kept), splits=flags)
    unused = sum(np.count_nonzero(~np.isin(part.labels, kept)) for part in data.splits.values())
    also = f"; {unused} images of theirs are not used" if unused else ""
    logger.warning("Left out %d of %d classes, which are empty: %s%s.", len(names), len(everything), listing, also)
    places = {split: np.flatnonzero(np.isin(part.labels, kept)) for split, part in data.splits.items()}
    return replace(
        data,
        class_names=tuple(data.class_names[label] for label in kept),
        splits={split: _relabelled(part.select(places[split]), kept) for split, part in data.splits.items()},
        order=None if data.order is None else data.order[places["train"]],
    )


def _relabelled(split: Split, kept: np.ndarray) -> Split:
    return replace(split, labels=np.searchsorted(kept, split.labels).astype("int32"))


def without_bad_files(data: SourceData, limit: int, progress: Progress, skip_empty_classes: bool) -> SourceData:
    """Decode the files of a source and leave out those that fail.

    Raises:
        UserError: More than `limit` files fail, or all of a class, unless `skip_empty_classes` is set.
    """
    every = [path for split in data.splits.values() for path in split.paths]
    bad = tuple(find_bad_files(every, progress))
    check_bad_file_limit(bad, len(every), limit)
    names = {item.path for item in bad}
    good = {
        name: split.select(np.flatnonzero([path not in names for path in split.paths]))
        for name, split in data.splits.items()
    }
    if not skip_empty_classes:
        check_decoded_classes(data.name, data.class_names, labels_of(data.splits), labels_of(good), data.task)
    return replace(data, splits=good, skipped=bad)


def labels_of(splits: Mapping[str, Split]) -> dict[str, Any]:
    """Labels of every split."""
    return {name: split.labels for name, split in splits.items()}


def _to_split(classes: dict[str, tuple[str, ...]], names: Sequence[str]) -> Split:
    pairs = [(path, label) for label, name in enumerate(names) for path in classes.get(name, ())]
    return Split(tuple(path for path, _ in pairs), np.array([label for _, label in pairs], "int32"))


def _check_classes(folder: Path, found: ClassFolders, skip_empty: bool) -> None:
    classes = found.images
    note = left_out_note(found.left_out, folder)
    if not classes:
        loose = "holds images but no class folders" if list_images(folder).images else "is empty"
        raise UserError(f"{folder} {loose}. Put images in one folder per class: {folder.name}/cat/1.jpg.{note}")
    empty = [name for name, paths in classes.items() if not paths]
    if empty and not skip_empty:
        raise UserError(
            f"{folder} has class folders without images: {listed(empty, _NAMED)}. "
            f"Remove them or add images (JPEG, PNG, ...), or {SKIP_EMPTY}.{note}"
        )
    if len(classes) < 2:
        boxes = next(iter(sorted(folder.glob("*.json"))), None)
        hint = f" If {boxes.name} has boxes, name that file: {boxes}" if boxes else ""
        raise UserError(f"{folder} has only one class ({next(iter(classes))}); a classifier needs at least two.{hint}")


def read_folder(
    folder: Path, max_bad_files: int, check: bool, progress: Progress, skip_empty_classes: bool = False
) -> SourceData:
    """Read a folder of class folders, or of `train/`, `val/` and `test/` with class folders in each.

    Args:
        folder: Path.
        max_bad_files: Int, number of undecodable files allowed.
        check: Bool, whether to decode every file once.
        progress: Wraps the iteration over files, for a progress bar.
        skip_empty_classes: Bool, whether classes may be empty, or missing in some splits.

    Raises:
        UserError: The layout is different, there are fewer than two classes, or too many bad files.
    """
    found = {
        split: next((folder / name for name in choices if (folder / name).is_dir()), None)
        for split, choices in SPLIT_NAMES.items()
    }
    places = {split: path for split, path in found.items() if path} if found["train"] else {"train": folder}
    layouts = {split: class_folders(path) for split, path in places.items()}
    for split, layout in layouts.items():
        _check_classes(places[split], layout, skip_empty_classes)
        differing = sorted(set(layout.images) ^ set(layouts["train"].images))
        if differing and not skip_empty_classes:
            raise UserError(f"{folder}: train and {split} have different classes; in one only: {listed(differing)}.")
    left_out = tuple(item for layout in layouts.values() for item in layout.left_out)
    if found["train"]:
        left_out = _beside_splits(folder, places) + left_out
    warn_of(left_out, folder)
    names = sorted({name for layout in layouts.values() for name in layout.images})
    splits = {split: _to_split(layout.images, names) for split, layout in layouts.items()}
    data = SourceData(displayed(folder.resolve().name), tuple(names), splits, left_out=left_out)
    return without_bad_files(data, max_bad_files, progress, skip_empty_classes) if check else data


def _beside_splits(folder: Path, places: dict[str, Path]) -> tuple[LeftOut, ...]:
    """Hidden, system and other folders beside `train/`, `val/` and `test/`."""
    found = contents(folder)
    read = [path.name for path in places.values()]
    others = [path for name, path in found.folders.items() if name not in read]
    return found.left_out + tuple(LeftOut(path, f"folder outside {', '.join(read)}") for path in others)
