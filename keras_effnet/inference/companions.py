"""What lies beside a model file and describes it: class names, image spec, the record of its training.

`labels.txt` and `image_spec.json` are read from its folder or the one above; a `.tflite` file may hold the class names.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, TypedDict

import keras

from keras_effnet.config.run_record import RunRecord
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.system.documents import read_lines
from keras_effnet.tasks import TASKS, TaskName, task_of_output

logger = logging.getLogger(__name__)


def companion(path: Path, name: str) -> Path | None:
    """Find a file in the folder of `path` or in its parent."""
    return next((folder / name for folder in path.resolve().parents[:2] if (folder / name).is_file()), None)


class Description(TypedDict):
    """Arguments of `Artifact` that no model file holds."""

    class_names: tuple[str, ...] | None
    data_origin: dict[str, Any] | None


def described_beside(path: Path, classes: int) -> Description:
    """Read `labels.txt` and `args.yaml`."""
    labels, args = companion(path, "labels.txt"), companion(path, "args.yaml")
    read = tuple(read_lines(labels)) if labels else ()
    names = fitting_names(read, classes)
    if labels and not names:
        logger.warning("%s has %d names, the network %d classes: the names are not used.", labels, len(read), classes)
    origin = dict(RunRecord.read(args).data) if args else None
    return {"class_names": names, "data_origin": origin or None}


def fitting_names(names: tuple[str, ...], outputs: int) -> tuple[str, ...] | None:
    """Names that fit the number of outputs, otherwise None; one output may be known by the names of two classes."""
    return names if len(names) == outputs or (outputs == 1 and len(names) == 2) else None


def described_tflite(path: Path, classes: int) -> tuple[Description, TaskName]:
    """Description and task of a `.tflite` file, which may hold class names; one without metadata is a classifier's."""
    from keras_effnet.export.tflite_file.inspection import inspect

    found, metadata = described_beside(path, classes), inspect(path).metadata
    if metadata is None:
        return found, "classification"
    found["class_names"] = found["class_names"] or fitting_names(metadata.labels, classes)
    return found, task_of_output(metadata.output_name)


def recorded_task(origin: dict[str, Any] | None, model: keras.Model) -> TaskName | None:
    """Task that a network was trained for, from `args.yaml`; None if the model is no network of it."""
    name = (origin or {}).get("task")
    return name if name in TASKS and name != "detection" and len(model.outputs[0].shape) in TASKS[name].ranks else None


def image_spec_beside(path: Path, input_shape: tuple[int | None, ...]) -> ImageSpec | None:
    """The `ImageSpec` beside a model file, if it fits the model's input."""
    saved = companion(path, "image_spec.json")
    spec = ImageSpec.load(saved) if saved else None
    # The model file is authoritative about its shape; the JSON may belong to another model.
    fits = spec and input_shape[1] in (spec.size, None) and input_shape[3] == spec.channels
    return spec if fits else None
