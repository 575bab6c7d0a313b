"""Metrics of predicted numbers. numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_effnet.evaluation.by_task.outputs import Batches, collect_outputs, mean_known


@dataclass(frozen=True)
class ValueErrors:
    """Errors of one predicted value, in its unit.

    Args:
        mae: Float, mean absolute error.
        rmse: Float, root of the mean squared error.
        max_error: Float, largest absolute error.
        bias: Float, mean of prediction less truth: positive if predictions are too high.
        r2: Float, at most 1, share of the variance of the truth that the predictions explain; NaN if the true values
            are all equal.
        low: Float, lowest true value.
        high: Float, highest true value.
    """

    mae: float
    rmse: float
    max_error: float
    bias: float
    r2: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Values:
    """Predicted and true values of images, in their order.

    Args:
        predicted: Float array of shape `(N, values)`.
        truth: Float array of the same shape.
    """

    predicted: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True, eq=False)
class ValueEvaluation:
    """Metrics of a network that predicts numbers.

    Args:
        samples: Int, number of images.
        values: Tuple of `ValueErrors`, one per value.
    """

    samples: int
    values: tuple[ValueErrors, ...]

    @property
    def r2(self) -> float:
        """Mean R² of the values for which it is defined."""
        return mean_known(each.r2 for each in self.values)

    @property
    def mae(self) -> float:
        """Mean absolute error, mean over the values."""
        return float(np.mean([each.mae for each in self.values]))


def collect_values(batches: Batches) -> Values:
    """Collect predicted and true values, batch by batch.

    Args:
        batches: Pairs of outputs, a float array of shape `(N, V)`, and labels, an array of shape `(N, V)`, or `(N,)`
            for one value.

    Raises:
        UserError: As `collect_outputs`.
    """
    return Values(*collect_outputs(batches))


def evaluate_values(found: Values) -> ValueEvaluation:
    """Compute the errors of each value.

    Example:

    >>> found = collect_values([(np.array([[1.0], [2.5]]), np.array([1.0, 2.0]))])
    >>> evaluate_values(found).values[0].mae
    0.25
    """
    columns = zip(found.predicted.T, found.truth.T, strict=True)
    return ValueEvaluation(len(found.truth), tuple(_errors(*column) for column in columns))


def _errors(predicted: np.ndarray, truth: np.ndarray) -> ValueErrors:
    error = predicted - truth
    variance, squared = truth.var(), float(np.mean(error**2))
    return ValueErrors(
        mae=float(np.abs(error).mean()),
        rmse=float(np.sqrt(squared)),
        max_error=float(np.abs(error).max()),
        bias=float(error.mean()),
        r2=float(1 - squared / variance) if variance > 0 else float("nan"),
        low=float(truth.min()),
        high=float(truth.max()),
    )


def worst_values(found: Values, count: int) -> np.ndarray:
    """Indices of the images with the largest errors, as shares of the range of each value, largest first."""
    span = np.ptp(found.truth, axis=0)
    error = np.abs(found.predicted - found.truth) / np.where(span > 0, span, 1)
    return np.argsort(-error.max(axis=1), kind="stable")[:count]
