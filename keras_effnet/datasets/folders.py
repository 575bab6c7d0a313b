"""Read datasets with one folder per class, and skip files that cannot be decoded. TensorFlow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from keras_effnet.datasets.decoding import EXTENSIONS, BadFile, find_bad_files, list_images
from keras_effnet.datasets.splits import SPLIT_NAMES, SourceData, Split
from keras_effnet.errors import UserError

logger = logging.getLogger(__name__)

Progress = Callable[[Iterable], Iterable]


def class_folders(folder: Path) -> dict[str, list[str]]:
    """Return class name -> image files for every class folder that is not hidden."""
    return {
        entry.name: list_images(entry)
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and not entry.name.startswith(".")
    }


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


def _to_split(classes: dict[str, list[str]]) -> Split:
    pairs = [(path, label) for label, paths in enumerate(classes.values()) for path in paths]
    paths, labels = zip(*pairs, strict=True)
    return Split(paths, np.asarray(labels, "int32"))


def _check_classes(folder: Path, classes: dict[str, list[str]]) -> None:
    if not classes:
        loose = "holds images but no class folders" if list_images(folder) else "is empty"
        raise UserError(f"{folder} {loose}. Put images in one folder per class: {folder.name}/cat/1.jpg.")
    empty = [name for name, paths in classes.items() if not paths]
    if empty:
        raise UserError(
            f"{folder} has class folders without images: {', '.join(empty[:5])}. "
            f"Remove them or add images ({', '.join(EXTENSIONS)})."
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
    for split, classes in layouts.items():
        _check_classes(places[split], classes)
        if differing := sorted(set(classes) ^ set(layouts["train"])):
            raise UserError(
                f"{folder}: train and {split} have different classes; in one only: {', '.join(differing[:5])}."
            )
    splits = {split: _to_split(classes) for split, classes in layouts.items()}
    skipped: tuple[BadFile, ...] = ()
    if check:
        splits, skipped = drop_bad_files(splits, max_bad_files, progress)
    return SourceData(folder.resolve().name, tuple(layouts["train"]), splits, skipped)
