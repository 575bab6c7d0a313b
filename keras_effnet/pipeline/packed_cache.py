"""Training from a packed, downscaled copy beside the data: `train --cache packed`. TensorFlow.

The copy is one of `datasets.packing.pack`, so it is complete or absent, and can be trained on directly, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_effnet.datasets.decoding import decode
from keras_effnet.datasets.findings.data_identity import difference, identity_of
from keras_effnet.datasets.folders import Progress
from keras_effnet.datasets.loading import load
from keras_effnet.datasets.packing import pack
from keras_effnet.datasets.readers import read_source
from keras_effnet.datasets.splits import Encoded, ImageDataset, Split
from keras_effnet.datasets.tfrecord.packed import read_index
from keras_effnet.datasets.tfrecord.stored_images import shrink, size_limit
from keras_effnet.errors import UserError
from keras_effnet.pipeline.batches import image_pipeline
from keras_effnet.pipeline.caching import Cache, cached_split
from keras_effnet.preprocessing import ImageSpec

PACKED = "packed"
TASKS = ("classification", "binary", "multilabel", "regression")  # labels that no scale changes

_SAMPLE_SIZE = 16  # images that are read to estimate what packing saves
_PASSES = 3  # over the sample; the first starts threads and traces
_WORTH_IT = 1.3  # times faster, to be offered


def obstacle(dataset: ImageDataset) -> str | None:
    """Reason why a dataset cannot be packed beside its source, with the cure; None if it can."""
    source = str(dataset.origin.get("source", ""))
    if dataset.task not in TASKS:
        return f"it does not cover {dataset.task}: `keras-effnet pack` makes a copy that `train` reads"
    if isinstance(dataset.train.images, np.ndarray):
        return f"the images of {dataset.name} are in memory already; leave it out"
    if not isinstance(dataset.train.images, tuple):
        return f"{dataset.name} is no folder or list of image files but already a stream; leave it out"
    if not source or not Path(source).exists():
        return f"it is not known where {dataset.name} lies: load it by datasets.load"
    return None


def packed_folder(dataset: ImageDataset, size: int) -> Path:
    """Folder of the copy for a training size, beside the source of a dataset."""
    source = Path(dataset.origin["source"])
    return source.with_name(f"{source.name}.packed-{size}")


@dataclass(frozen=True)
class Saving:
    """What a packed copy saves, estimated from a few images.

    Args:
        bytes: Float, size of the image files.
        packed_bytes: Float, size of the copy.
        seconds: Float, duration of reading the training images once.
        packed_seconds: Float, the same from the copy.
    """

    bytes: float
    packed_bytes: float
    seconds: float
    packed_seconds: float

    @property
    def worth_offering(self) -> bool:
        """Whether reading gets faster by more than chance."""
        return self.seconds > _WORTH_IT * self.packed_seconds

    def __str__(self) -> str:
        return (
            f"{_size(self.bytes)} of image files become about {_size(self.packed_bytes)}, and reading an epoch takes "
            f"about {_duration(self.packed_seconds)} instead of {_duration(self.seconds)}"
        )


def _size(number: float) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e8 else f"{number / 1e6:.1f} MB"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def estimate(dataset: ImageDataset, size: int) -> Saving:
    """Estimate what packing a dataset of files would save, by reading 16 of its images both ways.

    Args:
        dataset: `ImageDataset` without an `obstacle`.
        size: Int, largest image size of the training, in pixels.
    """
    sample = dataset.train.sample(_SAMPLE_SIZE)
    originals = [Path(path).read_bytes() for path in sample.paths]
    packed = [shrink(each, decode(each).numpy(), size_limit(size))[0] for each in originals]
    images = sum(len(split) for split in (dataset.train, dataset.val, dataset.test) if split is not None)
    stored = [images * sum(map(len, each)) / len(sample) for each in (originals, packed)]
    copy = replace(sample, images=Encoded(lambda: tf.data.Dataset.from_tensor_slices(packed), len(packed)))
    seconds = [len(dataset.train) * _seconds_per_image(split, size) for split in (sample, copy)]
    return Saving(stored[0], stored[1], seconds[0], seconds[1])


def _seconds_per_image(split: Split, size: int) -> float:
    """Duration of reading and cropping an image for training, while nothing else happens."""
    labels = np.zeros(len(split), "int32")  # what they are costs nothing
    images = cached_split(replace(split, labels=labels), Cache("none"))
    batches = image_pipeline(images, ImageSpec(size), len(split), training=True, epochs=(0, _PASSES))
    iterator = iter(batches)
    next(iterator)
    started = time.perf_counter()
    for _ in iterator:
        pass
    return (time.perf_counter() - started) / ((_PASSES - 1) * len(split))


def packed_dataset(
    dataset: ImageDataset,
    size: int,
    announce: Callable[[str], None] = lambda line: None,
    progress: Callable[[str, int], Progress] = lambda description, total: iter,
) -> ImageDataset:
    """Return a dataset with the images of its packed copy, which is made first if it is absent or out of date.

    Args:
        dataset: `ImageDataset` of image files, as `datasets.load` returns it.
        size: Int, largest image size of the training, in pixels.
        announce: Function called with a line of text for each thing that is done.
        progress: Function of a description and a total that returns a wrapper of an iteration, for a progress bar.

    Returns:
        An `ImageDataset` with the same classes, labels and splits, in another order.

    Raises:
        UserError: The data cannot be packed, or the folder beside it not be written.
    """
    if reason := obstacle(dataset):
        raise UserError(f"cache={PACKED!r} is not possible: {reason}.")
    folder, origin = packed_folder(dataset, size), dict(dataset.origin)
    source = origin.pop("source")
    reading = {name: origin[name] for name in ("task", "seed", "max_bad_files", "skip_empty_classes") if name in origin}
    changes = _changes(folder, source, reading)
    if changes is not None:
        announce(f"Packed images: {estimate(dataset, size)}; writing {folder}{changes}.")
        pack(source, folder, size=size, overwrite=True, progress=progress, **reading)
    return replace(load(folder, **origin), name=dataset.name)


def _changes(folder: Path, source: str, reading: dict) -> str | None:
    """Why a copy has to be written: "" if there is none, else what changed since; None if it is up to date."""
    index = read_index(folder)
    if index is None:
        return ""
    parts = read_source(source, check=reading.get("skip_empty_classes", False), **reading)
    current = identity_of(parts.class_names, parts.splits, parts.task)
    if "data" not in index:
        return " again, because it does not record the data"
    changed = difference(index["data"], current)
    return f" again, because the data have changed: {changed}" if changed else None
