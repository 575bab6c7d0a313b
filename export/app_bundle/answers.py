"""`SHOWN`: how apps and pages answer with a network's output, by task. NumPy.

The generated code and the page decode outputs by the same rules; `Shown.kind` names them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from keras_effnet.errors import UserError
from keras_effnet.export.app_bundle.document import Answer

BEST = 5  # answers for a test image
_SURE = 0.5  # probability of the first class from which the ranks behind it count
_RANKS = 6  # five, and the one that the fifth must be distinguished from
_LEAST = 1e-6  # probabilities below are equal


@dataclass(frozen=True)
class Shown:
    """How a task is shown.

    Args:
        kind: String, the rule: `"classes"`, `"decisions"`, `"values"`, `"masks"` or `"boxes"`.
        ranks: Tuple of ints, of the outputs.
        output: String, what the output is, `{}` stands for the number of names.
        names: String, what the names are of.
        agreement: String, column of the agreement with the Keras model.
        tag: String, the task in model hubs.
        scores: Function from the output of one image, of a detector the scores, to a number for each name.
        sure: Function from the scores of one image to how well it tests a client, as a sortable tuple.
        ranked: Bool, whether answers are the names with the highest numbers, best first, or all names in order.
        decides: Bool, whether a name is answered with yes or no, by its threshold.
    """

    kind: str
    ranks: tuple[int, ...]
    output: str
    names: str
    agreement: str
    tag: str
    scores: Callable[[np.ndarray], np.ndarray]
    sure: Callable[[np.ndarray], tuple[float, ...]]
    ranked: bool = True
    decides: bool = False

    def answers(self, output: np.ndarray, names: Sequence[str]) -> tuple[Answer, ...]:
        """Answers for the output of one image: the five best names, or all names in order.

        Args:
            output: Array of the output without its batch dimension.
            names: Names of the classes, labels or values.
        """
        scores = self.scores(output)
        places = np.argsort(-scores, kind="stable")[:BEST] if self.ranked else np.arange(len(scores))
        return tuple(Answer(place, names[place], float(scores[place])) for place in places.tolist())


def _unchanged(output: np.ndarray) -> np.ndarray:
    return output


def _shares(output: np.ndarray) -> np.ndarray:
    """Share of the pixels of each class."""
    mask = output.argmax(axis=-1)
    return np.bincount(mask.ravel(), minlength=output.shape[-1]) / mask.size


def _distinctness(scores: np.ndarray) -> tuple[float, ...]:
    """How sure the first class is, up to a point, then the smallest ratio of neighbours among the first ranks."""
    first = np.maximum(np.sort(scores)[::-1][:_RANKS], _LEAST)
    ratios = first[:-1] / first[1:]
    return min(float(first[0]), _SURE), float(ratios.min(initial=np.inf))


def _decidedness(scores: np.ndarray) -> tuple[float, ...]:
    """Distance of the least sure label from a probability of one half; images with a label first."""
    return float((scores >= 0.5).any()), float(np.abs(scores - 0.5).min())


def _variety(scores: np.ndarray) -> tuple[float, ...]:
    """How many pixels are not of the most frequent class."""
    return (float(1 - scores.max()),)


def _best_scores(output: np.ndarray) -> np.ndarray:
    """Highest score of each class, of those of all anchors."""
    return output.max(axis=0)


def _certainty(scores: np.ndarray) -> tuple[float, ...]:
    """The highest score."""
    return (float(scores.max()),)


_BINARY = Shown(
    "decisions",
    (2,),
    "score of the positive class",
    "name of the positive class",
    "same decision as the Keras model",
    "image-classification",
    _unchanged,
    _decidedness,
    decides=True,
)
SHOWN: dict[str, Shown] = {
    "classification": Shown(
        "classes",
        (2,),
        "scores of {} classes",
        "class names",
        "same class as the Keras model",
        "image-classification",
        _unchanged,
        _distinctness,
    ),
    "binary": _BINARY,
    "multilabel": replace(
        _BINARY,
        output="scores of {} independent labels",
        names="labels",
        agreement="same decisions as the Keras model",
    ),
    "regression": Shown(
        "values",
        (2,),
        "{} values",
        "names of the values",
        "R² with the Keras model",
        "image-feature-extraction",
        _unchanged,
        lambda scores: (0.0,),
        ranked=False,
    ),
    "segmentation": Shown(
        "masks",
        (4,),
        "scores of {} classes for each pixel",
        "class names",
        "mean IoU with the Keras model's masks",
        "image-segmentation",
        _shares,
        _variety,
    ),
    "detection": Shown(
        "boxes",
        (3, 3),
        "codes of boxes, and scores of {} classes for each",
        "class names",
        "boxes of the Keras model found",
        "object-detection",
        _best_scores,
        _certainty,
    ),
}


def shown(task: str, subject: object) -> Shown:
    """How a task is shown.

    Args:
        task: String.
        subject: What has the task, for the message.

    Raises:
        UserError: An app or a page has nothing to show for it.
    """
    if task not in SHOWN:
        raise UserError(
            f"The task of {subject} is {task}, for which bundles and pages have nothing to show; they are for "
            f"{', '.join(SHOWN)}."
        )
    return SHOWN[task]
