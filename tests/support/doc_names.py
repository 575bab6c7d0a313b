"""Names that the Python of a page uses without making them, by page: networks, images, batches, all small."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from doc_stand_ins import Stage
from small_detector import small_detector
from weight_files import lite_arrays, write_safe_arrays

import keras_effnet
from keras_effnet import datasets, export
from keras_effnet.detection import Truth

SIDE, COUNT = 32, 40


def _images(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3)).astype("uint8")


def _batches(side: int, count: int) -> tf.data.Dataset:
    labels = np.arange(count) % 10
    return tf.data.Dataset.from_tensor_slices((_images(count, side).astype("float32"), labels)).batch(2)


def _trained(stage: Stage) -> dict[str, Any]:
    """The network on digits, ready for `fit`, with its data."""
    model = keras_effnet.load_model(stage("run") / "weights/best.keras")
    model.compile("sgd", "sparse_categorical_crossentropy")
    return {"model": model, "data": datasets.load("digits"), "batches": _batches(SIDE, 4)}


def _detector(stage: Stage) -> dict[str, Any]:
    """A detector, some images in a folder and in an array, and their boxes."""
    spec = small_detector()
    truth = [Truth(np.array([[4.0, 4.0, 40.0, 40.0]]), np.array([0]))] * COUNT
    made = {"spec": spec, "names": ["a", "b", "c"], "pixels": _images(COUNT, 64), "truth": truth}
    return made | {"model": keras_effnet.EfficientDet(spec, input_shape=(64, 64, 3))}


def _lite_weights(stage: Stage) -> dict[str, Any]:
    """A checkpoint of Lite0 with random values, and a network whose weights are to be moved."""
    lite0 = keras_effnet.EfficientNetLite0(weights=None)
    arrays = {name: array for name, array in lite_arrays(lite0).items() if "num_batches" not in name}
    write_safe_arrays(Path("tf_efficientnet_lite0.safetensors"), arrays)
    return {"model": keras_effnet.EfficientNetB0(weights=None, classes=10)}


def _export_without_bundle(stage: Stage) -> dict[str, Any]:
    shutil.rmtree("runs/export/flowers/bundle")
    return {}


BY_PAGE: dict[str, Callable[[Stage], dict[str, Any]]] = {
    "docs/augment.md": lambda stage: {"images": _images(8, 64), "image": _images(1, 64)[0]},
    "docs/data.md": lambda stage: _trained(stage) | {"images": _images(COUNT, SIDE), "labels": np.arange(COUNT) % 2},
    "docs/detection.md": _detector,
    "docs/export.md": _export_without_bundle,
    "docs/quickstart.md": lambda stage: {"image": _images(1, 224)[0]},
    "docs/scale-out.md": lambda stage: {"batches": _batches(224, 2)},
    "docs/training.md": _trained,
    "docs/weights.md": _lite_weights,
    "docs/zoo.md": lambda stage: {"images": _images(2, SIDE)},
}


def names_of(page: str, stage: Stage) -> dict[str, Any]:
    """Names for one block of a page, made anew for each, so that none sees what another has trained."""
    return {
        "keras": keras,
        "keras_effnet": keras_effnet,
        "export": export,
        **BY_PAGE.get(page, lambda stage: {})(stage),
    }
