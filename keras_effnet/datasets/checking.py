"""Check a dataset before training: broken files, duplicates, leakage between splits, class imbalance, image sizes.

TensorFlow.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from keras_effnet.datasets.decoding import BadFile, decode_all
from keras_effnet.datasets.fingerprints import Fingerprint, fingerprint, group_duplicates, sheet_tile
from keras_effnet.datasets.folders import Progress
from keras_effnet.datasets.listing.tree import LeftOut
from keras_effnet.datasets.loading import load
from keras_effnet.datasets.many_files import decode_files
from keras_effnet.datasets.splits import Encoded, ImageDataset, Split

IMBALANCED = 3.0  # ratio of the largest to the smallest class above which class weights are suggested
_TINY = 32  # pixels of the shorter side


@dataclass(frozen=True)
class Duplicate:
    """One image of a group of duplicates.

    Args:
        name: String, its path, or its index in the split: `"train[12]"`.
        split: String, `"train"`, `"val"` or `"test"`.
        class_name: String.
    """

    name: str
    split: str
    class_name: str


@dataclass(frozen=True)
class DuplicateGroup:
    """Group of duplicate images.

    Args:
        members: Tuple of `Duplicate`, two or more.
        exact: Bool, True if all are byte-for-byte equal, False if some are near duplicates.
    """

    members: tuple[Duplicate, ...]
    exact: bool

    @property
    def leaks(self) -> bool:
        """Whether images of several splits are in the group, so that a network is tested on images it has seen."""
        return len({member.split for member in self.members}) > 1

    @property
    def contradicts(self) -> bool:
        """Whether images of several classes are in the group."""
        return len({member.class_name for member in self.members}) > 1


@dataclass(frozen=True)
class Sizes:
    """Image sizes, over all images that can be decoded.

    Args:
        width: Triple of floats, smallest, median and largest width in pixels.
        height: The same for the height.
        aspect: The same for width over height.
        tiny: Int, number of images whose shorter side is below 32 pixels.
        below: Int, number of images whose shorter side is below `image_size`, so that training upscales them.
        image_size: Int, input size of the network in pixels.
    """

    width: tuple[float, float, float]
    height: tuple[float, float, float]
    aspect: tuple[float, float, float]
    tiny: int
    below: int
    image_size: int


@dataclass(frozen=True)
class DataReport:
    """Findings of `check_data`.

    Args:
        name: String, name of the dataset.
        class_names: Tuple of strings.
        counts: Dict of split to tuple of ints, the decodable images of each class.
        unreadable: Tuple of `BadFile`.
        groups: Tuple of `DuplicateGroup`.
        sizes: `Sizes`; None if no image can be decoded.
        modes: Dict of file format and colour mode to number of files: `{"JPEG RGB": 498, "JPEG L": 2}`.
        left_out: Tuple of `LeftOut(path, kind)`, files and folders that may be or contain images but are not read.
        total: Int, images in the dataset; larger than `checked` if only a sample was checked.
        examples: Dict of class to thumbnails, `uint8` arrays of shape `(96, 96, 3)`; not part of `to_dict`.
    """

    name: str
    class_names: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    unreadable: tuple[BadFile, ...]
    groups: tuple[DuplicateGroup, ...]
    sizes: Sizes | None
    modes: dict[str, int]
    total: int
    left_out: tuple[LeftOut, ...] = ()
    examples: dict[str, list[np.ndarray]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def checked(self) -> int:
        """Number of images checked, including unreadable ones."""
        return sum(map(sum, self.counts.values())) + len(self.unreadable)

    @property
    def empty_classes(self) -> tuple[str, ...]:
        """Classes without a decodable image in `train`, which cannot be trained on; unknown from a sample."""
        if self.checked < self.total or not sum(self.counts["train"]):
            return ()
        return tuple(name for name, count in zip(self.class_names, self.counts["train"], strict=True) if not count)

    @property
    def leaks(self) -> tuple[DuplicateGroup, ...]:
        """Groups with images of several splits."""
        return tuple(group for group in self.groups if group.leaks)

    @property
    def contradictions(self) -> tuple[DuplicateGroup, ...]:
        """Groups with images of several classes."""
        return tuple(group for group in self.groups if group.contradicts)

    @property
    def leaked(self) -> dict[str, int]:
        """Number of images of `val` that are also in `train`, and of `test` that are also in `train` or `val`."""
        earlier = {"val": {"train"}, "test": {"train", "val"}}
        found = dict.fromkeys((split for split in self.counts if split in earlier), 0)
        for group in self.leaks:
            splits = {member.split for member in group.members}
            for member in group.members:
                if splits & earlier.get(member.split, set()):
                    found[member.split] += 1
        return found

    @property
    def imbalance(self) -> float:
        """Ratio of training images of the largest and the smallest class; infinite if a class has none."""
        counts = self.counts["train"]
        return max(counts) / min(counts) if min(counts) else float("inf")

    @property
    def class_weights(self) -> dict[int, float]:
        """Balanced weights for `model.fit(class_weight=...)`; 0 for a class without training images."""
        counts = self.counts["train"]
        present = [count for count in counts if count]
        return {
            label: round(sum(present) / (len(present) * count), 4) if count else 0.0
            for label, count in enumerate(counts)
        }

    def to_dict(self) -> dict[str, Any]:
        """Convert the report, without the thumbnails, to a dict for JSON."""
        kept: dict[str, Any] = asdict(self) | {
            "unreadable": [bad._asdict() for bad in self.unreadable],
            "left_out": [item._asdict() for item in self.left_out],
            "empty_classes": list(self.empty_classes),
            "checked": self.checked,
        }
        del kept["examples"]
        for group, written in zip(self.groups, kept["groups"], strict=True):
            written |= {"leaks": group.leaks, "contradicts": group.contradicts}
        imbalance = self.imbalance if self.imbalance < float("inf") else None  # JSON has no infinity
        return kept | {"leaked": self.leaked, "imbalance": imbalance, "class_weights": self.class_weights}


@dataclass(frozen=True, eq=False)
class _Examined:
    member: Duplicate
    print: Fingerprint
    tile: np.ndarray | None


def _decoded(part: Split, names: Sequence[str]) -> Iterator[tuple[bytes | None, np.ndarray] | BadFile]:
    """Yield the bytes (None if there is no file) and the pixels of every image of a split, in order."""
    if isinstance(part.images, tuple):
        yield from decode_files(part.images)
    elif isinstance(part.images, Encoded):
        yield from decode_all(part.images.read(), names)
    else:
        yield from ((None, pixels) for pixels in part.images)


def _examine(
    split: str, part: Split, class_names: Sequence[str], examples: int, progress: Progress
) -> list[_Examined | BadFile]:
    """Fingerprint all images of a split, in order, and keep thumbnails of the first training images of each class."""
    labels = set(part.labels.tolist()) if split == "train" else set()
    shown = {index for label in labels for index in np.flatnonzero(part.labels == label)[:examples]}
    names = part.images if isinstance(part.images, tuple) else [f"{split}[{index}]" for index in range(len(part))]

    def examined(index: int, found: tuple[bytes | None, np.ndarray] | BadFile) -> _Examined | BadFile:
        if isinstance(found, BadFile):
            return found
        contents, pixels = found
        member = Duplicate(names[index], split, class_names[part.labels[index]])
        return _Examined(member, fingerprint(pixels, contents), sheet_tile(pixels) if index in shown else None)

    return [examined(index, found) for index, found in enumerate(progress(_decoded(part, names)))]


def _groups(seen: list[_Examined], near: bool) -> tuple[DuplicateGroup, ...]:
    groups = group_duplicates([item.print for item in seen], near)
    return tuple(
        DuplicateGroup(
            tuple(seen[index].member for index in group), len({seen[index].print.digest for index in group}) == 1
        )
        for group in groups
    )


def _sizes(seen: list[_Examined], image_size: int) -> Sizes | None:
    if not seen:
        return None
    width, height = (np.array([getattr(item.print, side) for item in seen]) for side in ("width", "height"))
    shorter = np.minimum(width, height)

    def triple(values: np.ndarray) -> tuple[float, float, float]:
        return round(float(values.min()), 3), round(float(np.median(values)), 3), round(float(values.max()), 3)

    return Sizes(
        width=triple(width),
        height=triple(height),
        aspect=triple(width / height),
        tiny=int((shorter < _TINY).sum()),
        below=int((shorter < image_size).sum()),
        image_size=image_size,
    )


def check_data(
    source: str | os.PathLike | ImageDataset,
    *,
    image_size: int = 224,
    near_duplicates: bool = True,
    max_images: int | None = None,
    examples: int = 4,
    val_split: float = 0.2,
    seed: int = 0,
    skip_empty_classes: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> DataReport:
    """Check every image of a dataset for defects that would spoil training or its evaluation.

    Every image is decoded once, on all cores, and about 1 kB of memory is kept for each. The search for near
    duplicates takes quadratic time, see `fingerprints.group_duplicates`.

    Args:
        source: Source as `datasets.load` takes it, or an `ImageDataset`.
        image_size: Int, input size of the network in pixels.
        near_duplicates: Bool, whether to search for near duplicates in addition to exact ones.
        max_images: Int, size of a random sample to check; by default all images are checked. Duplicates are found
            within the sample only.
        examples: Int, thumbnails kept of each class.
        val_split: Float in (0, 1), as in `datasets.load`.
        seed: Int, seed of the split and of the sample.
        skip_empty_classes: Bool, whether class folders may be empty.
        progress: Wraps the iteration over images, for a progress bar.

    Returns:
        A `DataReport`.

    Raises:
        UserError: The source does not exist or is not a dataset.

    Example:

    >>> report = keras_effnet.datasets.check_data("digits")
    >>> report.leaked
    {'val': 0, 'test': 0}
    """
    if isinstance(source, ImageDataset):
        dataset = source
    else:
        dataset = load(source, val_split=val_split, seed=seed, skip_empty_classes=skip_empty_classes, check=False)
    splits = {name: part for name in ("train", "val", "test") if (part := getattr(dataset, name)) is not None}
    total = sum(map(len, splits.values()))
    if max_images is not None and max_images < total:
        splits = {name: part.sample(round(max_images * len(part) / total), seed) for name, part in splits.items()}

    found = [
        item for name, part in splits.items() for item in _examine(name, part, dataset.class_names, examples, progress)
    ]
    seen = [item for item in found if isinstance(item, _Examined)]
    bad = [*dataset.skipped, *(item for item in found if isinstance(item, BadFile))]
    tally = Counter((item.member.split, item.member.class_name) for item in seen)
    counts = {split: tuple(tally[split, name] for name in dataset.class_names) for split in splits}
    shown: dict[str, list[np.ndarray]] = {name: [] for name in dataset.class_names}
    for item in seen:
        if item.tile is not None:
            shown[item.member.class_name].append(item.tile)
    return DataReport(
        name=dataset.name,
        class_names=tuple(dataset.class_names),
        counts=counts,
        unreadable=tuple(bad),
        groups=_groups(seen, near_duplicates),
        sizes=_sizes(seen, image_size),
        modes=dict(Counter(item.print.mode for item in seen).most_common()),
        total=total + len(dataset.skipped),
        left_out=dataset.left_out,
        examples=shown,
    )
