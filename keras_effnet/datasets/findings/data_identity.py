"""Identity of the data of a run, a study or a packed copy, which is used for no other data. TensorFlow is not used.

Names, sizes and modification times of files are compared, not their contents: reading all images again would take as
long as an epoch. Times alone change with a copy of the data, too: they renew a packed copy, but refuse no run.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypedDict

from keras_effnet.datasets.labels.kinds import KINDS
from keras_effnet.datasets.labels.masks import Masks
from keras_effnet.datasets.splits import Encoded, ImageDataset, Split
from keras_effnet.errors import UserError
from keras_effnet.system.documents import json_text, parse_json, read_text
from keras_effnet.system.files import write_text
from keras_effnet.system.typed_values import conform

DATA = "data.json"
SPLITS = ("train", "val", "test")
MODIFIED = "files of the same names and sizes were modified"
logger = logging.getLogger(__name__)


class _Times(TypedDict, total=False):
    modified: str  # digest of the modification times of images and masks; earlier versions did not record it


class Identity(_Times):
    """Number of images of each class in each split, and digests of labels, file names and file sizes, in order."""

    classes: dict[str, dict[str, int]]
    labels: str
    names: str
    sizes: str


def identity(dataset: ImageDataset, names: Iterable[str] = SPLITS) -> Identity:
    """Identify the images of a dataset, or those of some of its splits."""
    splits = {name: split for name in names if (split := getattr(dataset, name)) is not None}
    return identity_of(dataset.class_names, splits, dataset.task)


def identity_of(class_names: tuple[str, ...], splits: Mapping[str, Split], task: str = "classification") -> Identity:
    """Identify splits by labels, and by names (below their common folder) and sizes of their files."""
    kind = KINDS[task]
    counts = {split: kind.counts(each.labels, len(class_names)) for split, each in splits.items()}
    files = [file for split in splits.values() for file in _files(split)]
    return {
        "classes": {
            name: {split: int(count[label]) for split, count in counts.items()}
            for label, name in enumerate(class_names)
        },
        "labels": _digest(part for each in splits.values() for part in kind.encode(each.labels)),
        "names": _digest(name.encode(errors="surrogateescape") for name, _ in files),
        "sizes": _digest(str(size).encode() for _, size in files),
        "modified": _digest(str(time).encode() for split in splits.values() for time in _times(split)),
    }


def _digest(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _files(split: Split) -> list[tuple[str, int]]:
    """Names and sizes of the files of a split; none for arrays, which are compared by their labels."""
    images = split.images.files if isinstance(split.images, Encoded) else split.images
    if not isinstance(images, tuple) or not images:
        return []
    paths = [os.path.abspath(path) for path in images]  # noqa: PTH100 - a list may mix both kinds of paths
    root = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120 - ten times as fast
    return [(os.path.relpath(path, root), _size(path)) for path in paths]


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1


def _times(split: Split) -> Iterator[int]:
    """Modification times of the image and mask files of a split, in nanoseconds."""
    images = split.images.files if isinstance(split.images, Encoded) else split.images
    masks = split.labels.paths if isinstance(split.labels, Masks) else ()
    for path in (*(images if isinstance(images, tuple) else ()), *masks):
        try:
            yield Path(path).stat().st_mtime_ns
        except OSError:
            yield -1


def difference(before: Identity, now: Identity) -> str | None:
    """Describe in a few words what changed between two identities of the same data; None if nothing did."""
    for verb, one, other in (("added", now, before), ("removed", before, now)):
        if classes := [name for name in one["classes"] if name not in other["classes"]]:
            return f"class {classes[0]!r}{_others(classes, 'classes')} {verb}"
    changed = [name for name, counts in now["classes"].items() if counts != before["classes"][name]]
    if changed:
        then, current = (_counts(each["classes"][changed[0]]) for each in (before, now))
        return f"class {changed[0]!r} had {then}, now {current}{_others(changed, 'classes changed')}"
    if before["names"] != now["names"]:
        return "files were renamed or replaced by others"
    if before["sizes"] != now["sizes"]:
        return "files have other sizes"
    if before["labels"] != now["labels"]:
        return "images have other labels"
    if [*before["classes"]] != [*now["classes"]]:
        return "the classes are in another order"
    recorded = "modified" in before and "modified" in now
    return MODIFIED if recorded and before["modified"] != now["modified"] else None


def _others(names: list[str], what: str) -> str:
    return f" and {len(names) - 1} other {what}" if len(names) > 1 else ""


def _counts(splits: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in splits.items())


def save_identity(dataset: ImageDataset, folder: Path) -> None:
    """Write `data.json`."""
    write_text(folder / DATA, json_text(identity(dataset)) + "\n")


def check_identity(dataset: ImageDataset, folder: Path, cure: str = "") -> None:
    """Refuse to resume a run or study on other data than it was started with; warn if only file times differ.

    Args:
        dataset: `ImageDataset`, the data as they are now.
        folder: Path, the folder with `data.json`; one of an earlier version has none and is accepted.
        cure: String, what to do instead of restoring the data; by default what helps with a single training.

    Raises:
        UserError: Images were added, removed, replaced or relabelled; or `data.json` is damaged.
    """
    changes = _changes(dataset, folder / DATA)
    if changes == MODIFIED:
        logger.warning(
            "%s: %s since %s was started. If they are other images, its results mix both: start anew then.",
            dataset.name,
            MODIFIED,
            folder,
        )
    elif changes:
        cure = cure or f"start a new training, or remove {folder / DATA} to resume on the changed data"
        raise UserError(
            f"The data of {dataset.name} have changed since {folder} was started ({changes}), so its results would mix "
            f"both. Restore them, {cure}."
        )


def warn_if_changed(dataset: ImageDataset, folder: Path) -> None:
    """Warn that the held-out images of a finished run are not those that it was trained without.

    Args:
        dataset: `ImageDataset`, the data of the run as they are now.
        folder: Path, the folder with `data.json`; one of an earlier version has none.

    Raises:
        UserError: `data.json` is damaged.
    """
    changes = _changes(dataset, folder / DATA)
    if changes and changes != MODIFIED:
        logger.warning(
            "The data of %s have changed since %s was started (%s): images that are held out now may have been trained "
            "on, which makes results look better than they are.",
            dataset.name,
            folder,
            changes,
        )


def _changes(dataset: ImageDataset, path: Path) -> str | None:
    """What changed since a record was written; None without a record."""
    if not path.is_file():
        return None
    try:
        before = conform(parse_json(read_text(path)), Identity, "")
    except UserError as error:
        raise UserError(f"{path} is damaged: {str(error).removesuffix('.')}. Remove it to go without it.") from None
    known = next(iter(before["classes"].values()), dict.fromkeys(SPLITS))  # no test images in earlier versions
    return difference(before, identity(dataset, [name for name in SPLITS if name in known]))
