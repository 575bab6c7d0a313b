"""Predictions against labels: accuracy, per class, and who is taken for whom. Numpy and scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_effnet.errors import UserError


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a classifier did on labelled pictures.

    Args:
        samples: Int.
        accuracy: Float in [0, 1], share of pictures whose most probable class is right.
        top5: Float in [0, 1], share whose class is among the five most probable.
        per_class: Tuple of floats, accuracy (recall) of each class; NaN where no picture has it.
        confusion: Int array of shape `(classes, classes)`, rows true, columns predicted.
    """

    samples: int
    accuracy: float
    top5: float
    per_class: tuple[float, ...]
    confusion: np.ndarray


def evaluate(probabilities: np.ndarray, labels: np.ndarray) -> Evaluation:
    """Compares predictions with labels.

    Args:
        probabilities: Array of shape `(N, classes)`; any scores that rank the classes will do.
        labels: Int array of shape `(N,)`.

    Raises:
        UserError: There are no pictures, or labels beyond the classes that the model knows.
    """
    from sklearn.metrics import confusion_matrix

    if len(labels) == 0:
        raise UserError("No pictures to evaluate.")
    classes = probabilities.shape[1]
    if labels.max() >= classes:
        raise UserError(f"The data has at least {labels.max() + 1} classes but the model knows {classes}.")
    ranked = np.argsort(-probabilities, axis=1, kind="stable")
    matrix = confusion_matrix(labels, ranked[:, 0], labels=range(classes))
    totals = matrix.sum(axis=1)
    per_class = [hits / total if total else float("nan") for hits, total in zip(matrix.diagonal(), totals, strict=True)]
    return Evaluation(
        samples=len(labels),
        accuracy=float(np.mean(ranked[:, 0] == labels)),
        top5=float(np.mean(np.any(ranked[:, :5] == labels[:, None], axis=1))),
        per_class=tuple(map(float, per_class)),
        confusion=matrix,
    )
