"""Metrics of yes-or-no decisions: of a binary network, and of one with several independent labels. numpy, scikit-learn.

A metric that the labels leave undefined, such as the AUC of a label that no image has, is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_effnet.errors import UserError
from keras_effnet.evaluation.agreement import Drift
from keras_effnet.evaluation.by_task.outputs import Batches, collect_outputs, mean_known, probabilities
from keras_effnet.evaluation.metrics import Reliability, reliability

THRESHOLD = 0.5
_TINY = 1e-12  # as in evaluation.metrics


@dataclass(frozen=True)
class Decision:
    """Metrics of one label: present or absent.

    Args:
        positives: Int, images that have the label.
        threshold: Float, probability from which on the answer is yes.
        accuracy: Float in [0, 1], share of correct answers.
        precision: Float in [0, 1], share of correct answers among yes; NaN if yes is never answered.
        recall: Float in [0, 1], share of the positives answered with yes; NaN without positives.
        f1: Float in [0, 1], harmonic mean of precision and recall; NaN if there is neither a positive nor a yes.
        ap: Float in [0, 1], average precision, the area under the precision-recall curve; NaN without positives.
        auc: Float in [0, 1], area under the ROC curve; NaN if all images have the label or none.
        best_threshold: Float, threshold with the highest F1 on these images, on which it is therefore optimistic; NaN
            without positives.
        best_f1: Float in [0, 1], F1 at `best_threshold`.
    """

    positives: int
    threshold: float
    accuracy: float
    precision: float
    recall: float
    f1: float
    ap: float
    auc: float
    best_threshold: float
    best_f1: float


@dataclass(frozen=True, eq=False)
class BinaryEvaluation:
    """Metrics of a binary network.

    Args:
        samples: Int, number of images.
        decision: `Decision` of the positive class.
        confusion: Int array of shape `(2, 2)`, rows true, columns predicted.
        nll: Float, mean cross-entropy in nats.
        reliability: `Reliability` of the decisions at 0.5: their accuracy against the probability of the answer.
    """

    samples: int
    decision: Decision
    confusion: np.ndarray
    nll: float
    reliability: Reliability


@dataclass(frozen=True, eq=False)
class LabelEvaluation:
    """Metrics of a network with independent labels.

    Args:
        samples: Int, number of images.
        labels: Tuple of `Decision`s, one per label.
        exact: Float in [0, 1], share of images with all labels right.
        micro_f1: Float in [0, 1], F1 of all decisions together.
        nll: Float, cross-entropy in nats, mean over images and labels.
    """

    samples: int
    labels: tuple[Decision, ...]
    exact: float
    micro_f1: float
    nll: float

    @property
    def mean_ap(self) -> float:
        """Mean average precision (mAP) of the labels that occur."""
        return mean_known(label.ap for label in self.labels)

    @property
    def mean_auc(self) -> float:
        """Mean AUC of the labels that are both present and absent."""
        return mean_known(label.auc for label in self.labels)

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the labels."""
        return mean_known(label.f1 for label in self.labels)

    @property
    def accuracy(self) -> float:
        """Share of correct decisions of all labels."""
        return float(np.mean([label.accuracy for label in self.labels]))


@dataclass(frozen=True, eq=False)
class Decisions:
    """Probabilities and true labels of images, in their order.

    Args:
        truth: Bool array of shape `(N, labels)`.
        scores: Float array of shape `(N, labels)` in [0, 1].
        thresholds: Float array of shape `(labels,)`, probabilities from which on the answer is yes.
    """

    truth: np.ndarray
    scores: np.ndarray
    thresholds: np.ndarray

    @property
    def answers(self) -> np.ndarray:
        """Bool array of shape `(N, labels)`."""
        return self.scores >= self.thresholds


def collect_decisions(batches: Batches, threshold: float = THRESHOLD) -> Decisions:
    """Collect the probabilities of labels, batch by batch.

    Args:
        batches: Pairs of outputs, a float array of shape `(N, L)`, probabilities or logits, and labels of 0 and 1, an
            array of shape `(N, L)`, or `(N,)` for one output.
        threshold: Float in [0, 1], probability from which on the answer is yes.

    Raises:
        UserError: As `collect_outputs`, or a label is neither 0 nor 1.
    """
    outputs, labels = collect_outputs(batches)
    if not np.isin(labels, (0, 1)).all():
        raise UserError(f"A label must be 0 or 1, got {labels[~np.isin(labels, (0, 1))][0]:g}.")
    return Decisions(labels.astype(bool), probabilities(outputs), np.full(outputs.shape[1], threshold))


