"""Read datasets with one folder per class, and skip files that cannot be decoded. TensorFlow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from keras_effnet.datasets.decoding import BadFile, find_bad_files
from keras_effnet.datasets.listing.images import (
    EXTENSIONS,
    ClassFolders,
    class_folders,
    left_out_note,
    list_images,
    warn_of,
)
from keras_effnet.datasets.listing.tree import LeftOut, contents
from keras_effnet.datasets.splits import SPLIT_NAMES, SourceData, Split
from keras_effnet.errors import UserError

logger = logging.getLogger(__name__)

Progress = Callable[[Iterable], Iterable]


def check_bad_file_limit(bad: Sequence[BadFile], total: int, limit: int) -> None:
    """Log a warning that lists undecodable files, or raise if there are too many.

    Args:
        bad: `BadFile`s found.
        total: Int, number of images checked.
        limit: Int, number of bad files allowed.

    Raises:
        UserError: There are more than `limit` bad files.
    """
    listing = "; ".join(f"{item.path} ({item.reason})" for item in bad[:5]) + ("; ..." if len(bad) > 5 else "")
    if len(bad) > limit:
        raise UserError(
            f"{len(bad)} of {total} images cannot be decoded, more than the {limit} allowed "
            f"(max_bad_files, --max-bad-files): {listing}"
        )
    if bad:
        logger.warning("Skipped %d of %d images that cannot be decoded: %s", len(bad), total, listing)


def drop_bad_files(
    splits: dict[str, Split], limit: int, progress: Progress
) -> tuple[dict[str, Split], tuple[BadFile, ...]]:
    """Remove undecodable files from splits of files.

    Returns:
        The remaining splits, and the files removed.

    Raises:
        UserError: There are more than `limit` bad files.
    """
    every = [path for split in splits.values() for path in split.paths]
    bad = tuple(find_bad_files(every, progress))
    check_bad_file_limit(bad, len(every), limit)
    names = {item.path for item in bad}
    good = {
        name: split.select(np.flatnonzero([path not in names for path in split.paths]))
        for name, split in splits.items()
    }
    return good, bad


def _to_split(classes: dict[str, tuple[str, ...]]) -> Split:
    pairs = [(path, label) for label, paths in enumerate(classes.values()) for path in paths]
    paths, labels = zip(*pairs, strict=True)
    return Split(paths, np.asarray(labels, "int32"))


def _check_classes(folder: Path, found: ClassFolders) -> None:
    classes = found.images
    note = left_out_note(found.left_out, folder)
    if not classes:
        loose = "holds images but no class folders" if list_images(folder).images else "is empty"
        raise UserError(f"{folder} {loose}. Put images in one folder per class: {folder.name}/cat/1.jpg.{note}")
    empty = [name for name, paths in classes.items() if not paths]
    if empty:
        raise UserError(
            f"{folder} has class folders without images: {', '.join(empty[:5])}. "
            f"Remove them or add images ({', '.join(EXTENSIONS)}).{note}"
        )
    if len(classes) < 2:
        raise UserError(f"{folder} has only one class ({next(iter(classes))}); a classifier needs at least two.")


def read_folder(folder: Path, max_bad_files: int, check: bool, progress: Progress) -> SourceData:
    """Read a folder of class folders, or of `train/`, `val/` and `test/` with class folders in each.

    Args:
        folder: Path.
        max_bad_files: Int, number of undecodable files allowed.
        check: Bool, whether to decode every file once.
        progress: Wraps the iteration over files, for a progress bar.

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
        _check_classes(places[split], layout)
        if differing := sorted(set(layout.images) ^ set(layouts["train"].images)):
            raise UserError(
                f"{folder}: train and {split} have different classes; in one only: {', '.join(differing[:5])}."
            )
    left_out = tuple(item for layout in layouts.values() for item in layout.left_out)
    if found["train"]:
        left_out = _beside_splits(folder, places) + left_out
    warn_of(left_out, folder)
    splits = {split: _to_split(layout.images) for split, layout in layouts.items()}
    skipped: tuple[BadFile, ...] = ()
    if check:
        splits, skipped = drop_bad_files(splits, max_bad_files, progress)
    return SourceData(folder.resolve().name, tuple(layouts["train"].images), splits, skipped, left_out=left_out)


def _beside_splits(folder: Path, places: dict[str, Path]) -> tuple[LeftOut, ...]:
    """Hidden, system and other folders beside `train/`, `val/` and `test/`."""
    found = contents(folder)
    read = {path.name for path in places.values()}
    others = [path for name, path in found.folders.items() if name not in read]
    return found.left_out + tuple(LeftOut(path, f"folder outside {', '.join(read)}") for path in others)
