"""Images with true boxes, the one structure that all readers return, and the check of what they read. numpy and Pillow.

Boxes are (y0, x0, y1, x1) in pixels of the upright image.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from keras_effnet.datasets.labels.boxes import BoxProblem
from keras_effnet.errors import UserError
from keras_effnet.system.files import why_no_file

logger = logging.getLogger(__name__)

_ORIENTATION = 0x0112
_ROUNDING = 1.0  # pixels beyond the edge that are no mistake: Pascal VOC counts from 1


@dataclass(frozen=True, eq=False)
class BoxedImage:
    """An image and its true boxes.

    Args:
        path: Path of the file.
        size: Height and width of the upright image in pixels.
        boxes: float32 array of shape `(B, 4)`: y0, x0, y1, x1 in pixels of the upright image. B may be 0.
        labels: int32 array of shape `(B,)`, numbers of classes.
        crowd: bool array of shape `(B,)`, boxes of groups.
    """

    path: Path
    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray


@dataclass(frozen=True, eq=False)
class BoxDataset:
    """Images with boxes, the names of their classes, and every box that was corrected or left out."""

    images: tuple[BoxedImage, ...]
    class_names: tuple[str, ...]
    problems: tuple[BoxProblem, ...] = ()

    def summary(self) -> str:
        """One line: numbers of images and boxes, and of problems of each kind with the first place."""
        boxes = sum(len(image.boxes) for image in self.images)
        text = f"{len(self.images):,} images, {boxes:,} boxes"
        counts = Counter(problem.kind for problem in self.problems)
        for kind, count in counts.items():
            first = next(problem.where for problem in self.problems if problem.kind == kind)
            text += f"; {count:,} {kind}, {first} the first"
        return text


@dataclass(frozen=True)
class RawBox:
    """A box as it stands in a file: x0, y0, x1, y1 in pixels, or in shares of the image."""

    where: str
    label: str
    box: tuple[float, float, float, float]
    relative: bool = False
    crowd: bool = False


@dataclass
class RawImage:
    """An image as a file names it, with its stated height and width if there are any."""

    path: Path
    stated: tuple[int, int] | None = None
    boxes: list[RawBox] = field(default_factory=list)


def number(text: object, where: str) -> float:
    """A finite number from a file.

    Raises:
        UserError: It is none; the message names the place.
    """
    try:
        value = float(text) if isinstance(text, str | int | float) and not isinstance(text, bool) else math.nan
    except (ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where} has a coordinate {str(text)[:40]!r}, which is not a number.")
    return value


def _opened(path: Path) -> tuple[tuple[int, int], int]:
    """Stored height and width of an image, and its EXIF orientation."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turn = _turn(image)
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise UserError(f"{path} cannot be read as an image: {str(error).splitlines()[0][:120]}.") from None
    return (height, width), turn


def _turn(image: Image.Image) -> int:
    """EXIF orientation of an opened image, 1 if it has none."""
    try:
        turn = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow decodes all of a PNG for it; a damaged one is found when all images are decoded
        return 1
    return turn if turn in range(1, 9) else 1


def turned(boxes: np.ndarray, stored: tuple[int, int], turn: int) -> np.ndarray:
    """Boxes of a stored image in the pixels of the upright one.

    Args:
        boxes: Array of shape `(B, 4)`: y0, x0, y1, x1 in pixels of the stored image.
        stored: Height and width of the stored image.
        turn: Int, EXIF orientation, 1 to 8.
    """
    height, width = stored
    if turn >= 5:
        boxes, height, width = boxes[:, [1, 0, 3, 2]], width, height
    y0, x0, y1, x1 = boxes.T
    if turn in (3, 4, 7, 8):
        y0, y1 = height - y1, height - y0
    if turn in (2, 3, 6, 7):
        x0, x1 = width - x1, width - x0
    return np.stack([y0, x0, y1, x1], axis=1)