def decide(truth: np.ndarray, scores: np.ndarray, threshold: float = THRESHOLD) -> Decision:
    """Compute the metrics of one label.

    Args:
        truth: Bool array of shape `(N,)`.
        scores: Float array of shape `(N,)`, probabilities.
        threshold: Float, probability from which on the answer is yes.

    Example:

    >>> decide(np.array([False, True, True]), np.array([0.1, 0.4, 0.9])).recall
    0.5
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    answers, positives = scores >= threshold, int(truth.sum())
    hits, said = int((truth & answers).sum()), int(answers.sum())
    best_threshold, best_f1 = _best_threshold(truth, scores)
    both = 0 < positives < len(truth)
    return Decision(
        positives=positives,
        threshold=threshold,
        accuracy=float(np.mean(truth == answers)),
        precision=_ratio(hits, said),
        recall=_ratio(hits, positives),
        f1=_ratio(2 * hits, positives + said),
        ap=float(average_precision_score(truth, scores)) if positives else float("nan"),
        auc=float(roc_auc_score(truth, scores)) if both else float("nan"),
        best_threshold=best_threshold,
        best_f1=best_f1,
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _best_threshold(truth: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Threshold with the highest F1, half-way between the scores that it separates, and that F1."""
    positives = truth.sum()
    if not positives:
        return float("nan"), float("nan")
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(truth[order])
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + positives)
    last = np.append(ranked[1:] < ranked[:-1], True)  # equal scores are answered alike
    place = int(np.flatnonzero(last)[np.argmax(f1[last])])
    below = ranked[place + 1] if place + 1 < len(ranked) else 0.0
    return float((ranked[place] + below) / 2), float(f1[place])


def _cross_entropy(found: Decisions) -> float:
    likelihood = np.where(found.truth, found.scores, 1 - found.scores)
    return float(-np.log(np.maximum(likelihood, _TINY)).mean())


def evaluate_binary(found: Decisions) -> BinaryEvaluation:
    """Compute the metrics of a binary network, whose `Decisions` have one label.

    Example:

    >>> outputs, labels = np.array([[0.2], [0.7], [0.9]]), np.array([0, 1, 1])
    >>> evaluate_binary(collect_decisions([(outputs, labels)])).decision.auc
    1.0
    """
    truth, scores, answers = found.truth[:, 0], found.scores[:, 0], found.answers[:, 0]
    likelier = scores >= THRESHOLD
    return BinaryEvaluation(
        samples=len(truth),
        decision=decide(truth, scores, float(found.thresholds[0])),
        confusion=np.bincount(2 * truth + answers, minlength=4).reshape(2, 2),
        nll=_cross_entropy(found),
        reliability=reliability(np.where(likelier, scores, 1 - scores), likelier == truth),
    )


def evaluate_labels(found: Decisions) -> LabelEvaluation:
    """Compute the metrics of a network with independent labels.

    Example:

    >>> outputs, labels = np.array([[0.2, 0.9], [0.7, 0.1]]), np.array([[0, 1], [1, 0]])
    >>> evaluate_labels(collect_decisions([(outputs, labels)])).mean_ap
    1.0
    """
    answers, truth = found.answers, found.truth
    columns = zip(truth.T, found.scores.T, found.thresholds.tolist(), strict=True)
    return LabelEvaluation(
        samples=len(truth),
        labels=tuple(decide(*column) for column in columns),
        exact=float(np.mean((answers == truth).all(axis=1))),
        micro_f1=_ratio(2 * int((answers & truth).sum()), int(answers.sum() + truth.sum())),
        nll=_cross_entropy(found),
    )


def worst_auc_drift(truth: np.ndarray, expected: np.ndarray, got: np.ndarray) -> float:
    """Largest loss of AUC of a label from one network to another, with the true labels of the same images.

    Args:
        truth: Bool array of shape `(N, labels)`, or `(N,)` for one label.
        expected: Float array of shape `(N, labels)`, outputs of the first network.
        got: Float array of the same shape, outputs of the second.

    Returns:
        Float: AUC of the first less that of the second, of the label with the largest difference; negative if the
        second is better on all labels, NaN if no label is both present and absent.
    """
    from sklearn.metrics import roc_auc_score

    labels = truth.reshape(len(truth), -1).astype(bool)
    drifts = [
        roc_auc_score(label, before) - roc_auc_score(label, after)
        for label, before, after in zip(labels.T, expected.T, got.T, strict=True)
        if label.any() and not label.all()
    ]
    return float(max(drifts)) if drifts else float("nan")


def auc_drift(truth: np.ndarray, expected: np.ndarray, got: np.ndarray) -> Drift:
    """`worst_auc_drift` as a figure of a report; none if it is undefined."""
    drift = worst_auc_drift(truth, expected, got)
    return Drift({} if np.isnan(drift) else {"AUC drift": drift})
