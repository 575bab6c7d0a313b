"""Classification metrics: accuracy, per-class metrics, confusion matrix and calibration. NumPy and scikit-learn.

Predictions are evaluated batch by batch, keeping a few numbers per image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from keras_effnet.errors import UserError

BINS = 15  # as in Guo et al.
_TINY = 1e-12  # lower bound of probabilities: 0 for the true class costs 27.6 nats, not infinitely many
_SUM_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Per-image outcomes of a classifier on labelled images, in their order.

    Args:
        labels: Int array of shape `(N,)`, true classes.
        predicted: Int array of shape `(N,)`, most probable classes.
        ranks: Int array of shape `(N,)`, number of classes ranked above the true one: 0 is correct.
        confidence: Float array of shape `(N,)` in [0, 1], probability of `predicted`.
        likelihood: Float array of shape `(N,)` in [0, 1], probability of the true class.
        classes: Int, number of classes.
        scores: Kind of the predictions: `"probabilities"`; `"logits"`, to which a softmax was applied; or `"scores"`
            in [0, 1] that do not sum to 1, such as sigmoids or values rounded to 8 bits, which are used unchanged.
    """

    labels: np.ndarray
    predicted: np.ndarray
    ranks: np.ndarray
    confidence: np.ndarray
    likelihood: np.ndarray
    classes: int
    scores: str = "probabilities"

    @property
    def correct(self) -> np.ndarray:
        """Bool array of shape `(N,)`, whether each prediction is correct."""
        return self.predicted == self.labels


@dataclass(frozen=True, eq=False)
class Reliability:
    """Reliability diagram: accuracy against confidence, in bins of equal width over [0, 1].

    Args:
        counts: Int array of shape `(bins,)`, number of images.
        confidence: Float array of shape `(bins,)`, mean probability of the predicted class; NaN in empty bins.
        accuracy: Float array of shape `(bins,)`, share of correct predictions; NaN in empty bins.

    Source: Guo et al., On Calibration of Modern Neural Networks (ICML 2017).
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error: |accuracy - confidence|, weighted by the images in each bin (eq. 3)."""
        return float(np.nansum(np.abs(self.accuracy - self.confidence) * self.counts) / self.counts.sum())


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Metrics of a classifier on labelled images.

    Args:
        samples: Int, number of images.
        accuracy: Float in [0, 1], top-1 accuracy.
        top5: Float in [0, 1], top-5 accuracy.
        per_class: Tuple of floats in [0, 1], recall of each class; NaN if no image has the class.
        confusion: Int array of shape `(classes, classes)`, rows true, columns predicted.
        precision: Tuple of floats in [0, 1], precision of each class; NaN if the class is never predicted.
        f1: Tuple of floats in [0, 1], harmonic mean of precision and recall; NaN if the class neither occurs nor is
            predicted.
        nll: Float, negative log-likelihood, the mean cross-entropy in nats.
        confidence: Float in [0, 1], mean probability of the predicted class.
        ece: Float in [0, 1], expected calibration error over 15 bins.
    """

    samples: int
    accuracy: float
    top5: float
    per_class: tuple[float, ...]
    confusion: np.ndarray
    precision: tuple[float, ...]
    f1: tuple[float, ...]
    nll: float
    confidence: float
    ece: float

    @property
    def support(self) -> tuple[int, ...]:
        """Number of images of each class."""
        return tuple(self.confusion.sum(axis=1).tolist())


def check_finite(predictions: np.ndarray) -> None:
    """Refuse NaN and infinite predictions, which would rank in some order nevertheless.

    Args:
        predictions: Float array of shape `(N, ...)`.

    Raises:
        UserError: A prediction is NaN or infinite.
    """
    broken = int((~np.isfinite(predictions).reshape(len(predictions), -1).all(axis=1)).sum())
    if broken:
        raise UserError(f"The model returns NaN or infinite values for {broken} of {len(predictions)} images.")


def score_kind(predictions: np.ndarray) -> str:
    """Classify predictions of shape `(N, classes)` as `"probabilities"`, `"logits"` or `"scores"`, see `Outcomes`."""
    if predictions.min() < 0 or predictions.max() > 1 + _SUM_TOLERANCE:
        return "logits"
    sums = predictions.sum(axis=1, dtype="float64")
    return "probabilities" if np.allclose(sums, 1, rtol=0, atol=_SUM_TOLERANCE) else "scores"


def softmax(logits: np.ndarray) -> np.ndarray:
    """Convert logits of shape `(N, classes)` to probabilities."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def collect_outcomes(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Outcomes:
    """Compare predictions with labels, batch by batch: 50,000 images of 1000 classes need 2 MB instead of 200 MB.

    Args:
        batches: Pairs of predictions, a float array of shape `(N, classes)`, and labels, an int array of shape `(N,)`.
            Predictions are probabilities, logits or any other scores that rank the classes.

    Raises:
        UserError: There are no images, a label is not a class of the model, or a prediction is NaN or infinite.
    """
    collected: list[tuple[np.ndarray, ...]] = []
    kinds: list[str] = []
    classes = 0
    for predictions, labels in batches:
        if not len(labels):
            continue
        classes = predictions.shape[1]
        if labels.max() >= classes:
            raise UserError(f"The data has at least {labels.max() + 1} classes but the model knows {classes}.")
        check_finite(predictions)
        kinds.append(score_kind(predictions))
        collected.append(_batch_outcomes(predictions, labels))
    if not collected:
        raise UserError("No images to evaluate.")
    # Single batches of logits may look like probabilities, but a network returns only one kind.
    kind = next((kind for kind in ("logits", "scores") if kind in kinds), "probabilities")
    labels, predicted, ranks, best, true, normaliser = map(np.concatenate, zip(*collected, strict=True))
    if kind == "logits":
        best, true = np.exp(best - normaliser), np.exp(true - normaliser)
    return Outcomes(labels, predicted, ranks, best, true, classes, kind)


