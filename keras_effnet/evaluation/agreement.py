"""Agreement of two networks' outputs on the same images, by kind of output. numpy, and scikit-learn for AUC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from keras_effnet.evaluation.intervals import wilson_interval

_RESAMPLES = 200
_TINY = np.finfo("float32").tiny
_CERTAIN = 1e-6  # probabilities nearer to 0 and 1 are rounding errors in float32


@dataclass(frozen=True)
class Agreement:
    """Agreement of two sets of outputs.

    Args:
        score: Float, at most 1, where all outputs agree.
        interval: `(low, high)`, 95% interval of the score: Wilson's for a share of the images, otherwise the
            percentiles of a bootstrap over the images.
        agreeing: Int, number of images that agree, if the score is a share of the images.
        figures: Dict of further figures, by their name in a table.
    """

    score: float
    interval: tuple[float, float]
    agreeing: int | None = None
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Drift:
    """What the second of two networks loses against true labels.

    Args:
        figures: Dict of figures, by their name in a table.
        lost: Float, loss of the figure that has a bound, see `Bounds.ap`; None if there is none.
        surely_lost: Float, lower end of its 95% interval.
    """

    figures: dict[str, float]
    lost: float | None = None
    surely_lost: float | None = None


def _counted(agrees: np.ndarray, **figures: float) -> Agreement:
    agreeing, count = int(agrees.sum()), len(agrees)
    return Agreement(agreeing / count, wilson_interval(agreeing, count), agreeing, figures)


def resampled(score: Callable[[np.ndarray], float], count: int, figures: dict[str, float]) -> Agreement:
    """Agreement by a score of the images at some indices, with a bootstrap interval."""
    rng = np.random.default_rng(0)
    value = score(np.arange(count))
    low, high = np.percentile([score(rng.integers(0, count, count)) for _ in range(_RESAMPLES)], [2.5, 97.5])
    return Agreement(value, (min(float(low), value), max(float(high), value)), None, figures)


def are_probabilities(outputs: np.ndarray) -> bool:
    """Whether all outputs lie in [0, 1], as those of a sigmoid do; logits rarely do."""
    return bool(outputs.min() >= 0 and outputs.max() <= 1)


def decisions(outputs: np.ndarray) -> np.ndarray:
    """Yes or no for each output: a probability of at least 0.5, or a logit of at least 0."""
    return outputs >= (0.5 if are_probabilities(outputs) else 0.0)


def masks(outputs: np.ndarray) -> np.ndarray:
    """Class of each pixel, an int array of shape `(N, height, width)`; a single channel decides between 0 and 1."""
    return outputs.argmax(axis=-1) if outputs.shape[-1] > 1 else decisions(outputs)[..., 0].astype(int)


def best_class(outputs: np.ndarray) -> np.ndarray:
    """Most probable class of each image."""
    return outputs.argmax(axis=1)


def rounded(outputs: np.ndarray) -> np.ndarray:
    """The outputs in steps of a hundredth of the largest."""
    return np.round(outputs / max(np.abs(outputs).max(), _TINY), 2)


def class_accuracy(outputs: np.ndarray, labels: np.ndarray) -> tuple[float, float | None]:
    """Top-1 and top-5 accuracy; the latter is None with five classes or fewer."""
    best = float(np.mean(outputs.argmax(axis=1) == labels))
    if outputs.shape[1] <= 5:
        return best, None
    top = np.argpartition(-outputs, range(5), axis=1)[:, :5]
    return best, float(np.mean((top == labels[:, None]).any(axis=1)))


def decision_accuracy(outputs: np.ndarray, labels: np.ndarray) -> tuple[float, None]:
    """Share of correct decisions; `labels` are 0 and 1."""
    return float(np.mean(decisions(outputs)[:, 0] == labels.astype(bool))), None


# --- agreement, one function for each kind of output


def same_class(expected: np.ndarray, got: np.ndarray) -> Agreement:
    """Share of images with the same most probable class; arrays of shape `(N, classes)`."""
    return _counted(expected.argmax(axis=1) == got.argmax(axis=1))


def same_decision(expected: np.ndarray, got: np.ndarray) -> Agreement:
    """Share of images with the same yes or no; arrays of shape `(N, 1)`. Figure: AUC against the first's decisions."""
    yes = decisions(expected)
    return _counted((yes == decisions(got))[:, 0], **_auc(yes, got))


def same_decisions(expected: np.ndarray, got: np.ndarray) -> Agreement:
    """Share of decisions that are the same, all labels and images together; arrays of shape `(N, labels)`.

    Figures: the share of the worst label, and the AUC of the worst label against the decisions of the first network.
    """
    yes = decisions(expected)
    same = yes == decisions(got)
    figures = {"worst label": float(same.mean(axis=0).min())} | _auc(yes, got)
    return resampled(lambda chosen: float(same[chosen].mean()), len(same), figures)


def _auc(yes: np.ndarray, got: np.ndarray) -> dict[str, float]:
    """The worst label's area under the ROC curve, of labels with both decisions; nothing if there are none."""
    from sklearn.metrics import roc_auc_score  # loaded here: takes a second

    areas = [
        roc_auc_score(label, scores)
        for label, scores in zip(yes.T, got.T, strict=True)
        if label.any() and not label.all()
    ]
    return {"worst AUC": float(min(areas))} if areas else {}


