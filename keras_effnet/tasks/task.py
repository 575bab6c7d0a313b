"""`Task`: what the output of a network means, and how a network learns it. numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from keras_effnet.evaluation.agreement import Agreement, Drift
from keras_effnet.tasks.learning import Learning

TaskName: TypeAlias = Literal[
    "classification", "binary", "multilabel", "regression", "embedding", "segmentation", "detection"
]
TASK_NAMES: tuple[TaskName, ...] = get_args(TaskName)
Bound: TypeAlias = Literal["decisions", "r2", "cosine", "iou", "boxes"]


@dataclass(frozen=True, eq=False)
class Task:
    """What the output of a network means.

    Args:
        name: String.
        ranks: Tuple of ints, possible numbers of axes of the output, with the images' axis.
        agreement: Function of two arrays of outputs for the same images to their `Agreement`.
        signal: Function from outputs to the values whose quantization noise is measured.
        measured: String, what the signal is, for reports.
        sqnr: Function of two signals to a ratio in decibels.
        outcomes: Function from outputs to one outcome per image, to see whether all images have the same.
        bound: Kind of the agreement's score: the column of a precision's bounds that applies to it.
        sound: Float, score under which no file is recommended.
        alike: String, what a network does that gives all images one outcome; `{}` stands for it.
        percent: Bool, whether the score is shown in percent.
        accuracy: Function of outputs and true labels to top-1 and top-5 accuracy; None if labels are no classes.
        drift: Function of true labels and two arrays of outputs to the `Drift` of the second; None if labels tell
            nothing about it.
        learning: `Learning`, how a network is trained for it on labelled images; None if labels do not teach it.
        header: String, the score's name in tables.
        explanation: String, what the score is, for reports.
        sentence: String, format of the score with its count and interval.
        subject: String, what a file of this task is, for its metadata; `{classes}` stands for the size of the output.
        output: String, name of the output in a file's signature and metadata, which tells the file's task.
        description: String, what a file's output holds, for its metadata.
    """

    name: TaskName
    ranks: tuple[int, ...]
    agreement: Callable[[np.ndarray, np.ndarray], Agreement]
    signal: Callable[[np.ndarray], np.ndarray]
    measured: str
    sqnr: Callable[[np.ndarray, np.ndarray], float]
    outcomes: Callable[[np.ndarray], np.ndarray]
    bound: Bound
    sound: float
    header: str
    explanation: str
    sentence: str
    subject: str
    output: str
    description: str
    alike: str = "gives almost the same output"
    percent: bool = False
    accuracy: Callable[[np.ndarray, Any], tuple[float, float | None]] | None = None
    drift: Callable[[Any, np.ndarray, np.ndarray], Drift] | None = None
    learning: Learning | None = None

    @property
    def judged(self) -> bool:
        """Whether true labels tell more about a file than its agreement with the model."""
        return self.accuracy is not None or self.drift is not None

    def shown(self, score: float) -> str:
        """A score as text, in percent or as a number."""
        return f"{score:.1%}" if self.percent else f"{score:.4g}"

    def sqnr_db(self, expected: np.ndarray, got: np.ndarray) -> float:
        """Signal-to-quantization-noise ratio of `got` against `expected` in decibels."""
        signal, noisy = (self.signal(outputs.astype("float64")) for outputs in (expected, got))
        return self.sqnr(signal, noisy)
