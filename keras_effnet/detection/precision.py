"""COCO average precision, computed by faster-coco-eval (extra `detect`).

It gives pycocotools' figures, has releases since 2023 from several maintainers, and takes a third of a second for
1,000 images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from keras_effnet.detection.boxes import areas
from keras_effnet.detection.suppression import Detections
from keras_effnet.errors import UserError
from keras_effnet.system.output import captured_output


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's summary of a data set, each 0 to 1; nan where there are no true boxes of that kind.

    Args:
        ap: Mean over overlaps of 0.5 to 0.95 and over classes.
        ap50, ap75: At one overlap.
        small, medium, large: `ap` of boxes below 32^2, up to 96^2, and above 96^2 square pixels.
        by_class: `ap` of each class.
    """

    ap: float
    ap50: float
    ap75: float
    small: float
    medium: float
    large: float
    by_class: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Truth:
    """True boxes of one image.

    Args:
        boxes: Array of shape `(B, 4)`: y0, x0, y1, x1 in pixels.
        labels: Int array of shape `(B,)`, numbers of classes from 0.
        crowd: Bool array of shape `(B,)`: boxes of groups, which detections may hit several times or not at all.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray | None = None

    @property
    def single(self) -> np.ndarray:
        """Which boxes are none of groups."""
        return np.ones(len(self.boxes), bool) if self.crowd is None else ~np.asarray(self.crowd, bool)


def average_precision(truth: Sequence[Truth], found: Sequence[Detections], classes: int) -> AveragePrecision:
    """Average precision of detections in a data set.

    Args:
        truth: True boxes of every image.
        found: Detections in every image, in the same order and pixels.
        classes: Int, number of classes.

    Returns:
        An `AveragePrecision`. Without any detection it is 0, not an error.

    Raises:
        UserError: The numbers of images differ, there is no true box, or faster-coco-eval is not installed.

    Example:

    >>> average_precision(truth, found, classes=3).ap50
    0.84
    """
    if len(truth) != len(found):
        raise UserError(f"There are {len(truth):,} images with true boxes and {len(found):,} with detections.")
    if not any(each.single.any() for each in truth):
        groups = " but boxes of groups (iscrowd)" if any(len(each.boxes) for each in truth) else ""
        raise UserError(f"Average precision needs true boxes, and no image has one{groups}.")
    present = {int(label) for each in truth for label in each.labels[each.single]}
    if not any(len(each) for each in found):
        return _nothing_found(truth, classes, present)
    return _evaluate(truth, found, classes)


def check_installed() -> None:
    """Check that average precision can be computed, before hours of training.

    Raises:
        UserError: faster-coco-eval is not installed.
    """
    if find_spec("faster_coco_eval") is None:
        raise UserError("Average precision needs faster-coco-eval: pip install 'keras-effnet[detect]'.")


def _nothing_found(truth: Sequence[Truth], classes: int, present: set[int]) -> AveragePrecision:
    sizes = np.concatenate([areas(np.asarray(each.boxes, float).reshape(-1, 4)[each.single]) for each in truth])
    ranges = ((0, 32**2), (32**2, 96**2), (96**2, np.inf))
    small, medium, large = (0.0 if ((sizes >= low) & (sizes <= high)).any() else float("nan") for low, high in ranges)
    return AveragePrecision(
        0.0, 0.0, 0.0, small, medium, large, tuple(0.0 if i in present else float("nan") for i in range(classes))
    )


def _as_coco(box: np.ndarray) -> list[float]:
    y0, x0, y1, x1 = map(float, box)
    return [x0, y0, x1 - x0, y1 - y0]


def _annotations(truth: Sequence[Truth]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for image, each in enumerate(truth):
        for box, label, single in zip(each.boxes, each.labels, each.single, strict=True):
            place = _as_coco(box)
            found.append(
                {
                    "id": len(found) + 1,
                    "image_id": image,
                    "category_id": int(label),
                    "bbox": place,
                    "area": place[2] * place[3],
                    "iscrowd": int(not single),
                }
            )
    return found


def _evaluate(truth: Sequence[Truth], found: Sequence[Detections], classes: int) -> AveragePrecision:
    check_installed()
    from faster_coco_eval import COCO, COCOeval_faster

    results = [
        {"image_id": image, "category_id": int(label), "bbox": _as_coco(box), "score": float(score)}
        for image, each in enumerate(found)
        for box, score, label in zip(each.boxes, each.scores, each.labels, strict=True)
    ]
    data = {
        "images": [{"id": image} for image in range(len(truth))],
        "categories": [{"id": number, "name": str(number)} for number in range(classes)],
        "annotations": _annotations(truth),
    }
    with captured_output():
        known = COCO(data)
        evaluation = COCOeval_faster(known, known.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ap, ap50, ap75, small, medium, large = (_mean(np.array([value])) for value in evaluation.stats[:6])
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # overlaps, recalls, classes; all sizes, most detections
    return AveragePrecision(
        ap, ap50, ap75, small, medium, large, tuple(_mean(precision[:, :, number]) for number in range(classes))
    )


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")
