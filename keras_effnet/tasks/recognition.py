"""Tell the task of a network from its output and its loss, and that of a file from the name of its output. numpy.

Layers are told by the names of their classes, so that the command line can read the table without Keras.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_effnet.errors import UserError, one_of
from keras_effnet.tasks.table import TASKS
from keras_effnet.tasks.task import Task, TaskName

if TYPE_CHECKING:
    import keras

_BY_OUTPUT: dict[str, TaskName] = {task.output: task.name for task in TASKS.values()}


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
_DETECTING = ({"boxes", "scores"}, {"boxes", "logits"})  # names of the outputs, each a value or more per anchor
_TRANSPARENT = ("Dropout", "Identity")
_ACTIVATIONS = ("Activation", "Softmax")
_UNFIT_DETECTOR = (
    "The outputs of {} do not fit the task {}: a detector has two, named boxes and scores, each of shape (N, anchors, "
    "values), and no other task has them."
)


def task_of(model: keras.Model, name: TaskName | None = None) -> Task:
    """Tell the task of a network from its output, and from its loss where the output leaves it open.

    | output | task |
    |---|---|
    | two, named `"boxes"` and `"scores"` or `"logits"`, each of shape `(N, anchors, values)` | detection |
    | `(N, height, width, classes)` of a convolution or resizing, or of a softmax or sigmoid | segmentation |
    | softmax | classification |
    | sigmoid | binary (one output) or multilabel |
    | linear, compiled with a loss | the loss's |
    | one number, or values in units (a final `Rescaling`) | regression |
    | several numbers of a `Dense` layer: linear, or of another activation | classification (logits), or regression |
    | otherwise, such as features | embedding |

    Args:
        model: Keras model with one output, or a detector.
        name: String, one of `TASK_NAMES`, to use instead of the one found.

    Raises:
        UserError: An unknown name, or an output that is not of the task's shape.

    Example:

    >>> task_of(keras_effnet.EfficientNetB0(weights=None)).name
    'classification'
    """
    shape = tuple(model.outputs[0].shape)
    task = TASKS[one_of("task", name, TASKS) if name else _found(model, shape)]
    if (task.name == "detection") != is_detector(model):
        raise UserError(_UNFIT_DETECTOR.format(model.name, task.name))
    if len(shape) not in task.ranks or (task.name == "binary" and shape[-1] != 1):
        raise UserError(f"The output {shape} does not fit the task {task.name}.")
    if task.name == "classification" and shape[-1] == 1:
        raise UserError("A softmax over one output is always 1: use a sigmoid for two classes, nothing for a number.")
    return task


def is_detector(model: keras.Model) -> bool:
    """Whether a network has the outputs of a detector: `"boxes"` and `"scores"` or `"logits"`, a row per anchor."""
    outputs = model.output if len(model.outputs) == 2 else None
    return isinstance(outputs, dict) and {*outputs} in _DETECTING and {len(x.shape) for x in outputs.values()} == {3}


def _found(model: keras.Model, shape: tuple[int | None, ...]) -> TaskName:
    if is_detector(model):
        return "detection"
    layer, activation = _head(model)
    if len(shape) == 4:
        return "segmentation" if _kind(layer) in _PAINTING and activation in _OF_MASKS else "embedding"
    if activation in ("softmax", "log_softmax"):
        return "classification"
    if _kind(layer) == "Rescaling":  # gives values their units
        return "regression"
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
