"""Tasks: what the output of a network means, and what it is for two networks to agree. numpy.

`TASKS` is the table. A network's task follows from its output and its loss, see `task_of`. Layers are told by the names
of their classes, so that the command line can read the table without Keras.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

from keras_effnet.errors import UserError, one_of
from keras_effnet.evaluation import agreement
from keras_effnet.evaluation.agreement import Agreement

if TYPE_CHECKING:
    import keras

TaskName: TypeAlias = Literal["classification", "binary", "multilabel", "regression", "embedding", "segmentation"]
TASK_NAMES: tuple[TaskName, ...] = get_args(TaskName)
Bound: TypeAlias = Literal["decisions", "r2", "cosine", "iou"]

_SHARE = "95% interval {low:.1%} to {high:.1%}"
_DECIMAL = "95% interval {low:.4f} to {high:.4f}"


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
    accuracy: Callable[[np.ndarray, np.ndarray], tuple[float, float | None]] | None = None

    def shown(self, score: float) -> str:
        """A score as text, in percent or as a number."""
        return f"{score:.1%}" if self.percent else f"{score:.4g}"

    def sqnr_db(self, expected: np.ndarray, got: np.ndarray) -> float:
        """Signal-to-quantization-noise ratio of `got` against `expected` in decibels."""
        signal, noisy = (self.signal(outputs.astype("float64")) for outputs in (expected, got))
        return self.sqnr(signal, noisy)


_TABLE = (
    Task(
        "classification",
        ranks=(2,),
        agreement=agreement.same_class,
        signal=agreement.centred_logits,
        measured="logits",
        sqnr=agreement.median_sqnr,
        outcomes=agreement.best_class,
        alike="predicts class {}",
        accuracy=agreement.class_accuracy,
        bound="decisions",
        sound=0.97,
        percent=True,
        header="agreement",
        explanation="share of images with the Keras model's most probable class",
        sentence="the same class on {agreeing} of {samples} {kind} ({score:.1%}, " + _SHARE + ")",
        subject="Image classifier of {classes} classes",
        output="scores",
        description="Scores of the classes; the highest is the most probable.",
    ),
    Task(
        "binary",
        ranks=(2,),
        agreement=agreement.same_decision,
        signal=agreement.sigmoid_logits,
        measured="logits",
        sqnr=agreement.pooled_sqnr,
        outcomes=agreement.decisions,
        accuracy=agreement.decision_accuracy,
        bound="decisions",
        sound=0.97,
        percent=True,
        header="agreement",
        explanation="share of images with the Keras model's decision at a probability of 0.5",
        sentence="the same decision on {agreeing} of {samples} {kind} ({score:.1%}, " + _SHARE + ")",
        subject="Binary image classifier",
        output="score",
        description="Score of the positive class.",
    ),
    Task(
        "multilabel",
        ranks=(2,),
        agreement=agreement.same_decisions,
        signal=agreement.sigmoid_logits,
        measured="logits",
        sqnr=agreement.pooled_sqnr,
        outcomes=agreement.decisions,
        bound="decisions",
        sound=0.97,
        percent=True,
        header="agreement",
        explanation="share of the Keras model's decisions, at a probability of 0.5, over all labels and images",
        sentence="{score:.1%} of the decisions the same on {samples} {kind} (" + _SHARE + ")",
        subject="Image classifier of {classes} independent labels",
        output="label_scores",
        description="Score of each label.",
    ),
    Task(
        "regression",
        ranks=(2,),
        agreement=agreement.explained_variance,
        signal=agreement.unchanged,
        measured="output",
        sqnr=agreement.pooled_sqnr,
        outcomes=agreement.rounded,
        bound="r2",
        sound=0.97,
        header="R²",
        explanation="share of the variance of the Keras model's output that the file's output explains, worst output; "
        "errors are shares of the output's range",
        sentence="R² {score:.4f} on {samples} {kind} (" + _DECIMAL + ")",
        subject="Predictor of {classes} numbers",
        output="values",
        description="Predicted values.",
    ),
    Task(
        "embedding",
        ranks=(2, 4),
        agreement=agreement.same_direction,
        signal=agreement.unchanged,
        measured="output",
        sqnr=agreement.pooled_sqnr,
        outcomes=agreement.rounded,
        bound="cosine",
        sound=0.98,
        header="cosine",
        explanation="mean cosine similarity to the Keras model's embeddings; recall@1: share of images with the same "
        "nearest neighbour among the others",
        sentence="a mean cosine similarity of {score:.4f} on {samples} {kind} (" + _DECIMAL + ")",
        subject="Image embedder of {classes} features",
        output="embedding",
        description="Embedding of the image.",
    ),
    Task(
        "segmentation",
        ranks=(4,),
        agreement=agreement.same_masks,
        signal=agreement.mask_logits,
        measured="logits",
        sqnr=agreement.median_sqnr,
        outcomes=agreement.masks,
        bound="iou",
        sound=0.95,
        header="mean IoU",
        explanation="mean intersection over union with the Keras model's masks",
        sentence="a mean IoU of {score:.4f} on {samples} {kind} (" + _DECIMAL + ")",
        subject="Segmentation of {classes} classes",
        output="masks",
        description="Score of each class for each pixel.",
    ),
)

TASKS: dict[str, Task] = {task.name: task for task in _TABLE}

_BY_OUTPUT: dict[str, TaskName] = {task.output: task.name for task in _TABLE}


def task_of_output(name: str) -> TaskName:
    """Task of a file whose output has this name; classification if it is no task's."""
    return _BY_OUTPUT.get(name, "classification")


