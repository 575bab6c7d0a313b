"""Pairs of an image and its mask: reading them with their checks. NumPy and Pillow; TensorFlow decodes the images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_effnet.datasets.decoding import BadFile
from keras_effnet.datasets.folders import Progress, check_bad_file_limit
from keras_effnet.datasets.labels.masks import IGNORED, VALUES, Masks, mask_names, read_mask, upright_size
from keras_effnet.datasets.listing.tree import LeftOut
from keras_effnet.datasets.many_files import find_bad_files
from keras_effnet.datasets.source_data import SourceData
from keras_effnet.datasets.splits import Split
from keras_effnet.errors import UserError
from keras_effnet.system.documents import read_lines

logger = logging.getLogger(__name__)

# What a reason begins with, and what it is called where such pairs are counted.
DEFECTS = {"no mask": "no mask", "a mask of": "mask of another size", "value ": "unknown value in a mask"}
_GREY = 0.1  # pixels of other values, as a share of the white ones, up to which masks are meant to be black and white
CLASS_FILES = ("classes.txt", "labels.txt")  # a name on each line, the first is that of class 0


class Pair(NamedTuple):
    """Paths of an image and of its mask; a mask of None is missing."""

    image: str
    mask: str | None


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the images and masks of a dataset lie.

    Args:
        name: String, name of the dataset.
        folder: Path of the folder that may hold the names of the classes.
        splits: Dict of `"train"`, `"val"`, `"test"` to lists of `Pair`.
        left_out: Tuple of `LeftOut`.
    """

    name: str
    folder: Path
    splits: dict[str, list[Pair]]
    left_out: tuple[LeftOut, ...] = ()


class _Seen(NamedTuple):
    counts: np.ndarray | None  # pixels of each value
    reason: str | None  # why the pair cannot be used


def read_pairs(layout: Layout, max_bad_files: int, check: bool, progress: Progress) -> SourceData:
    """Read a dataset of images and masks.

    Every mask is read once, because its values are the classes. Pairs with a damaged or missing mask, or one of another
    size than its image, are skipped like images that cannot be decoded.

    Args:
        layout: `Layout`.
        max_bad_files: Int, number of unusable pairs allowed.
        check: Bool, whether to decode every image once, and to refuse values beyond the named classes; without it,
            such pairs are skipped too.
        progress: Wraps the iteration over pairs, for a progress bar.

    Raises:
        UserError: Too many unusable pairs, no class, or a value beyond the named classes.
    """
    every = [pair for pairs in layout.splits.values() for pair in pairs]
    with ThreadPoolExecutor() as pool:
        seen = dict(zip(every, progress(_ordered(pool.map(_look, every))), strict=True))
    bad = {pair: BadFile(pair.mask or pair.image, each.reason) for pair, each in seen.items() if each.reason}
    given = _given_names(layout)
    if given and not check:
        bad |= {pair: found for pair, each in seen.items() if (found := _beyond(pair, each.counts, given))}
    if check:
        images = [pair.image for pair in every if pair not in bad]
        failed = {item.path: item for item in find_bad_files(images)}
        bad |= {pair: failed[pair.image] for pair in every if pair not in bad and pair.image in failed}
    check_bad_file_limit(tuple(bad.values()), len(every), max_bad_files, "cannot be used")
    good = {split: [pair for pair in pairs if pair not in bad] for split, pairs in layout.splits.items()}
    usable = [pair for pairs in good.values() for pair in pairs]
    if not usable:
        raise UserError(f"{layout.name} has no image with a mask that can be decoded.")
    counts = np.stack([seen[pair].counts for pair in usable])
    totals = {split: np.sum([seen[pair].counts for pair in pairs], axis=0) for split, pairs in good.items() if pairs}
    classes, white = _used(layout.name, totals)
    _warn_of_grey(layout.name, counts, [str(pair.mask) for pair in usable])
    names = _names(layout.name, usable, counts, classes, given)
    splits = {
        split: Split(tuple(pair.image for pair in pairs), Masks(tuple(str(pair.mask) for pair in pairs), white=white))
        for split, pairs in good.items()
    }
    skipped = tuple(bad.values())
    return SourceData(layout.name, names, splits, skipped, left_out=layout.left_out, task="segmentation")


def _ordered(items):
    yield from items


def _look(pair: Pair) -> _Seen:
    """Count the values of a mask and compare its size with the image's."""
    if pair.mask is None:
        return _Seen(None, "no mask")
    try:
        mask = read_mask(pair.mask)
    except UserError as error:
        return _Seen(None, str(error).removeprefix(pair.mask).strip().rstrip("."))
    size = upright_size(pair.image)
    if size is not None and size != mask.shape:
        sizes = [f"{width} x {height}" for height, width in (mask.shape, size)]
        return _Seen(None, f"a mask of {sizes[0]} pixels for an image of {sizes[1]}")
    return _Seen(np.bincount(mask.ravel(), minlength=VALUES), None)


