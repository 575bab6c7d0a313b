"""`Boxes`: the true boxes of every image, with their classes. NumPy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from keras_effnet.errors import UserError


class ImageBoxes(NamedTuple):
    """The boxes of one image.

    Args:
        boxes: `float32` array of shape `(B, 4)`: y0, x0, y1, x1 in pixels of the upright image.
        classes: `int32` array of shape `(B,)`.
        crowd: Bool array of shape `(B,)`, boxes of groups.
    """

    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray


@dataclass(frozen=True)
class BoxProblem:
    """A box that was corrected or left out.

    Args:
        where: File and line, element or number of the box.
        kind: `"swapped"` (corners exchanged: corrected), `"clipped"` (partly outside: clipped), `"outside"` or
            `"empty"` (left out).
        box: y0, x0, y1, x1 as they stand in the file, in pixels.
    """

    where: str
    kind: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Boxes:
    """True boxes of the images of a split. Those of image i are the rows `offsets[i]` to `offsets[i + 1]`.

    Args:
        boxes: `float32` array of shape `(M, 4)`: y0, x0, y1, x1 in pixels of the upright images.
        classes: `int32` array of shape `(M,)`.
        crowd: Bool array of shape `(M,)`, boxes of groups.
        offsets: `int64` array of shape `(N + 1,)`.
        sizes: `int32` array of shape `(N, 2)`, heights and widths of the upright images.
    """

    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of_images(cls, images: Iterable[ImageBoxes], sizes: Sequence[tuple[int, int]] | np.ndarray) -> Boxes:
        """Boxes of several images.

        Args:
            images: `ImageBoxes` of each image.
            sizes: Heights and widths of the images.
        """
        found = list(images)
        counts = [len(each.boxes) for each in found]
        none = ImageBoxes(np.zeros((0, 4)), np.zeros(0), np.zeros(0))
        boxes, classes, crowd = (np.concatenate(part) for part in zip(none, *found, strict=True))
        return cls(
            boxes.astype("float32"),
            classes.astype("int32"),
            crowd.astype(bool),
            np.concatenate([[0], np.cumsum(counts)]).astype("int64"),
            np.asarray(sizes, "int32").reshape(-1, 2),
        )

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, indices: Any) -> Boxes:
        """Select images, as an array is indexed by an array of indices or a slice."""
        chosen = np.arange(len(self))[indices]
        return Boxes.of_images((self.of(index) for index in chosen), self.sizes[chosen])

    def of(self, index: int) -> ImageBoxes:
        """The boxes of one image."""
        rows = slice(self.offsets[index], self.offsets[index + 1])
        return ImageBoxes(self.boxes[rows], self.classes[rows], self.crowd[rows])

    def presence(self, names: int) -> np.ndarray:
        """Bool array of shape `(N, names)`: whether an image has a box of a class."""
        found = np.zeros((len(self), names), bool)
        found[np.repeat(np.arange(len(self)), np.diff(self.offsets)), self.classes] = True
        return found

    def contents(self) -> list[bytes]:
        """What identifies the boxes."""
        parts = ((self.boxes, "<f4"), (self.classes, "<i4"), (self.crowd, "u1"), (self.offsets, "<i8"))
        return [np.asarray(values, kind).tobytes() for values, kind in parts]


def join(first: Boxes, second: Boxes) -> Boxes:
    """Concatenate the boxes of two splits of a dataset."""
    images = [each.of(index) for each in (first, second) for index in range(len(each))]
    return Boxes.of_images(images, np.concatenate([first.sizes, second.sizes]))


def box_names(given: Sequence[str] | None, labels: Sequence[Boxes]) -> tuple[str, ...]:
    """Names of the classes of boxes: those given, or the numbers up to the largest.

    Raises:
        UserError: A box has a class beyond the names.
    """
    largest = max(int(each.classes.max(initial=0)) for each in labels)
    if given and largest >= len(given):
        raise UserError(f"A box has class {largest}, beyond the {len(given)} class names (classes count from 0).")
    return tuple(given) if given else tuple(map(str, range(largest + 1)))