# Losses, by a part of their name, of the tasks that a linear output leaves open.
_LOSSES: tuple[tuple[str, TaskName], ...] = (
    ("binary", "multilabel"),
    ("categorical", "classification"),
    ("squared", "regression"),
    ("absolute", "regression"),
    ("huber", "regression"),
    ("mse", "regression"),
    ("mae", "regression"),
)
_PAINTING = ("Conv2D", "Conv2DTranspose", "UpSampling2D", "Resizing")  # whose output may be masks
_OF_MASKS = ("linear", "softmax", "sigmoid")
_TRANSPARENT = ("Dropout", "Identity")
_ACTIVATIONS = ("Activation", "Softmax")


def task_of(model: keras.Model, name: TaskName | None = None) -> Task:
    """Tell the task of a network with one output from that output, and from its loss where the output leaves it open.

    | output | task |
    |---|---|
    | `(N, height, width, classes)` of a convolution or resizing, or of a softmax or sigmoid | segmentation |
    | softmax | classification |
    | sigmoid | binary (one output) or multilabel |
    | linear, compiled with a loss | the loss's |
    | one number | regression |
    | several numbers of a `Dense` layer: linear, or of another activation | classification (logits), or regression |
    | otherwise, such as features | embedding |

    Args:
        model: Keras model with one output.
        name: String, one of `TASK_NAMES`, to use instead of the one found.

    Raises:
        UserError: An unknown name, or an output that is not of the task's shape.

    Example:

    >>> task_of(keras_effnet.EfficientNetB0(weights=None)).name
    'classification'
    """
    shape = tuple(model.outputs[0].shape)
    task = TASKS[one_of("task", name, TASKS) if name else _found(model, shape)]
    if len(shape) not in task.ranks or (task.name == "binary" and shape[-1] != 1):
        raise UserError(f"The output {shape} does not fit the task {task.name}.")
    if task.name == "classification" and shape[-1] == 1:
        raise UserError("A softmax over one output is always 1: use a sigmoid for two classes, nothing for a number.")
    return task


def _found(model: keras.Model, shape: tuple[int | None, ...]) -> TaskName:
    layer, activation = _head(model)
    if len(shape) == 4:
        return "segmentation" if _kind(layer) in _PAINTING and activation in _OF_MASKS else "embedding"
    if activation in ("softmax", "log_softmax"):
        return "classification"
    if activation == "sigmoid":
        return _for_decisions(shape)
    if name := _by_loss(model):
        return _for_decisions(shape) if name == "multilabel" else name
    if shape[-1] == 1:
        return "regression"
    if _kind(layer) == "Dense":
        return "classification" if activation == "linear" else "regression"
    return "embedding"


def _for_decisions(shape: tuple[int | None, ...]) -> TaskName:
    return "binary" if shape[-1] == 1 else "multilabel"


def _by_loss(model: keras.Model) -> TaskName | None:
    loss = getattr(model, "loss", None)
    known = str(loss if isinstance(loss, str) else getattr(loss, "name", None) or getattr(loss, "__name__", ""))
    return next((task for part, task in _LOSSES if part in known), None)


def _head(model: keras.Model) -> tuple[keras.layers.Layer | None, str]:
    """The layer that computes the output, and the name of the activation behind it; those of nested models too."""
    activation = "linear"
    for layer in reversed(model.layers):
        if getattr(layer, "layers", None):  # a nested model
            inner, found = _head(layer)
            return inner, found if activation == "linear" else activation
        if _kind(layer) in _TRANSPARENT:
            continue
        activation = _activation(layer) if activation == "linear" else activation
        if _kind(layer) not in _ACTIVATIONS:
            return layer, activation
    return None, activation


def _kind(layer: object) -> str:
    return type(layer).__name__


def _activation(layer: keras.layers.Layer) -> str:
    if _kind(layer) == "Softmax":
        return "softmax"
    return getattr(getattr(layer, "activation", None), "__name__", "linear")
