"""Labelled images of a split, and datasets of such splits, with cross-validation folds. TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from keras_effnet.datasets.decoding import BadFile, decode, read
from keras_effnet.datasets.labels.boxes import BoxProblem
from keras_effnet.datasets.labels.kinds import KINDS
from keras_effnet.datasets.labels.task_names import DataTask
from keras_effnet.datasets.listing.tree import LeftOut
from keras_effnet.datasets.stratification import k_folds
from keras_effnet.errors import UserError

# Accepted names of each split in folders, file names, CSV columns and TensorFlow Datasets.
SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


@dataclass(frozen=True, eq=False)
class Encoded:
    """Encoded images in a sequential stream, such as TFRecord shards or TensorFlow Datasets.

    Args:
        open: Function that opens the stream: a `tf.data.Dataset` of scalar strings (JPEG, PNG, ...) in a fixed order.
        size: Int, number of images in the stream, including those of other splits.
        keep: Sorted int array of the stream indices that belong to this split; None for all.
        files: Tuple of strings, the paths that the stream reads, where they are known.
    """

    open: Callable[[], tf.data.Dataset]
    size: int
    keep: np.ndarray | None = None
    files: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.size if self.keep is None else len(self.keep)

    @property
    def positions(self) -> np.ndarray:
        """Stream indices of the images, an int array."""
        return np.arange(self.size) if self.keep is None else self.keep

    def read(self) -> tf.data.Dataset:
        """Read the selected images as scalar strings, in stream order and with a known cardinality."""
        data = self.open()
        if self.keep is not None:
            # The mask ends at the last selected image, so the rest of the stream is not read.
            mask = np.zeros(self.keep[-1] + 1 if len(self) else 0, bool)
            mask[self.keep] = True
            wanted = tf.data.Dataset.from_tensor_slices(mask)
            data = tf.data.Dataset.zip((data, wanted)).filter(lambda _, kept: kept).map(lambda contents, _: contents)
        return data.apply(tf.data.experimental.assert_cardinality(len(self)))


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images of one split.

    Args:
        images: `uint8` array of shape `(N, height, width, 3)` with values 0..255, a tuple of N file paths, or
            `Encoded`.
        labels: In the same order, by the dataset's task: `int32` array of shape `(N,)`, numbers of classes
            (classification, binary); `float32` array of shape `(N, L)`, 0 or 1 for each label (multilabel) or values
            (regression); `Masks` (segmentation).
        mirror: Bool, whether horizontal flips preserve the class. False for digits.
    """

    images: np.ndarray | tuple[str, ...] | Encoded
    labels: Any
    mirror: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def pixels(self) -> np.ndarray:
        """Images of an in-memory split, `uint8` of shape `(N, height, width, 3)`.

        Raises:
            TypeError: The split holds files or a stream.
        """
        if not isinstance(self.images, np.ndarray):
            raise TypeError(f"The images of this split are not in memory but {type(self.images).__name__}.")
        return self.images

    @property
    def paths(self) -> tuple[str, ...]:
        """File paths of a split that consists of files.

        Raises:
            TypeError: The split holds arrays or a stream.
        """
        if not isinstance(self.images, tuple):
            raise TypeError(f"The images of this split are not files but {type(self.images).__name__}.")
        return self.images

    @property
    def encoded(self) -> Encoded:
        """Stream of a split that is read sequentially.

        Raises:
            TypeError: The split holds arrays or files.
        """
        if not isinstance(self.images, Encoded):
            raise TypeError(f"The images of this split are not a stream but {type(self.images).__name__}.")
        return self.images

    def select(self, indices: np.ndarray) -> Split:
        """Select the images at `indices`, in that order.

        A stream (`Encoded`) keeps its own order: its `indices` are sorted and made unique.

        Args:
            indices: Int array.
        """
        indices = np.asarray(indices, int)
        images: np.ndarray | tuple[str, ...] | Encoded
        if isinstance(self.images, Encoded):
            indices = np.unique(indices)
            images = replace(self.images, keep=self.images.positions[indices])
        elif isinstance(self.images, tuple):
            images = tuple(self.images[i] for i in indices)
        else:
            images = self.images[indices]
        return replace(self, images=images, labels=self.labels[indices])

    def sample(self, count: int, seed: int = 0) -> Split:
        """Draw `count` images at random without replacement; the whole split, in order, if it is not larger."""
        if count >= len(self):
            return self
        return self.select(np.random.default_rng(seed).permutation(len(self))[:count])

    def decoded(self) -> Iterator[np.ndarray]:
        """Decode the images one by one, in order.

        Yields:
            `uint8` arrays of shape `(height, width, 3)`.

        Raises:
            UserError: A file is missing or cannot be decoded.
        """
        if isinstance(self.images, Encoded):
            decoded = self.images.read().map(decode, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
            yield from decoded.as_numpy_iterator()
        else:
            yield from (read(item) if isinstance(item, str) else item for item in self.images)


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labelled images in training, validation and test splits.

    Args:
        name: String.
        class_names: Tuple of strings: classes, to which labels are indices; labels (multilabel); names of the values
            (regression).
        train: `Split` to train on.
        val: `Split` that selects the best checkpoint.
        test: `Split` that training never sees; None if the source has none.
        skipped: Tuple of `BadFile`, files left out because they cannot be decoded.
        origin: Arguments with which `load` returns this dataset again; empty if it was created otherwise.
        left_out: Tuple of `LeftOut(path, kind)`, files and folders that may be or contain images but are not read.
        task: String, what the labels are for, see `labels.task_names`.
        problems: Tuple of `BoxProblem`, boxes that were corrected or left out.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    val: Split
    test: Split | None = None
    skipped: tuple[BadFile, ...] = ()
    origin: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    task: DataTask = "classification"
    problems: tuple[BoxProblem, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names of classes that a file with a name per line cannot hold."""
        if bad := [name for name in self.class_names if not name.strip() or "\n" in name]:
            raise UserError(f"{self.name} has a class named {bad[0]!r}: a name needs text, on one line. Rename it.")

    @property
    def held_out(self) -> Split:
        """`test` if it exists, otherwise `val`."""
        return self.test or self.val

    def folds(self, count: int, seed: int | None = None) -> list[ImageDataset]:
        """Divide the dataset into stratified cross-validation folds.

        `train` and `val` are pooled and divided anew, so that every image is used for validation exactly once.
        `test` is the same in all folds.

        Args:
            count: Int, number of folds: at least 2, at most the number of images of the rarest class.
            seed: Int; by default the seed that the dataset was loaded with. With a different seed the folds have no
                `origin`.

        Returns:
            List of `count` `ImageDataset`s.

        Raises:
            UserError: `count` is below 2, or a class has fewer than `count` images.
        """
        loaded_with = self.origin.get("seed", 0)
        seed = loaded_with if seed is None else seed
        kind = KINDS[self.task]
        whole = _join(self.train, self.val, kind.join)
        totals = kind.counts(whole.labels, len(self.class_names))
        if count < 2:
            raise UserError(f"Cross-validation needs at least 2 folds, got {count}.")
        if totals.min() < count:
            rarest = self.class_names[totals.argmin()]
            raise UserError(
                f"{kind.noun.capitalize()} {rarest!r} has {totals.min()} images, too few for {count} folds: each fold "
                "needs one to validate on."
            )
        datasets = []
        for number, held_out in enumerate(k_folds(kind.strata(whole.labels), count, seed), start=1):
            rest = np.setdiff1d(np.arange(len(whole)), held_out)
            origin = self.origin | {"fold": [number, count]} if self.origin and seed == loaded_with else {}
            fold = replace(self, train=whole.select(rest), val=whole.select(held_out), origin=origin)
            datasets.append(replace(fold, name=f"{self.name}-fold{number}of{count}"))
        return datasets


def _join(first: Split, second: Split, join: Callable[[Any, Any], Any]) -> Split:
    """Concatenate two splits of a dataset. Splits of the same stream are merged in stream order."""
    labels = join(first.labels, second.labels)
    if isinstance(first.images, tuple):
        return replace(first, images=first.paths + second.paths, labels=labels)
    if isinstance(first.images, np.ndarray):
        return replace(first, images=np.concatenate([first.pixels, second.pixels]), labels=labels)
    a, b = first.encoded, second.encoded
    if a.open is b.open:
        positions = np.concatenate([a.positions, b.positions])
        order = np.argsort(positions)
        return replace(first, images=replace(a, keep=positions[order]), labels=labels[order])
    joined = Encoded(
        lambda: a.open().concatenate(b.open()),
        a.size + b.size,
        np.concatenate([a.positions, a.size + b.positions]),
        a.files + b.files,
    )
    return replace(first, images=joined, labels=labels)
