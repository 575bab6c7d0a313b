"""Contents of a data source, and how they are divided into training, validation and test images. TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_effnet.datasets.decoding import BadFile
from keras_effnet.datasets.labels.boxes import BoxProblem
from keras_effnet.datasets.labels.kinds import KINDS
from keras_effnet.datasets.labels.task_names import DataTask
from keras_effnet.datasets.listing.tree import LeftOut
from keras_effnet.datasets.splits import ImageDataset, Split
from keras_effnet.datasets.stratification import stratified_split
from keras_effnet.errors import UserError


@dataclass(frozen=True, eq=False)
class SourceData:
    """Contents of a source before a validation split is held out.

    Args:
        name: String.
        class_names: Tuple of strings, as in `ImageDataset`.
        splits: Dict of `"train"`, `"val"`, `"test"` to `Split`. With `"test"` alone the data is for evaluation only.
        skipped: Tuple of `BadFile`.
        order: Int array with the original index of each image of `train`; None if `train` is in its original order.
            The split is drawn in the original order, so that a packed copy is divided like its source.
        left_out: Tuple of `LeftOut`, files and folders that may be or contain images but are not read.
        task: String, what the labels are for.
        problems: Tuple of `BoxProblem`, as in `ImageDataset`.
    """

    name: str
    class_names: tuple[str, ...]
    splits: dict[str, Split]
    skipped: tuple[BadFile, ...] = ()
    order: np.ndarray | None = None
    left_out: tuple[LeftOut, ...] = ()
    task: DataTask = "classification"
    problems: tuple[BoxProblem, ...] = ()

    def divide(self, val_split: float, seed: int, test_split: float = 0.0) -> ImageDataset:
        """Hold out stratified shares of `train` for test and validation if the source has no `test` or no `val`.

        Args:
            val_split: Float in (0, 1), share of the images held out for validation, of what the test leaves.
            seed: Int.
            test_split: Float in [0, 1), share of the images held out for test; 0 for no `test`.

        Raises:
            UserError: A class has no image for training or none for validation.
        """
        splits, kind = dict(self.splits), KINDS[self.task]
        if splits.keys() == {"test"}:
            nothing = splits["test"].select(np.arange(0))
            return self._dataset(nothing, nothing, splits["test"])
        whole = splits["train"]
        source = np.arange(len(whole)) if self.order is None else np.argsort(self.order)
        for split, share in (("test", test_split), ("val", val_split)):
            if share and split not in splits:
                if len(whole) and not len(source):
                    raise UserError(f"{self.name}: test_split={test_split:g} leaves no image to train on; lower it.")
                rest, held_out = stratified_split(kind.strata(whole.labels[source]), (1 - share, share), seed)
                splits |= {"train": whole.select(source[rest]), split: whole.select(source[held_out])}
                source = source[rest]
        if "test" in splits and not len(splits["test"]):  # too few images for the share
            del splits["test"]
        for split in ("train", "val"):
            if missing := kind.missing(splits[split].labels, self.class_names):
                cure = f"add some{_another_cure(self, split)}"
                raise UserError(f"{self.name}: no usable image of {kind.noun} {missing[0]!r} for {split}; {cure}.")
            if not len(splits[split]):
                raise UserError(f"{self.name}: no image is left for {split}; add some.")
        return self._dataset(splits["train"], splits["val"], splits.get("test"))

    def _dataset(self, train: Split, val: Split, test: Split | None) -> ImageDataset:
        return ImageDataset(
            self.name,
            self.class_names,
            train,
            val,
            test,
            self.skipped,
            left_out=self.left_out,
            task=self.task,
            problems=self.problems,
        )


def _another_cure(data: SourceData, split: str) -> str:
    """What else helps against a class without images: where the split is drawn at random, another share."""
    if split not in data.splits:
        return ", or hold out a larger share (val_split, --val-split)"
    smaller = "" if "val" in data.splits else ", hold out a smaller share (val_split, --val-split)"
    return f"{smaller}, or leave it out (skip_empty_classes, --skip-empty-classes)"
