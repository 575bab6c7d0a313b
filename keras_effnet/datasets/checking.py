"""What is wrong with a data set before a network learns it: broken files, copies, leaks, lopsided classes, sizes.

Imports `datasets`, `splits`, `images`, `fingerprints`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field

import numpy as np

from keras_effnet import datasets
from keras_effnet.datasets.decoding import BadFile, decode_all, decode_files
from keras_effnet.datasets.fingerprints import Fingerprint, fingerprint, group_duplicates, sheet_tile
from keras_effnet.datasets.splits import Encoded, ImageDataset, Split

IMBALANCED = 3.0  # times as many images in the largest class as in the smallest, above which weights are suggested
_TINY = 32  # pixels of the shorter side


@dataclass(frozen=True)
class Duplicate:
    """An image: its path, or `"train[12]"` where it has none; its split and class."""

    name: str
    split: str
    class_name: str


@dataclass(frozen=True)
class DuplicateGroup:
    """Images that are the same.

    Args:
        members: Tuple of `Duplicate`, two or more.
        exact: Bool, whether all are equal byte for byte; otherwise some are nearly so.
    """

    members: tuple[Duplicate, ...]
    exact: bool

    @property
    def leaks(self) -> bool:
        """Whether it has images of several splits, so that a network is tested on what it has learned by heart."""
        return len({member.split for member in self.members}) > 1

    @property
    def contradicts(self) -> bool:
        """Whether the same image has different classes."""
        return len({member.class_name for member in self.members}) > 1


@dataclass(frozen=True)
class Sizes:
    """Smallest, median and largest of the images that could be read; ratios are width over height.

    Args:
        width, height, aspect: Triples of numbers.
        tiny: Int, images whose shorter side is under 32 pixels.
        below: Int, images whose shorter side is under `image_size`: training enlarges them.
        image_size: Int, side of the images that the network will see.
    """

    width: tuple[float, float, float]
    height: tuple[float, float, float]
    aspect: tuple[float, float, float]
    tiny: int
    below: int
    image_size: int


@dataclass(frozen=True)
class DataReport:
    """What `check_data` found.

    Args:
        name: String, of the data set.
        class_names: Tuple of strings.
        counts: Split -> images that can be read, one number a class.
        unreadable: Tuple of `BadFile`.
        groups: Tuple of `DuplicateGroup`.
        sizes: `Sizes`; None if nothing could be read.
        modes: What the files hold -> how many: `{"JPEG RGB": 498, "JPEG L": 2}`.
        total: Int, images in the data set. `checked` is less where only a sample was looked at.
        examples: Class -> small images of it, for a sheet; not part of `to_dict`.
    """

    name: str
    class_names: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    unreadable: tuple[BadFile, ...]
    groups: tuple[DuplicateGroup, ...]
    sizes: Sizes | None
    modes: dict[str, int]
    total: int
    examples: dict[str, list[np.ndarray]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def checked(self) -> int:
        """Number of images looked at, unreadable ones included."""
        return sum(map(sum, self.counts.values())) + len(self.unreadable)

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
        """Split -> how many of its images are also in `train`; of `test`, also in `val`."""
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
        """Training images of the largest class, for each one of the smallest; infinite if that has none."""
        counts = self.counts["train"]
        return max(counts) / min(counts) if min(counts) else float("inf")

    @property
    def class_weights(self) -> dict[int, float]:
        """Weights for `model.fit(class_weight=...)` with which every class counts the same; 0 where it has none."""
        counts = self.counts["train"]
        present = [count for count in counts if count]
        return {
            label: round(sum(present) / (len(present) * count), 4) if count else 0.0
            for label, count in enumerate(counts)
        }

    def to_dict(self) -> dict[str, object]:
        """All of it but the images, ready for JSON."""
        kept = asdict(self) | {"unreadable": [bad._asdict() for bad in self.unreadable], "checked": self.checked}
        del kept["examples"]
        for group, written in zip(self.groups, kept["groups"], strict=True):
            written |= {"leaks": group.leaks, "contradicts": group.contradicts}
        lopsided = self.imbalance if self.imbalance < float("inf") else None  # infinity is no JSON
        return kept | {"leaked": self.leaked, "imbalance": lopsided, "class_weights": self.class_weights}


@dataclass(frozen=True, eq=False)
class _Examined:
    member: Duplicate
    print: Fingerprint
    tile: np.ndarray | None


def _examine(split: str, part: Split, class_names, examples: int, progress) -> list[_Examined | BadFile]:
    """All images of a split, in their order."""
    shown = {index for label in set(part.labels.tolist()) for index in np.flatnonzero(part.labels == label)[:examples]}
    shown = shown if split == "train" else set()
    files = isinstance(part.images, tuple)
    names = part.images if files else [f"{split}[{index}]" for index in range(len(part))]

    def seen(index: int, found: tuple[bytes | None, np.ndarray] | BadFile) -> _Examined | BadFile:
        if isinstance(found, BadFile):
            return found
        contents, pixels = found
        member = Duplicate(names[index], split, class_names[part.labels[index]])
        return _Examined(member, fingerprint(pixels, contents), sheet_tile(pixels) if index in shown else None)

    if files:
        images = decode_files(part.images)
    elif isinstance(part.images, Encoded):
        images = decode_all(part.images.read(), names)
    else:
        images = ((None, pixels) for pixels in part.images)
    return [seen(index, found) for index, found in enumerate(progress(images))]


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
        return tuple(round(float(value), 3) for value in (values.min(), np.median(values), values.max()))

    below = int((shorter < image_size).sum())
    return Sizes(*map(triple, (width, height, width / height)), int((shorter < _TINY).sum()), below, image_size)


def check_data(
    source: str | os.PathLike | ImageDataset,
    *,
    image_size: int = 224,
    near_duplicates: bool = True,
    max_images: int | None = None,
    examples: int = 4,
    val_split: float = 0.2,
    seed: int = 0,
    progress: Callable[[Iterable], Iterable] = iter,
) -> DataReport:
    """Looks at every image once and reports what would spoil a training, or its result.

    Time: each image is decoded once, on all cores; see `fingerprints.groups_of_twins` for that of the
    near duplicates. About 1 kB of memory is kept of each image.

    Args:
        source: What `datasets.load` takes, or what it returned.
        image_size: Int, side of the images that the network will see.
        near_duplicates: Bool, whether to look for images that are almost the same, beside exact copies.
        max_images: Int, how many to look at, drawn at random, seeded; all by default. Copies are found only where
            both were drawn.
        examples: Int, images kept of each class.
        val_split, seed: As for `datasets.load`, where the folder has no `val/`.
        progress: Wraps the iteration over images, for a progress bar.

    Returns:
        A `DataReport`.

    Raises:
        UserError: The source does not exist, or is no data set.

    Example:

    >>> report = keras_effnet.datasets.checking.check_data("digits")
    >>> report.leaked
    {'val': 0, 'test': 0}
    """
    dataset = source
    if not isinstance(source, ImageDataset):
        dataset = datasets.load(source, val_split=val_split, seed=seed, check=False)
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
        examples=shown,
    )
