"""The outputs of a network, each with the task of its own: one for most, several for networks with several heads.

What several outputs give for an image is handled as one row, the flattened outputs one after the other, so that
conversion, calibration and comparison need not know how many there are. Keras and numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal, TypeAlias

import keras
import numpy as np

from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.detection.anchors import anchor_boxes
from keras_effnet.errors import UserError, one_of
from keras_effnet.tasks import TASKS, Task, TaskName, task_of
from keras_effnet.tasks.detectors import detection_task
from keras_effnet.tasks.recognition import is_detector

PortKind: TypeAlias = Literal["feature", "corners", "axis", "values"]
Tasks: TypeAlias = TaskName | Mapping[str, TaskName]


@dataclass(frozen=True)
class Port:
    """A tensor that a file returns.

    Args:
        name: String, its name in the file's signature.
        shape: Tuple of ints, without the images' axis.
        description: String, what it holds, for the file's metadata.
        known_as: String, the name by which clients find it in the metadata; by default its name.
        kind: `"feature"`; `"corners"` of boxes; `"axis"`, values along the axis that the labels name; or `"values"`,
            of detections, where the labels name the values of the tensor `"category"`.
    """

    name: str
    shape: tuple[int, ...]
    description: str
    known_as: str = ""
    kind: PortKind = "feature"


@dataclass(frozen=True, eq=False)
class Output:
    """One output of a network: what one task is about.

    Args:
        name: String, its name in reports.
        task: `Task`.
        shape: Tuple of ints, without the images' axis.
        ports: Tuple of `Port`s, the tensors of a file that hold it: the two of a detector, which its task joins along
            the last axis; by default one of the same name and shape.
        detector: `DetectorSpec` of a detector.
    """

    name: str
    task: Task
    shape: tuple[int, ...]
    ports: tuple[Port, ...] = ()
    detector: DetectorSpec | None = None

    def __post_init__(self) -> None:
        if not self.ports:
            object.__setattr__(self, "ports", (Port(self.name, self.shape, self.task.description),))

    def of_rows(self, rows: np.ndarray) -> np.ndarray:
        """The output, an array of shape `(N, *shape)`, from flattened ports, an array of shape `(N, size)`."""
        ends = np.cumsum([prod(port.shape) for port in self.ports])[:-1]
        pieces = zip(self.ports, np.split(rows, ends, axis=1), strict=True)
        return np.concatenate([piece.reshape(-1, *port.shape) for port, piece in pieces], axis=-1)


@dataclass(frozen=True, eq=False)
class Outputs:
    """All outputs of a network, in its order."""

    each: tuple[Output, ...]

    @classmethod
    def of(cls, model: keras.Model, task: Tasks | None = None, detector: DetectorSpec | None = None) -> Outputs:
        """Describe the outputs of a functional model; a single one is named by its task, several by the model.

        Args:
            model: Functional Keras model.
            task: String, the task of a model with one output, or a dict of output name to task; by default told by the
                output and its loss, see `tasks.task_of`.
            detector: `DetectorSpec` of a detector, for its anchors.

        Raises:
            UserError: An output fits no task, `task` does not fit the outputs, or the anchors of a detector are not
                known.
        """
        if is_detector(model) and task in (None, "detection"):
            return cls((_detections(model, detector),))
        if len(model.outputs) == 1 and not isinstance(task, Mapping):
            found = task_of(model, task)
            return cls((Output(found.output, found, tuple(model.outputs[0].shape[1:])),))
        names = _names(model)
        if isinstance(task, str):
            cure = f"name the task of each as a dict of {', '.join(names)}."
            raise UserError(f"task={task!r} is for models with one output; this one has {len(names)}: {cure}")
        given = dict(task or {})
        for name in given:
            one_of("output", name, names)
        losses = _losses(model, names)
        each = zip(names, model.outputs, strict=True)
        return cls(tuple(_output(model, name, tensor, given.get(name), losses.get(name)) for name, tensor in each))

    @property
    def only(self) -> Output:
        """The output of a network that has one.

        Raises:
            UserError: It has several.
        """
        if len(self.each) > 1:
            raise UserError(f"This takes a model with one output; it has {len(self.each)}: {', '.join(self.names)}.")
        return self.each[0]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(output.name for output in self.each)

    @property
    def ports(self) -> tuple[Port, ...]:
        """The tensors that a file returns, in its order."""
        return tuple(port for output in self.each for port in output.ports)

    @property
    def size(self) -> int:
        """Values per image, of all outputs."""
        return sum(prod(int(side or 1) for side in output.shape) for output in self.each)

    def parts(self, rows: np.ndarray) -> list[np.ndarray]:
        """Take joined rows apart: an array of shape `(N, ...)` for each output."""
        if len(self.ports) == 1:
            return [rows]
        ends = np.cumsum([prod(output.shape) for output in self.each])[:-1]
        pieces = np.split(rows, ends, axis=1)
        return [output.of_rows(piece) for piece, output in zip(pieces, self.each, strict=True)]

    def sqnr_db(self, expected: np.ndarray, got: np.ndarray) -> float:
        """Signal-to-quantization-noise ratio in decibels, that of the worst output."""
        pairs = zip(self.each, self.parts(expected), self.parts(got), strict=True)
        return min(output.task.sqnr_db(wanted, found) for output, wanted, found in pairs)

    def remark(self, answers: np.ndarray) -> str:
        """Remark on outputs that are the same for all images; empty if there is none."""
        for output, part in zip(self.each, self.parts(answers), strict=True):
            outcomes = output.task.outcomes(part)
            if len(outcomes) > 1 and not (outcomes != outcomes[0]).any():
                where = f" in output {output.name}" if len(self.each) > 1 else ""
                return (
                    f"The model {output.task.alike.format(outcomes[0])} for all {len(outcomes)} images{where}, so the "
                    "agreement proves little. Is it trained?"
                )
        return ""


CLASSIFIER = Outputs((Output("scores", TASKS["classification"], ()),))


def class_count(model: keras.Model) -> int:
    """Size of the last axis of the first output; of a detector, of its scores."""
    return int(model.output["scores"].shape[-1] if is_detector(model) else model.outputs[0].shape[-1])


def _detections(model: keras.Model, detector: DetectorSpec | None) -> Output:
    if "scores" not in model.output:
        raise UserError(
            f"{model.name} returns logits, but files return scores: build it with classifier_activation='sigmoid' and "
            "copy the weights, new.set_weights(old.get_weights())."
        )
    if detector is None:
        raise UserError(
            f"The anchors of {model.name} are not known, and its boxes mean nothing without: pass "
            "detector=keras_effnet.detector_spec(...) as it was trained, or put its detector.json beside the file."
        )
    height, width = model.input_shape[1:3]
    task = detection_task(detector, (height, width))
    anchors, classes = (int(side) for side in model.output["scores"].shape[1:])
    if (expected := len(anchor_boxes(detector, (height, width)))) != anchors:
        raise UserError(f"{model.name} has {anchors:,} anchors, the given detector {expected:,}: it is another one's.")
    ports = (
        Port("boxes", (anchors, 4), task.description, task.output, "corners"),
        Port("scores", (anchors, classes), "Score of each class for each anchor, 0 to 1.", "score", "axis"),
    )
    return Output("detections", task, (anchors, 4 + classes), ports, replace(detector, classes=classes))


def _output(model: keras.Model, name: str, tensor: Any, task: TaskName | None, loss: Any) -> Output:
    head = keras.Model(model.inputs, tensor)
    if loss is not None:
        head.compile(loss=loss)  # `task_of` reads it
    return Output(_readable(name), task_of(head, task), tuple(tensor.shape[1:]))


def _names(model: keras.Model) -> list[str]:
    """Names of the outputs: the keys of a dict, or those of the layers."""
    return sorted(model.output) if isinstance(model.output, dict) else list(model.output_names)


def _losses(model: keras.Model, names: Sequence[str]) -> dict[str, Any]:
    """Output name -> loss, for a model that is compiled with a loss for each."""
    losses = getattr(model, "loss", None)
    if isinstance(losses, list | tuple):
        return dict(zip(names, losses, strict=False))
    return dict(losses) if isinstance(losses, dict) else {}


def _readable(name: str) -> str:
    """Name without the characters that TensorFlow refuses in signatures."""
    return "".join(letter if letter.isalnum() or letter in "_-." else "_" for letter in name)