def _checked(raw: RawBox, size: tuple[int, int], problems: list[BoxProblem]) -> np.ndarray | None:
    """Box in pixels within the image, or None if it is left out; what is wrong is added to `problems`."""
    x0, y0, x1, y1 = raw.box
    height, width = size
    if raw.relative:
        x0, y0, x1, y1 = x0 * width, y0 * height, x1 * width, y1 * height
    given = (y0, x0, y1, x1)
    if y1 < y0 or x1 < x0:
        problems.append(BoxProblem(raw.where, "swapped", given))
    box = np.array([min(y0, y1), min(x0, x1), max(y0, y1), max(x0, x1)])
    low, high = box[:2], box[2:]
    if (high <= low).any():
        problems.append(BoxProblem(raw.where, "empty", given))
        return None
    if (high <= 0).any() or (low >= size).any():
        problems.append(BoxProblem(raw.where, "outside", given))
        return None
    if (low < -_ROUNDING).any() or (high > np.add(size, _ROUNDING)).any():
        problems.append(BoxProblem(raw.where, "clipped", given))
    return np.clip(box, 0, [height, width, height, width])


def _boxed(raw: RawImage, classes: dict[str, int], problems: list[BoxProblem]) -> BoxedImage:
    stored, turn = _opened(raw.path)
    upright = stored[::-1] if turn >= 5 else stored
    # Boxes belong to the upright image, which people see, unless the file states the size of the stored one.
    as_stored = turn >= 5 and raw.stated == stored and stored != upright
    frame = stored if as_stored else upright
    if raw.stated is not None and raw.stated not in (stored, upright):
        has, stated = (f"{width}x{height}" for height, width in (stored, raw.stated))
        raise UserError(
            f"{raw.path} has {has} pixels, but its annotation states {stated}: the boxes belong to another image."
        )
    found = [(box, each) for each in raw.boxes if (box := _checked(each, frame, problems)) is not None]
    boxes = np.array([box for box, _ in found], "float32").reshape(-1, 4)
    return BoxedImage(
        raw.path,
        upright,
        turned(boxes, stored, turn) if as_stored else boxes,
        np.array([classes[each.label] for _, each in found], "int32"),
        np.array([each.crowd for _, each in found], bool),
    )


def check_named_once(images: Iterable[RawImage], source: Path) -> None:
    """Refuse annotations that name an image twice: each would have some of its boxes, and the others count as false.

    Raises:
        UserError: An image is named twice.
    """
    counts = Counter(raw.path for raw in images)
    if repeated := next((path for path, count in counts.items() if count > 1), None):
        raise UserError(f"{source} names the image {repeated} {counts[repeated]} times: put its boxes into one entry.")


def finished(images: Iterable[RawImage], class_names: Sequence[str] | None, source: Path) -> BoxDataset:
    """Open all images, check and turn their boxes, and number their classes.

    Args:
        images: Images as a reader found them.
        class_names: Names of the classes in order; None for those of the boxes, sorted.
        source: Annotation file or folder, for messages.

    Raises:
        UserError: There are no images, some are missing or damaged, or a box has an unknown class.
    """
    images = list(images)
    if not images:
        raise UserError(f"{source} names no image.")
    missing = [raw.path for raw in images if not raw.path.is_file()]
    if missing:
        more = f", and {len(missing) - 1:,} more are missing" if len(missing) > 1 else ""
        raise UserError(f"{source} names the image {missing[0]}, which {why_no_file(missing[0])}{more}.")
    labels = {box.label: box.where for raw in images for box in raw.boxes}
    names = tuple(sorted(labels)) if class_names is None else tuple(class_names)
    if unknown := next((label for label in labels if label not in names), None):
        raise UserError(f"{labels[unknown]} has the class {unknown[:60]!r}, none of the {len(names)} named.")
    classes = {name: index for index, name in enumerate(names)}
    problems: list[BoxProblem] = []
    data = BoxDataset(tuple(_boxed(raw, classes, problems) for raw in images), names, tuple(problems))
    if problems:
        logger.warning("%s: %s.", source, data.summary())
    return data
