"""Outputs of a network with their labels, collected batch by batch. numpy."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from keras_effnet.errors import UserError
from keras_effnet.evaluation.agreement import are_probabilities
from keras_effnet.evaluation.metrics import check_finite

Batches = Iterable[tuple[np.ndarray, np.ndarray]]


def collect_outputs(batches: Batches) -> tuple[np.ndarray, np.ndarray]:
    """Concatenate outputs and labels of all batches.

    Args:
        batches: Pairs of outputs, a float array of shape `(N, L)`, and labels, an array of shape `(N,)` or `(N, L)`.

    Returns:
        Outputs and labels as float64 arrays of shape `(N, L)`.

    Raises:
        UserError: There are no images, an output is NaN or infinite, or labels and outputs differ in number.
    """
    pairs = [(np.asarray(outputs), np.asarray(labels)) for outputs, labels in batches if len(labels)]
    if not pairs:
        raise UserError("No images to evaluate.")
    outputs, labels = (np.concatenate(arrays).astype("float64") for arrays in zip(*pairs, strict=True))
    labels = labels.reshape(len(labels), -1)
    if labels.shape != outputs.shape:
        raise UserError(f"The labels have {labels.shape[1]} values per image, the network gives {outputs.shape[1]}.")
    check_finite(outputs)
    return outputs, labels


def probabilities(outputs: np.ndarray) -> np.ndarray:
    """Apply a sigmoid to logits; probabilities, outputs that all lie in [0, 1], are returned unchanged."""
    from scipy.special import expit

    return outputs if are_probabilities(outputs) else expit(outputs)


def mean_known(values: Iterable[float]) -> float:
    """Mean of the values that are numbers; NaN if none is."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
