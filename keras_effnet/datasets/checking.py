"""Check a dataset before training: broken files, duplicates, leakage between splits, class imbalance, image sizes.

TensorFlow.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_effnet.datasets.decoding import BadFile, decode_all
from keras_effnet.datasets.findings.data_report import DataReport, Duplicate, DuplicateGroup, Sizes
from keras_effnet.datasets.findings.fingerprints import Fingerprint, fingerprint, group_duplicates, sheet_tile
from keras_effnet.datasets.findings.label_findings import LABEL_FINDINGS, LabelFindings
from keras_effnet.datasets.findings.label_summary import Checked, LabelSummary
from keras_effnet.datasets.folders import Progress
from keras_effnet.datasets.labels.kinds import KINDS
from keras_effnet.datasets.labels.task_names import DataTask
from keras_effnet.datasets.loading import load
from keras_effnet.datasets.many_files import decode_files
from keras_effnet.datasets.splits import Encoded, ImageDataset, Split

IMBALANCED = 3.0  # ratio of the largest to the smallest class above which class weights are suggested
_TINY = 32  # pixels of the shorter side
_ALL = 10**9  # unusable files are findings here


@dataclass(frozen=True, eq=False)
class _Examined:
    member: Duplicate
    index: int
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
    split: str,
    part: Split,
    class_names: Sequence[str],
    kind: LabelFindings,
    shown: Collection[int],
    progress: Progress,
) -> list[_Examined | BadFile]:
    """Fingerprint all images of a split, in order, and keep thumbnails of those at the indices `shown`."""
    names = part.images if isinstance(part.images, tuple) else [f"{split}[{index}]" for index in range(len(part))]

    def examined(index: int, found: tuple[bytes | None, np.ndarray] | BadFile) -> _Examined | BadFile:
        if isinstance(found, BadFile):
            return found
        contents, pixels = found
        member = Duplicate(names[index], split, kind.text(part.labels, index, class_names))
        drawn = kind.draw(pixels, part.labels, index, class_names) if index in shown else None
        tile = None if drawn is None else sheet_tile(drawn, kind.tile)
        return _Examined(member, index, fingerprint(pixels, contents), tile)

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
    image_size: int | None = None,
    near_duplicates: bool = True,
    max_images: int | None = None,
    examples: int = 4,
    val_split: float = 0.2,
    seed: int = 0,
    skip_empty_classes: bool = False,
    task: DataTask | None = None,
    also: Mapping[str, Callable[[Mapping[str, Any], Sequence[str], Checked], LabelSummary]] | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> DataReport:
    """Check every image of a dataset for defects that would spoil training or its evaluation.

    Every image is decoded once, on all cores, and about 1 kB of memory is kept for each. The search for near
    duplicates takes quadratic time, see `findings.fingerprints.group_duplicates`.

    Args:
        source: Source as `datasets.load` takes it, or an `ImageDataset`.
        image_size: Int, input size of the network in pixels; by default 224, or 320 for boxes.
        near_duplicates: Bool, whether to search for near duplicates in addition to exact ones.
        max_images: Int, size of a random sample to check; by default all images are checked. Duplicates are found
            within the sample only.
        examples: Int, thumbnails kept of each class or label. Of values, masks and boxes, 24 images are
            kept.
        val_split: Float in (0, 1), as in `datasets.load`.
        seed: Int, seed of the split and of the sample.
        skip_empty_classes: Bool, whether class folders may be empty.
        task: String, what the labels are for, as in `datasets.load`; by default it follows from the data.
        also: Mapping of task to a further check of the labels: a function from a dict of split to labels, names, and
            `Checked`, to a `LabelSummary`, such as `detection.anchor_check`.
        progress: Wraps the iteration over images, for a progress bar.

    Returns:
        A `DataReport`.

    Raises:
        UserError: The source does not exist or is not a dataset.

    Example:

    >>> report = keras_effnet.datasets.check_data("digits")
    >>> report.leaked
    {'val': 2, 'test': 4}
    """
    if isinstance(source, ImageDataset):
        dataset = source
    else:
        dataset = load(
            source,
            task=task,
            val_split=val_split,
            seed=seed,
            skip_empty_classes=skip_empty_classes,
            check=False,
            max_bad_files=_ALL,
        )
    kind = LABEL_FINDINGS[dataset.task]
    splits = {name: part for name in ("train", "val", "test") if (part := getattr(dataset, name)) is not None}
    total = sum(map(len, splits.values()))
    if max_images is not None and max_images < total:
        splits = {name: part.sample(round(max_images * len(part) / total), seed) for name, part in splits.items()}

    shown = kind.shown(splits["train"].labels, dataset.class_names, examples)
    chosen = {"train": {index for places in shown.values() for index in places}}
    found = {
        name: _examine(name, part, dataset.class_names, kind, chosen.get(name, ()), progress)
        for name, part in splits.items()
    }
    good = {name: [item for item in items if isinstance(item, _Examined)] for name, items in found.items()}
    seen = [item for items in good.values() for item in items]
    bad = [*dataset.skipped, *(item for items in found.values() for item in items if isinstance(item, BadFile))]
    labels = {name: part.labels[np.array([item.index for item in good[name]], int)] for name, part in splits.items()}
    names = len(dataset.class_names)
    counts = {name: tuple(KINDS[dataset.task].counts(each, names).tolist()) for name, each in labels.items()}
    checked = Checked(image_size or kind.image_size, dataset.problems)
    further = (also or {}).get(dataset.task, lambda *_: LabelSummary((), {}))
    tiles = {item.index: item.tile for item in good["train"]}
    return DataReport(
        name=dataset.name,
        class_names=tuple(dataset.class_names),
        counts=counts,
        unreadable=tuple(bad),
        groups=_groups(seen, near_duplicates),
        sizes=_sizes(seen, checked.image_size),
        modes=dict(Counter(item.print.mode for item in seen).most_common()),
        total=total + len(dataset.skipped),
        left_out=dataset.left_out,
        examples={
            title: [tile for index in places if (tile := tiles.get(index)) is not None]
            for title, places in shown.items()
        },
        task=dataset.task,
        images={name: len(items) for name, items in good.items()},
        labels=kind.summarize(labels, dataset.class_names, checked) + further(labels, dataset.class_names, checked),
    )
