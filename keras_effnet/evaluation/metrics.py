"""Predictions against labels: accuracy, per class, who is taken for whom, and what a probability is worth.

Numpy and scikit-learn; imports `errors`. Predictions are judged batch by batch, a few numbers kept of each.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from keras_effnet.errors import UserError

BINS = 15  # as Guo et al. draw them
_TINY = 1e-12  # a probability of 0 for what is true costs 27.6 nats, not infinitely many
_SUM_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What a network said of labelled images, in their order.

    Args:
        labels: Int array of shape `(N,)`, the true classes.
        predicted: Int array, the most probable classes.
        ranks: Int array, how many classes came before the true one: 0 is right.
        confidence: Float array, probability of `predicted`.
        likelihood: Float array, probability of the true class.
        classes: Int.
        scores: `"probabilities"`; `"logits"` that a softmax was applied to; or `"scores"` in [0, 1] that do not sum to
            1, of sigmoids or rounded to 8 bits, which are taken as they are.
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
        """Which of the outcomes are right."""
        return self.predicted == self.labels


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often a network is right where it claims to be sure, in bins of equal width over [0, 1].

    Args:
        counts: Int array, images in each bin.
        confidence: Float array, mean probability of the predicted class in each bin; NaN where it is empty.
        accuracy: Float array, share of right outcomes in each bin; NaN where it is empty.

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
    """What a classifier did on labelled images.

    Args:
        samples: Int.
        accuracy: Float in [0, 1], share of images whose most probable class is right.
        top5: Float in [0, 1], share whose class is among the five most probable.
        per_class: Tuple of floats, accuracy (recall) of each class; NaN where no image has it.
        confusion: Int array of shape `(classes, classes)`, rows true, columns predicted.
        precision: Tuple of floats, share of the outcomes with a class that are right; NaN where it is never the answer.
        f1: Tuple of floats, harmonic mean of precision and recall; NaN where neither an image nor an answer has it.
        nll: Float, mean of -log(probability of the true class), in nats: the cross-entropy.
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
        """Images of each class."""
        return tuple(self.confusion.sum(axis=1).tolist())


def check_finite(predictions: np.ndarray) -> None:
    """Refuses predictions that are no numbers: they would rank in some order all the same.

    Raises:
        UserError: Some are NaN or infinite.
    """
    broken = int((~np.isfinite(predictions).all(axis=1)).sum())
    if broken:
        raise UserError(f"The model returns NaN or infinite values for {broken} of {len(predictions)} images.")


def score_kind(predictions: np.ndarray) -> str:
    """`"probabilities"`, `"logits"` or `"scores"`: see `Outcomes`."""
    if predictions.min() < 0 or predictions.max() > 1 + _SUM_TOLERANCE:
        return "logits"
    sums = predictions.sum(axis=1, dtype="float64")
    return "probabilities" if np.allclose(sums, 1, rtol=0, atol=_SUM_TOLERANCE) else "scores"


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits of shape `(N, classes)`."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def collect_outcomes(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Outcomes:
    """Compares predictions with labels, batch by batch: 50,000 images of 1000 classes need 2 MB, not 200.

    Args:
        batches: Pairs of predictions, of shape `(N, classes)`, and int labels of shape `(N,)`. Probabilities, logits or
            any other scores that rank the classes.

    Raises:
        UserError: There are no images, labels beyond the classes that the model knows, or predictions that are no
            numbers.
    """
    judged, kinds, classes = [], [], 0
    for predictions, labels in batches:
        if not len(labels):
            continue
        classes = predictions.shape[1]
        if labels.max() >= classes:
            raise UserError(f"The data has at least {labels.max() + 1} classes but the model knows {classes}.")
        check_finite(predictions)
        kinds.append(score_kind(predictions))
        judged.append(_batch_outcomes(predictions, labels))
    if not judged:
        raise UserError("No images to evaluate.")
    # A batch or two of logits may look like probabilities; a network does not give both.
    kind = next((kind for kind in ("logits", "scores") if kind in kinds), "probabilities")
    labels, predicted, ranks, best, true, normaliser = map(np.concatenate, zip(*judged, strict=True))
    if kind == "logits":
        best, true = np.exp(best - normaliser), np.exp(true - normaliser)
    return Outcomes(labels, predicted, ranks, best, true, classes, kind)


def _batch_outcomes(predictions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Labels, predicted classes, ranks, scores of the predicted and of the true class, and log(sum(exp(scores)))."""
    predictions = predictions.astype("float64")
    rows, predicted = np.arange(len(labels)), predictions.argmax(axis=1)
    best, true = predictions[rows, predicted], predictions[rows, labels]
    # Of equal scores the lower index comes first, as with argmax.
    tied = (predictions == true[:, None]) & (np.arange(predictions.shape[1]) < labels[:, None])
    ranks = ((predictions > true[:, None]) | tied).sum(axis=1)
    normaliser = best + np.log(np.exp(predictions - best[:, None]).sum(axis=1))
    return labels, predicted, ranks, best, true, normaliser


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Reliability:
    """Sorts outcomes into bins by their confidence; bin m holds those in ((m - 1) / bins, m / bins].

    Args:
        confidence: Float array of shape `(N,)`, probability of each answer.
        right: Bool array of shape `(N,)`.
        bins: Int.
    """
    places = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    counts = np.bincount(places, minlength=bins)
    sums = (np.bincount(places, weights=values, minlength=bins) for values in (confidence, right))
    return Reliability(counts, *(_ratio(total, counts) for total in sums))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, NaN where there is nothing."""
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def compute_metrics(outcomes: Outcomes) -> Evaluation:
    """Sums up what `collect_outcomes` saw."""
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(outcomes.labels, outcomes.predicted, labels=range(outcomes.classes))
    hits, true, said = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    recall, precision, f1 = _ratio(hits, true), _ratio(hits, said), _ratio(2 * hits, true + said)
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


def evaluate(predictions: np.ndarray, labels: np.ndarray) -> Evaluation:
    """`compute_metrics` of predictions that are all there.

    Args:
        predictions: Array of shape `(N, classes)`: probabilities, logits, or any other scores that rank the classes.
        labels: Int array of shape `(N,)`.

    Raises:
        UserError: There are no images, labels beyond the classes that the model knows, or predictions that are no
            numbers.
    """
    return compute_metrics(collect_outcomes([(predictions, labels)]))


def worst_mistakes(outcomes: Outcomes, count: int) -> np.ndarray:
    """Indices of the wrong outcomes given with the highest confidence, worst first."""
    wrong = np.flatnonzero(~outcomes.correct)
    return wrong[np.argsort(-outcomes.confidence[wrong], kind="stable")][:count]


def least_certain(outcomes: Outcomes, count: int) -> np.ndarray:
    """Indices of the outcomes given with the lowest confidence, lowest first."""
    return np.argsort(outcomes.confidence, kind="stable")[:count]


def most_confused(confusion: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """The commonest mistakes as `(true class, predicted class, images)`, commonest first."""
    mistakes = confusion - np.diag(confusion.diagonal())
    # Few of a thousand classes' million pairs occur: only those are sorted.
    rows, columns = np.nonzero(mistakes)
    found = mistakes[rows, columns]
    order = np.argsort(-found, kind="stable")[:count]
    return [(int(rows[place]), int(columns[place]), int(found[place])) for place in order]
