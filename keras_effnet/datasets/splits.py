"""What a labelled data set is, wherever it comes from: images with labels, in parts that never share one.

Imports TensorFlow, `images` and `errors`. The sources below build on it; what becomes of the images is `pipeline`'s
business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import tensorflow as tf

from keras_effnet.datasets.decoding import BadFile, decode, read
from keras_effnet.errors import UserError

# What the parts are called in folders, file names, tables and catalogues.
SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


@dataclass(frozen=True, eq=False)
class Encoded:
    """Images as encoded bytes in a stream that is read in order: TFRecord shards, TFDS.

    Args:
        open: Function that returns the stream, a `tf.data.Dataset` of scalar strings (JPEG, PNG, ...), always in the
            same order.
        size: Int, how many images the stream has, those of other splits included.
        keep: Sorted indices into the stream that belong here; None if all do.
    """

    open: Callable[[], tf.data.Dataset]
    size: int
    keep: np.ndarray | None = None

    def __len__(self) -> int:
        return self.size if self.keep is None else len(self.keep)

    @property
    def positions(self) -> np.ndarray:
        """Where in the stream the images are."""
        return np.arange(self.size) if self.keep is None else self.keep

    def read(self) -> tf.data.Dataset:
        """The images that belong here, in their order, as scalar strings; the number is asserted."""
        data = self.open()
        if self.keep is not None:
            mask = np.zeros(self.keep[-1] + 1 if len(self) else 0, bool)  # what lies behind the last is not read
            mask[self.keep] = True
            wanted = tf.data.Dataset.from_tensor_slices(mask)
            data = tf.data.Dataset.zip((data, wanted)).filter(lambda _, kept: kept).map(lambda contents, _: contents)
        return data.apply(tf.data.experimental.assert_cardinality(len(self)))


@dataclass(frozen=True, eq=False)
class Split:
    """Images with labels.

    Args:
        images: `uint8` array of shape `(N, height, width, 3)`, a tuple of N file paths, or `Encoded`.
        labels: `int32` array of shape `(N,)`, in the same order.
        mirror: Bool, whether a mirrored image is still of its class. False for digits.
    """

    images: np.ndarray | tuple[str, ...] | Encoded
    labels: np.ndarray
    mirror: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: np.ndarray) -> Split:
        """The images at `indices`, in that order.

        A stream (`Encoded`) keeps its own order: there `indices` are taken sorted, each of them once.
        """
        indices = np.asarray(indices, int)
        if isinstance(self.images, Encoded):
            indices = np.unique(indices)
            images = replace(self.images, keep=self.images.positions[indices])
        elif isinstance(self.images, tuple):
            images = tuple(self.images[i] for i in indices)
        else:
            images = self.images[indices]
        return replace(self, images=images, labels=self.labels[indices])

    def sample(self, count: int, seed: int = 0) -> Split:
        """`count` images drawn at random, seeded; if there are no more, all of them in their order."""
        if count >= len(self):
            return self
        return self.select(np.random.default_rng(seed).permutation(len(self))[:count])

    def decoded(self) -> Iterator[np.ndarray]:
        """Yields every image decoded, a `uint8` array of shape `(height, width, 3)`, one after the other.

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
    """Labelled images, split.

    Args:
        name: String.
        class_names: Tuple of names; a label is an index into it.
        train, val: `Split`s. `val` chooses the best checkpoint.
        test: `Split` that training never sees, or None where the source has none.
        skipped: Tuple of `BadFile`, files left out because they cannot be decoded.
        origin: Arguments with which `load` gives this dataset again; empty if it came from elsewhere.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    val: Split
    test: Split | None = None
    skipped: tuple[BadFile, ...] = ()
    origin: dict[str, object] = field(default_factory=dict)

    @property
    def held_out(self) -> Split:
        """`test` where there is one, else `val`."""
        return self.test or self.val

    def folds(self, count: int, seed: int | None = None) -> list[ImageDataset]:
        """The same images in `count` divisions for cross-validation; `test` stays apart in all of them.

        `train` and `val` are pooled and dealt out anew, each class alike, so that every image is validated exactly
        once.

        Args:
            count: Int, at least 2 and at most the images of the rarest class.
            seed: Int; by default the seed that the dataset was loaded with. With another one the folds have no
                `origin`.

        Returns:
            One `ImageDataset` a fold.

        Raises:
            UserError: `count` is below 2, or a class has fewer images than that.
        """
        loaded_with = self.origin.get("seed", 0)
        seed = loaded_with if seed is None else seed
        whole = _join(self.train, self.val)
        totals = np.bincount(whole.labels, minlength=len(self.class_names))
        if count < 2:
            raise UserError(f"Cross-validation takes at least 2 folds, got {count}.")
        if totals.min() < count:
            rarest = self.class_names[totals.argmin()]
            raise UserError(
                f"Class {rarest!r} has {totals.min()} images, too few for {count} folds: each validates on one."
            )
        datasets = []
        for number, held_out in enumerate(k_folds(whole.labels, count, seed), start=1):
            rest = np.setdiff1d(np.arange(len(whole)), held_out)
            origin = self.origin | {"fold": [number, count]} if self.origin and seed == loaded_with else {}
            parts = {"train": whole.select(rest), "val": whole.select(held_out)}
            datasets.append(replace(self, name=f"{self.name}-fold{number}of{count}", origin=origin, **parts))
        return datasets


def _join(first: Split, second: Split) -> Split:
    """Two parts of a dataset as one. Parts of the same stream take its order."""
    labels = np.concatenate([first.labels, second.labels])
    a, b = first.images, second.images
    if not isinstance(a, Encoded):
        return replace(first, images=a + b if isinstance(a, tuple) else np.concatenate([a, b]), labels=labels)
    if a.open is b.open:
        positions = np.concatenate([a.positions, b.positions])
        order = np.argsort(positions)
        return replace(first, images=replace(a, keep=positions[order]), labels=labels[order])
    joined = Encoded(
        lambda: a.open().concatenate(b.open()),
        a.size + b.size,
        np.concatenate([a.positions, a.size + b.positions]),
    )
    return replace(first, images=joined, labels=labels)


@dataclass(frozen=True, eq=False)
class SourceData:
    """What a source holds, before anything is held out of it.

    Args:
        name: String.
        class_names: Tuple of names; a label is an index into it.
        splits: `train`, `val`, `test` -> `Split`. Without `train` and `val` it is there to measure a network with.
        skipped: Tuple of `BadFile`.
        order: None where `train` stands in the order of its source; else, for each of its images, the place it had
            there. Parts are held out in the order of the source, so that a packed copy is divided as the source is.
    """

    name: str
    class_names: tuple[str, ...]
    splits: dict[str, Split]
    skipped: tuple[BadFile, ...] = ()
    order: np.ndarray | None = None

    def divide(self, val_split: float, seed: int) -> ImageDataset:
        """Holds a stratified share of `train` out where there is no `val`.

        Raises:
            UserError: A class has no image to train on, or to validate with.
        """
        splits = dict(self.splits)
        if splits.keys() == {"test"}:
            nothing = splits["test"].select(np.arange(0))
            return ImageDataset(self.name, self.class_names, nothing, nothing, splits["test"], self.skipped)
        if "val" not in splits:
            whole = splits["train"]
            source = np.arange(len(whole)) if self.order is None else np.argsort(self.order)
            train, val = stratified_split(whole.labels[source], (1 - val_split, val_split), seed)
            splits |= {"train": whole.select(source[train]), "val": whole.select(source[val])}
        for split in ("train", "val"):
            missing = sorted(set(range(len(self.class_names))) - set(splits[split].labels.tolist()))
            if missing:
                name = self.class_names[missing[0]]
                raise UserError(f"{self.name}: no usable image of class {name!r} for {split}; add some.")
        return ImageDataset(self.name, self.class_names, **splits, skipped=self.skipped)


def stratified_split(labels: np.ndarray, fractions: Sequence[float], seed: int) -> list[np.ndarray]:
    """Splits indices so that every class is divided alike.

    Args:
        labels: Int array of shape `(N,)`.
        fractions: Shares that sum to 1, one a part.
        seed: Int.

    Returns:
        One sorted index array a part; together they are a permutation of `range(N)`.
    """
    rng = np.random.default_rng(seed)
    parts = [[] for _ in fractions]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.round(np.cumsum(fractions)[:-1] * len(members)).astype(int)
        for part, chunk in zip(parts, np.split(members, cuts), strict=True):
            part.append(chunk)
    return [np.sort(np.concatenate(part)) for part in parts]


def k_folds(labels: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """Deals indices out to `count` folds: each class alike, and all folds of the same size, to one image.

    Args:
        labels: Int array of shape `(N,)`.
        count: Int, folds.
        seed: Int.

    Returns:
        One sorted index array a fold; together they are a permutation of `range(N)`.
    """
    rng = np.random.default_rng(seed)
    # Dealt like cards, one class after the other: the next class begins where the last one ended.
    dealt = np.concatenate([rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)])
    return [np.sort(dealt[number::count]) for number in range(count)]


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Weights that give every class the same influence, whatever its share of the images.

    Args:
        labels: Int array of shape `(N,)`.
        classes: Int, how many classes there are.

    Returns:
        A `float64` array of shape `(classes,)`. Over the images the weights average 1, so that the learning rate
        keeps its meaning; a class without images has 0. `dict(enumerate(...))` is what `model.fit` takes.

    Example:

    >>> class_weights(np.array([0, 0, 0, 1]), 2).round(3).tolist()
    [0.667, 2.0]
    """
    totals = np.bincount(labels, minlength=classes)
    present = totals > 0
    return np.where(present, len(labels) / (present.sum() * np.maximum(totals, 1)), 0.0)
