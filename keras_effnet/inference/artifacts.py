"""One predictor for every form of a trained network: a `.keras` or `.tflite` file, a run folder, a published name.

TensorFlow.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from scipy.special import expit

from keras_effnet.architecture.baselines import SPECS, refuse_detector
from keras_effnet.architecture.detector_files import DETECTOR_JSON
from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.errors import UserError, check_path, closest
from keras_effnet.imagenet import imagenet_classes, readable
from keras_effnet.inference.companions import (
    companion,
    described_beside,
    described_tflite,
    image_spec_beside,
    recorded_task,
)
from keras_effnet.inference.cpu_inference import frozen
from keras_effnet.inference.detectors import detector_of, saved_detector
from keras_effnet.models.efficientnet import EfficientNet
from keras_effnet.models.saving import load_model
from keras_effnet.preprocessing import ImageSpec, check_range, preprocess_input, square_side
from keras_effnet.system.files import why_no_file
from keras_effnet.tasks import TASKS, TaskName, task_of
from keras_effnet.tasks.recognition import is_detector
from keras_effnet.training.checkpoints import BEST

if TYPE_CHECKING:
    from keras_effnet.export.tflite_file.interpreter import ImageModel

logger = logging.getLogger(__name__)

_CLIENTS_FIT = "stretch"  # of a detector that says nothing of it


@dataclass(frozen=True, eq=False)
class Artifact:
    """A trained network on disk.

    Args:
        path: Path of the file.
        predict: Function from images `(N, size, size, channels)`, values 0..255, to outputs `(N, ..., classes)`;
            of a detector a dict of `"boxes"` `(N, anchors, 4)` and `"scores"` `(N, anchors, classes)`.
        classes: Int, size of the output's last axis.
        image_spec: `ImageSpec`, how images are cropped and resized.
        class_names: Names of the classes, labels or values, from `labels.txt`, else from a `.tflite` file's metadata,
            or ImageNet's for a published network; None if there are none. One output that tells two classes apart has
            the names of both, the negative one first.
        data_origin: Arguments of `datasets.load` for the data that the network was trained on, from `args.yaml`.
        model: The Keras model, or None for a `.tflite`.
        batch_size: Int, images per call of a Keras network, into which `predict` divides its input; a `.tflite` file
            runs one at a time on each core, so that it should be given as many.
        task: String, what the output means, see `tasks.TASKS`.
        detector: `DetectorSpec` of a detector, whose anchors its boxes refer to; None if it is not known.
    """

    path: Path
    predict: Callable[[np.ndarray], Any]
    classes: int
    image_spec: ImageSpec
    class_names: tuple[str, ...] | None = None
    data_origin: dict[str, Any] | None = None
    model: keras.Model | None = None
    batch_size: int = 1
    task: TaskName = "classification"
    detector: DetectorSpec | None = None


def resolve(path: str | Path) -> Path:
    """Resolve a path to a model file: the file itself, or the best weights of a run folder.

    Raises:
        UserError: The path does not exist, or is a folder without weights.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / BEST).is_file():
            raise UserError(f"{path} is a folder without {BEST}; expected a run folder, a .keras or a .tflite file.")
        return path / BEST
    if not path.is_file():
        refuse_detector(path)
        near = f" Did you mean {close!r}?" if (close := closest(str(path), SPECS)) else ""
        raise UserError(f"Model {path} {why_no_file(path)}.{near} Expected a run folder, a .keras or a .tflite file.")
    return path


def load(path: str | Path, *, batch_size: int = 32, several_outputs: bool = False) -> Artifact:
    """Load a trained network from a `.keras` file, a `.tflite` file, a run folder, or by the name of a published one.

    Args:
        path: Path, or a name such as `"lite0"`.
        batch_size: Int, images per call of a Keras network, or to divide among the cores for a `.tflite` file.
        several_outputs: Bool, whether a `.keras` file may have several outputs; `predict` and `task` are then those of
            the first.

    Returns:
        An `Artifact`.

    Raises:
        UserError: The file is missing, damaged or of another kind, or no weights are packaged for the name.

    Example:

    >>> from keras_effnet.inference import artifacts
    >>> artifact = artifacts.load("runs/train/digits")
    >>> artifact.predict(images).argmax(axis=1)
    """
    check_path("path", path)
    if str(path) in SPECS and not Path(path).exists():
        return _published(str(path), batch_size)
    path = resolve(path)
    if path.suffix == ".tflite":
        return _of_tflite(path, batch_size)
    if path.suffix == ".keras":
        return _of_keras(path, batch_size, several_outputs)
    raise UserError(f"{path.name} is neither a .keras nor a .tflite file.")


def _of_tflite(path: Path, batch_size: int) -> Artifact:
    from keras_effnet.export.isolation.parallel import ParallelModel
    from keras_effnet.export.tflite_file.metadata.detector_options import refuse_post_processing

    refuse_post_processing(path)
    file = ParallelModel(path)
    if _returns_boxes(file.output_shapes):
        return _of_detector_file(path, file, batch_size)
    if len(file.outputs) > 1:
        raise UserError(f"{path} has {len(file.outputs)} outputs; this takes files with one.")
    found, task = described_tflite(path, file.classes)
    if len(file.output_shapes[0]) not in TASKS[task].ranks:
        raise UserError(f"{path} is not an image classifier: its output has the shape {file.output_shapes[0]}.")
    square_side(str(path), file.input_shape)
    spec = image_spec_beside(path, file.input_shape) or ImageSpec.raw(file.input_shape)
    predict = _on_pixels(file.predict, spec)
    return Artifact(path, predict, file.classes, spec, batch_size=batch_size, task=task, **found)