class _Given(NamedTuple):
    file: Path
    names: list[str]


def _given_names(layout: Layout) -> _Given | None:
    """Names of the classes from the file that lists them."""
    file = next((layout.folder / name for name in CLASS_FILES if (layout.folder / name).is_file()), None)
    return _Given(file, [line.strip() for line in read_lines(file) if line.strip()]) if file else None


def _beyond(pair: Pair, counts: np.ndarray | None, given: _Given) -> BadFile | None:
    """A pair whose mask holds a value beyond the named classes; black and white masks hold 255 for class 1."""
    if counts is None:
        return None
    values = np.flatnonzero(counts[:IGNORED]).tolist()
    if not values or values[-1] < len(given.names):
        return None
    return BadFile(str(pair.mask), f"value {values[-1]}, but {given.file.name} names {len(given.names)} classes")


def _used(name: str, totals: dict[str, np.ndarray]) -> tuple[list[int], bool]:
    """Classes of masks, and whether these are black and white, so that 255 is class 1.

    Args:
        name: String, name of the dataset.
        totals: Dict of split to the pixels of each value.

    Raises:
        UserError: All pixels of a split are ignored.
    """
    used = np.flatnonzero(sum(totals.values())).tolist()
    if used == [0, IGNORED]:
        return [0, 1], True
    for split, pixels in totals.items():
        if not pixels[:IGNORED].any():
            raise UserError(
                f"{name}: all pixels of the {split} masks are void (255), so there is no class. Save masks whose "
                "values are the numbers of classes, from 0 to 254."
            )
    return [value for value in used if value != IGNORED], False


def _warn_of_grey(name: str, counts: np.ndarray, masks: Sequence[str]) -> None:
    """Warn of masks that are black and white but for a few pixels, so that their white is ignored.

    Args:
        name: String, name of the dataset.
        counts: Int array of shape `(N, 256)`, pixels of each value.
        masks: N strings, what to call each mask.
    """
    grey = counts[:, 1:IGNORED]
    few, white = int(grey.sum()), int(counts[:, IGNORED].sum())
    if not 0 < few < _GREY * white:
        return
    first = int(np.flatnonzero(grey.any(axis=1))[0])
    logger.warning(
        "%s: masks are black and white but for %s of %s pixels (first in %s: %d), so their white (255) is ignored. If "
        "white is a class, save masks of 0 and 255 alone: as PNG, resized without interpolation.",
        *(name, f"{few:,}", f"{int(counts.sum()):,}", masks[first], 1 + int(np.flatnonzero(grey[first])[0])),
    )


def _names(
    name: str, pairs: Sequence[Pair], counts: np.ndarray, classes: list[int], given: _Given | None
) -> tuple[str, ...]:
    """Names of the classes of masks."""
    if given and max(classes) >= len(given.names):
        first = pairs[int(np.flatnonzero(counts[:, max(classes)])[0])]
        raise UserError(
            f"{first.mask} holds class {max(classes)}, but {given.file} names {len(given.names)} classes, from 0 to "
            f"{len(given.names) - 1}. Add its name, or use 255 for pixels to ignore."
        )
    names = mask_names(classes, given.names if given else None)
    if len(names) < 2:
        raise UserError(f"{name}: all masks are of one class ({names[0]}); at least two are needed.")
    return names


def in_memory(data: SourceData) -> SourceData:
    """Give masks of arrays their names, as `read_pairs` does for files.

    Raises:
        UserError: A mask is of another size than its image, or holds a class without a name; or a split has no class.
    """
    for name, part in data.splits.items():
        masks, expected = part.labels.source, part.pixels.shape[:3]
        if masks.shape != expected:
            raise UserError(f"{name} masks have shape {masks.shape}, expected {expected} as the images.")
    counts = {split: part.labels.counts() for split, part in data.splits.items()}
    classes, white = _used(data.name, {split: each.sum(axis=0) for split, each in counts.items()})
    places = [f"{split}[{place}]" for split, each in counts.items() for place in range(len(each))]
    _warn_of_grey(data.name, np.concatenate([*counts.values()]), places)
    if data.class_names and max(classes) >= len(data.class_names):
        raise UserError(f"A mask holds class {max(classes)}, beyond the {len(data.class_names)} class names.")
    names = mask_names(classes, data.class_names)
    if len(names) < 2:
        raise UserError("All masks are of one class; at least two are needed.")
    splits = {name: replace(part, labels=replace(part.labels, white=white)) for name, part in data.splits.items()}
    return replace(data, class_names=names, splits=splits)