def explained_variance(expected: np.ndarray, got: np.ndarray) -> Agreement:
    """R² of the worst output; arrays of shape `(N, outputs)`.

    Figures: largest and mean absolute error as shares of the range of the expected outputs.
    """

    def score(chosen: np.ndarray) -> float:
        truth, error = expected[chosen], got[chosen] - expected[chosen]
        total, rest = np.sum((truth - truth.mean(axis=0)) ** 2, axis=0), np.sum(error**2, axis=0)
        return float(np.min(1 - np.divide(rest, total, out=(rest > 0).astype("float64"), where=total > 0)))

    expected, got = expected.astype("float64"), got.astype("float64")
    span = np.maximum(np.ptp(expected, axis=0), _TINY)
    errors = np.abs(got - expected) / span
    figures = {"largest error": float(errors.max()), "mean error": float(errors.mean(axis=0).max())}
    return resampled(score, len(expected), figures)


def same_direction(expected: np.ndarray, got: np.ndarray) -> Agreement:
    """Mean cosine similarity; arrays of shape `(N, features)` or of any other that starts with the images.

    Figures: the lowest similarity, and the share of images with the same nearest neighbour among the others (recall@1).
    """
    flat = [outputs.reshape(len(outputs), -1).astype("float64") for outputs in (expected, got)]
    first, second = (each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), _TINY) for each in flat)
    cosines = np.sum(first * second, axis=1)
    figures = {"lowest cosine": float(cosines.min())}
    if len(expected) > 2:
        figures["recall@1"] = float(np.mean(_neighbours(first) == _neighbours(second)))
    return resampled(lambda chosen: float(cosines[chosen].mean()), len(cosines), figures)


def _neighbours(directions: np.ndarray) -> np.ndarray:
    similarity = directions @ directions.T
    np.fill_diagonal(similarity, -np.inf)
    return similarity.argmax(axis=1)


def same_masks(expected: np.ndarray, got: np.ndarray) -> Agreement:
    """Mean intersection over union of the classes that occur; arrays of shape `(N, height, width, classes)`.

    Figure: share of pixels with the same class.
    """
    first, second = masks(expected), masks(got)
    classes = np.union1d(first, second)
    overlaps = np.stack([((first == each) & (second == each)).sum(axis=(1, 2)) for each in classes])
    unions = np.stack([((first == each) | (second == each)).sum(axis=(1, 2)) for each in classes])

    def score(chosen: np.ndarray) -> float:
        overlap, union = overlaps[:, chosen].sum(axis=1), unions[:, chosen].sum(axis=1)
        return float(np.mean(overlap[union > 0] / union[union > 0]))

    return resampled(score, len(first), {"same pixels": float(np.mean(first == second))})


# --- the signal of an output, and the noise in it


def centred_logits(outputs: np.ndarray) -> np.ndarray:
    """Logits with mean 0 over the classes, the last axis, whose mean softmax ignores; from probabilities or logits."""
    probabilities = outputs.min() >= 0 and np.allclose(outputs.sum(axis=-1), 1, atol=1e-2)
    logits = np.log(np.maximum(outputs, _TINY)) if probabilities else outputs
    return logits - logits.mean(axis=-1, keepdims=True)


def sigmoid_logits(outputs: np.ndarray) -> np.ndarray:
    """Logits, from probabilities or logits."""
    if not are_probabilities(outputs):
        return outputs
    likely = np.clip(outputs, _CERTAIN, 1 - _CERTAIN)
    return np.log(likely / (1 - likely))


def mask_logits(outputs: np.ndarray) -> np.ndarray:
    """Logits of each pixel's classes, centred; of a single channel as they are."""
    return centred_logits(outputs) if outputs.shape[-1] > 1 else sigmoid_logits(outputs)


def unchanged(outputs: np.ndarray) -> np.ndarray:
    """The outputs themselves."""
    return outputs


def decibels(signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Ratio of two powers in decibels; 0 if there is neither signal nor noise."""
    return 10 * np.log10(np.maximum(signal, 1e-30) / np.maximum(noise, 1e-30))


def median_sqnr(signal: np.ndarray, noisy: np.ndarray) -> float:
    """Signal-to-quantization-noise ratio in decibels, median over images.

    In a ratio of sums, one image with exploding logits would dominate.
    """
    axes = tuple(range(1, signal.ndim))
    return float(np.median(decibels(np.mean(signal**2, axis=axes), np.mean((noisy - signal) ** 2, axis=axes))))


def pooled_sqnr(signal: np.ndarray, noisy: np.ndarray) -> float:
    """Signal-to-quantization-noise ratio in decibels, all images together.

    What is the same for all images carries no information about them, and is no part of the signal.
    """
    varying = signal - signal.mean(axis=0) if len(signal) > 1 else signal
    return float(decibels(np.mean(varying**2), np.mean((noisy - signal) ** 2)))


def tensor_sqnr(expected: np.ndarray, got: np.ndarray) -> float:
    """Variance of a tensor over the mean squared difference in decibels, all elements together.

    At least 300 without a difference: a layer whose output is the same everywhere, and in both files, loses nothing.
    """
    values = expected.astype("float64")
    signal = values.var()
    difference = np.subtract(got, values, out=values)  # in place: tensors of the first layers are large
    noise = np.mean(np.square(difference, out=difference))
    return float(decibels(signal if noise > 1e-30 else np.maximum(signal, 1), noise))