def _of_keras(path: Path, batch_size: int, several_outputs: bool) -> Artifact:
    model = load_model(path, compile=False)
    if is_detector(model):
        return _of_detector(path, model, batch_size)
    shapes = [tuple(tensor.shape) for tensor in (*model.inputs, *model.outputs)]
    count, ranks = len(model.inputs), [len(shape) for shape in shapes]
    most = len(ranks) if several_outputs else 2  # the input and the outputs
    images = count == 1 and ranks[0] == 4 and 2 <= len(ranks) <= most and {*ranks[1:]} <= {2, 4}
    if not images or None in (shapes[0][3], shapes[1][-1]):
        inputs, outputs = (" and ".join(map(str, part)) for part in (shapes[:count], shapes[count:]))
        raise UserError(f"{path} is not an image classifier or the like: input {inputs}, output {outputs}.")
    side = square_side(str(path), shapes[0])
    saved = image_spec_beside(path, model.input_shape)
    if saved is None and side is None:
        raise UserError(
            f"{path} accepts images of any size: put the image_spec.json of its run folder beside it, or save "
            '{"size": 224} there, with its size.'
        )
    spec = saved or ImageSpec.of_model(model)
    return _of_model(path, model, spec, batch_size, **described_beside(path, shapes[1][-1]))


def _of_detector(path: Path, model: keras.Model, batch_size: int) -> Artifact:
    square_side(str(path), model.input_shape)
    spec = image_spec_beside(path, model.input_shape) or replace(ImageSpec.of_model(model), fit=_CLIENTS_FIT)
    scores = "scores" if "scores" in model.output else "logits"
    classes = int(model.output[scores].shape[-1])

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        found = [model.predict_on_batch(images[at : at + batch_size]) for at in range(0, len(images), batch_size)]
        codes, values = (np.concatenate([each[name] for each in found]) for name in ("boxes", scores))
        return {"boxes": codes, "scores": values if scores == "scores" else expit(values)}

    return Artifact(
        path,
        _on_pixels(run, spec),
        classes,
        spec,
        model=model,
        batch_size=batch_size,
        task="detection",
        detector=detector_of(model, path, companion(path, DETECTOR_JSON)),
        **described_beside(path, classes),
    )


def _returns_boxes(shapes: Sequence[tuple[int, ...]]) -> bool:
    """Whether a file has the outputs of a detector: boxes and scores, a row per anchor."""
    return [len(shape) for shape in shapes] == [3, 3] and shapes[0][2] == 4 and shapes[0][1] == shapes[1][1]


def _of_detector_file(path: Path, file: ImageModel, batch_size: int) -> Artifact:
    square_side(str(path), file.input_shape)
    (_, anchors, _), (_, _, classes) = file.output_shapes
    spec = image_spec_beside(path, file.input_shape) or replace(ImageSpec.raw(file.input_shape), fit=_CLIENTS_FIT)
    found, _ = described_tflite(path, classes)
    saved = companion(path, DETECTOR_JSON)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        codes, scores = np.split(file.predict(images), [4 * anchors], axis=1)
        return {"boxes": codes.reshape(-1, anchors, 4), "scores": scores.reshape(-1, anchors, classes)}

    detector = saved_detector(saved, path, anchors, classes, file.input_shape[1]) if saved else None
    predict = _on_pixels(run, spec)
    return Artifact(path, predict, classes, spec, batch_size=batch_size, task="detection", detector=detector, **found)


def _published(name: str, batch_size: int) -> Artifact:
    """Load a published network with its ImageNet weights."""
    spec = SPECS[name]
    crop = spec.image_size / (spec.image_size + 32)  # as the published accuracies were measured
    image_spec = ImageSpec.of(spec, crop=crop, interpolation="bicubic")
    names = readable(wnid for wnid, _ in imagenet_classes())
    return _of_model(Path(name), EfficientNet(spec, weights="imagenet"), image_spec, batch_size, class_names=names)


def _of_model(path: Path, model: keras.Model, image_spec: ImageSpec, batch_size: int, **description) -> Artifact:
    compute = cache(lambda: frozen(model))  # a network that nobody asks for predictions is not traced

    def run(images: np.ndarray) -> np.ndarray:
        starts = range(0, len(images), batch_size)
        results = [compute()(images[start : start + batch_size]) for start in starts]
        return np.concatenate([keras.tree.flatten(result)[0] for result in results])  # it may be in a dict

    predict = _on_pixels(run, image_spec)
    classes, task = (
        model.outputs[0].shape[-1],
        task_of(model, recorded_task(description.get("data_origin"), model)).name,
    )
    return Artifact(path, predict, classes, image_spec, model=model, batch_size=batch_size, task=task, **description)


def _on_pixels(run: Callable[[np.ndarray], Any], image_spec: ImageSpec) -> Callable[[np.ndarray], Any]:
    """Wrap `run` to accept images with values 0..255; the first batch in another range is warned of, no further one."""
    warned = False

    def predict(images: np.ndarray) -> Any:
        nonlocal warned
        inputs = network_input(images, image_spec)
        warned = warned or check_range(images)
        return run(inputs)

    return predict


def network_input(images: np.ndarray, image_spec: ImageSpec) -> np.ndarray:
    """Convert images with values 0..255 to a network's input: normalized, unless the network normalizes itself."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1:] != (image_spec.size, image_spec.size, image_spec.channels):
        wanted = (image_spec.size, image_spec.size, image_spec.channels)
        raise UserError(f"The network takes images of shape (N, {', '.join(map(str, wanted))}), got {images.shape}.")
    return images if image_spec.in_network else preprocess_input(images, image_spec)
