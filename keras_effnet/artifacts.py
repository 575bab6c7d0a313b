"""Whatever holds a trained network, `.keras`, `.tflite` or run folder, as one thing that predicts.

What a file cannot carry lies beside it (`labels.txt`, `image_spec.json`) or in the run folder above it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import yaml

from keras_effnet.baselines import SPECS
from keras_effnet.errors import UserError, closest, first_line
from keras_effnet.images import read
from keras_effnet.models import EfficientNet
from keras_effnet.pipeline import evaluation_image
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.training import BEST


@dataclass(frozen=True, eq=False)
class Artifact:
    """A trained network on disk.

    Args:
        path: Path of the file.
        predict: Function from pictures `(N, size, size, channels)`, values 0..255, to predictions `(N, classes)`.
        classes: Int.
        image_spec: `ImageSpec`, how pictures are cropped and sized.
        model: The Keras model, or None for a `.tflite`.
    """

    path: Path
    predict: Callable[[np.ndarray], np.ndarray]
    classes: int
    image_spec: ImageSpec
    model: keras.Model | None = field(default=None)

    @cached_property
    def class_names(self) -> tuple[str, ...] | None:
        """Names from `labels.txt`, or None where there is none that fits."""
        labels = _sidecar(self.path, "labels.txt")
        names = tuple(labels.read_text().splitlines()) if labels else ()
        return names if len(names) == self.classes else None

    @cached_property
    def data_origin(self) -> dict[str, object] | None:
        """Arguments of `datasets.load` for the data that the network was trained on, from `args.yaml`."""
        args = _sidecar(self.path, "args.yaml")
        return (yaml.safe_load(args.read_text()) or {}).get("data") or None if args else None


def _sidecar(path: Path, name: str) -> Path | None:
    """A file beside `path` or in the folder above."""
    return next((folder / name for folder in path.resolve().parents[:2] if (folder / name).is_file()), None)


def _image_spec(path: Path, input_shape: tuple[int, ...]) -> ImageSpec:
    saved = _sidecar(path, "image_spec.json")
    spec = ImageSpec.load(saved) if saved else None
    # The file itself knows its size best; beside it may lie the contract of another.
    return spec if spec and spec.size == input_shape[1] else ImageSpec.raw(input_shape)


def resolve(path: str | Path) -> Path:
    """The model file that a path means: itself, or the best weights of a run folder.

    Raises:
        UserError: Nothing there, or a folder without weights.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / BEST).is_file():
            raise UserError(f"{path} is a folder without {BEST}; give a run folder, a .keras or a .tflite file.")
        return path / BEST
    if not path.is_file():
        near = f" Did you mean {close!r}?" if (close := closest(str(path), SPECS)) else ""
        raise UserError(f"Model {path} does not exist.{near} Give a run folder, a .keras or a .tflite file.")
    return path


def load(path: str | Path) -> Artifact:
    """Opens a `.keras` file, a `.tflite` file, a run folder, or a published network by its name.

    Raises:
        UserError: It is missing, damaged, of another kind, or no weights are packaged for that name.

    Example:

    >>> artifact = keras_effnet.artifacts.load("runs/train/digits")
    >>> artifact.predict(pictures).argmax(axis=1)
    """
    if str(path) in SPECS and not Path(path).exists():
        return _published(str(path))
    path = resolve(path)
    if path.suffix == ".tflite":
        from keras_effnet.export.interpreter import TFLiteModel

        file = TFLiteModel(path)
        return Artifact(path, file.predict, file.classes, _image_spec(path, file.input_shape))
    if path.suffix != ".keras":
        raise UserError(f"{path.name} is neither a .keras nor a .tflite file.")
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # zip, JSON, h5 and Keras each fail in their own way on a damaged file
        raise UserError(f"{path} is not a Keras model: {first_line(error)}") from error
    if len(model.inputs) != 1 or len(model.input_shape) != 4 or len(model.output_shape) != 2:
        raise UserError(f"{path} is no image classifier: {model.input_shape} in, {model.output_shape} out.")
    return _of_model(path, model, _image_spec(path, model.input_shape))


def _published(name: str) -> Artifact:
    """A published network with its ImageNet weights."""
    spec = SPECS[name]
    crop = spec.image_size / (spec.image_size + 32)  # as the published accuracies were measured
    return _of_model(Path(name), EfficientNet(spec, weights="imagenet"), ImageSpec.of(spec, crop=crop))


def _of_model(path: Path, model: keras.Model, image_spec: ImageSpec) -> Artifact:
    def predict(pictures: np.ndarray) -> np.ndarray:
        return np.asarray(model.predict(pictures, batch_size=32, verbose=0))

    return Artifact(path, predict, model.output_shape[-1], image_spec, model)


def picture(path: str | Path, image_spec: ImageSpec) -> np.ndarray:
    """One picture file at a network's size, as a batch of shape `(1, size, size, 3)`."""
    return evaluation_image(read(path), image_spec).numpy()[None]