def _batch_outcomes(predictions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Labels, predicted classes, ranks, scores of the predicted and of the true class, and log(sum(exp(scores)))."""
    predictions = predictions.astype("float64")
    rows, predicted = np.arange(len(labels)), predictions.argmax(axis=1)
    best, true = predictions[rows, predicted], predictions[rows, labels]
    # Ties are broken in favour of the lower index, as by argmax.
    tied = (predictions == true[:, None]) & (np.arange(predictions.shape[1]) < labels[:, None])
    ranks = ((predictions > true[:, None]) | tied).sum(axis=1)
    normaliser = best + np.log(np.exp(predictions - best[:, None]).sum(axis=1))
    return labels, predicted, ranks, best, true, normaliser


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> Reliability:
    """Bin predictions by confidence; bin m of 1..bins holds those in ((m - 1) / bins, m / bins].

    Args:
        confidence: Float array of shape `(N,)` in [0, 1], probability of each predicted class.
        correct: Bool array of shape `(N,)`, whether the prediction is correct.
        bins: Int, number of bins.
    """
    places = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    counts = np.bincount(places, minlength=bins)
    sums = (np.bincount(places, weights=values, minlength=bins) for values in (confidence, correct))
    return Reliability(counts, *(_ratio(total, counts) for total in sums))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide element-wise; NaN where `whole` is 0."""
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def compute_metrics(outcomes: Outcomes) -> Evaluation:
    """Compute the metrics of `Evaluation` from per-image outcomes."""
    matrix = _confusion(outcomes)
    hits = np.bincount(outcomes.labels[outcomes.correct], minlength=outcomes.classes)
    true, predicted = (np.bincount(each, minlength=outcomes.classes) for each in (outcomes.labels, outcomes.predicted))
    recall, precision, f1 = _ratio(hits, true), _ratio(hits, predicted), _ratio(2 * hits, true + predicted)
    return Evaluation(
        samples=len(outcomes.labels),
        accuracy=float(outcomes.correct.mean()),
        top5=float(np.mean(outcomes.ranks < 5)),
        per_class=tuple(recall.tolist()),
        confusion=matrix,
        precision=tuple(precision.tolist()),
        f1=tuple(f1.tolist()),
        nll=float(-np.log(np.maximum(outcomes.likelihood, _TINY)).mean()),
        confidence=float(outcomes.confidence.mean()),
        ece=reliability(outcomes.confidence, outcomes.correct).ece,
    )


def _confusion(outcomes: Outcomes) -> np.ndarray:
    """Confusion matrix in int32: that of 21,000 classes has 1.8 GB, and zeros that nobody writes take none of them."""
    matrix = np.zeros((outcomes.classes, outcomes.classes), "int32")
    np.add.at(matrix, (outcomes.labels, outcomes.predicted), 1)
    return matrix


def evaluate(predictions: np.ndarray, labels: np.ndarray) -> Evaluation:
    """Evaluate the predictions of a classifier against labels.

    Args:
        predictions: Float array of shape `(N, classes)`: probabilities, logits, or any other scores that rank the
            classes.
        labels: Int array of shape `(N,)`, values from 0.

    Returns:
        An `Evaluation`.

    Raises:
        UserError: There are no images, a label is not a class of the model, or a prediction is NaN or infinite.

    Example:

    >>> result = evaluate(np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), np.array([0, 1, 1]))
    >>> round(result.accuracy, 3), result.per_class
    (0.667, (1.0, 0.5))
    """
    return compute_metrics(collect_outcomes([(predictions, labels)]))


def worst_mistakes(outcomes: Outcomes, count: int) -> np.ndarray:
    """Indices of the most confident wrong predictions, most confident first."""
    wrong = np.flatnonzero(~outcomes.correct)
    return wrong[np.argsort(-outcomes.confidence[wrong], kind="stable")][:count]


def least_certain(outcomes: Outcomes, count: int) -> np.ndarray:
    """Indices of the least confident predictions, least confident first."""
    return np.argsort(outcomes.confidence, kind="stable")[:count]


def most_confused(confusion: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """Find the most frequent mistakes of a confusion matrix.

    Returns:
        Tuples `(true class, predicted class, number of images)`, most frequent first.
    """
    # Sort only the pairs that occur: of the million pairs of 1000 classes they are few.
    rows, columns = np.nonzero(confusion)
    wrong = rows != columns
    rows, columns = rows[wrong], columns[wrong]
    found = confusion[rows, columns]
    order = np.argsort(-found, kind="stable")[:count]
    return [(int(rows[place]), int(columns[place]), int(found[place])) for place in order]
