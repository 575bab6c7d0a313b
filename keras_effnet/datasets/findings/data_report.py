"""What a check of a dataset found: counts, duplicates, leakage between splits, image sizes. TensorFlow."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from keras_effnet.datasets.decoding import BadFile
from keras_effnet.datasets.findings.label_findings import LABEL_FINDINGS
from keras_effnet.datasets.findings.label_summary import LabelSummary
from keras_effnet.datasets.listing.tree import LeftOut


@dataclass(frozen=True)
class Duplicate:
    """One image of a group of duplicates.

    Args:
        name: String, its path, or its index in the split: `"train[12]"`.
        split: String, `"train"`, `"val"` or `"test"`.
        class_name: String, its class; or its labels, values or mask as text.
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
        counts: Dict of split to tuple of ints, the decodable images of each class or label, or with boxes of it; of
            values and masks, all.
        unreadable: Tuple of `BadFile`.
        groups: Tuple of `DuplicateGroup`.
        sizes: `Sizes`; None if no image can be decoded.
        modes: Dict of file format and colour mode to number of files: `{"JPEG RGB": 498, "JPEG L": 2}`.
        left_out: Tuple of `LeftOut(path, kind)`, files and folders that may be or contain images but are not read.
        total: Int, images in the dataset; larger than `checked` if only a sample was checked.
        examples: Dict of class or title to square thumbnails, `uint8` arrays of shape `(side, side, 3)`; not part of
            `to_dict`.
        task: String, what the labels are for.
        images: Dict of split to the number of images that can be decoded.
        labels: `LabelSummary`.
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
    task: str = "classification"
    images: dict[str, int] = field(default_factory=dict)
    labels: LabelSummary = field(default_factory=lambda: LabelSummary((), {}), repr=False)

    @property
    def checked(self) -> int:
        """Number of images checked, including unreadable ones."""
        return sum(self.images.values()) + len(self.unreadable)

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
    def weighed(self) -> bool:
        """Whether weights can balance the classes, in `fit(class_weight=...)`."""
        return LABEL_FINDINGS[self.task].weighed

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
        del kept["examples"], kept["labels"]
        for group, written in zip(self.groups, kept["groups"], strict=True):
            written |= {"leaks": group.leaks, "contradicts": group.contradicts}
        kept |= {"leaked": self.leaked} | self.labels.details
        if not self.weighed:
            return kept
        imbalance = self.imbalance if self.imbalance < float("inf") else None  # JSON has no infinity
        return kept | {"imbalance": imbalance, "class_weights": self.class_weights}
