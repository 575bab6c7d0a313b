"""Check a dataset before training: broken files, duplicates, leakage between splits, class imbalance, image sizes.

TensorFlow.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from keras_effnet.datasets.decoding import BadFile, decode_all
from keras_effnet.datasets.findings.data_report import DataReport, Duplicate, DuplicateGroup, Sizes
from keras_effnet.datasets.findings.fingerprints import Fingerprint, fingerprint, group_duplicates, sheet_tile
from keras_effnet.datasets.folders import Progress
from keras_effnet.datasets.labels.conversion import require_task
from keras_effnet.datasets.loading import load
from keras_effnet.datasets.many_files import decode_files
from keras_effnet.datasets.splits import Encoded, ImageDataset, Split

IMBALANCED = 3.0  # ratio of the largest to the smallest class above which class weights are suggested
_TINY = 32  # pixels of the shorter side


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
    duplicates takes quadratic time, see `findings.fingerprints.group_duplicates`.

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
    require_task(dataset.name, dataset.task, "classification", "The check knows one class per image.")
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
