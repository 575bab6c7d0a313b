"""Fine-tunes a network with tfmot, which knows tf_keras alone and so gets a twin of it, in a process of its own.

Importing tfmot turns `tf.keras` into tf_keras for a whole process; that never happens to the caller's. The twin is
built from the layers of the model, not from a spec: a reloaded model has none, and for int8 its batch normalizations
are folded away. What the other process does stands in `twin_training`.

Imports `calibration`, `conversion`, `folding`, `verification` beside it, and `preprocessing`, `errors` above.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np

from keras_effnet.errors import UserError
from keras_effnet.export.calibration import Images, check_images, load_images
from keras_effnet.export.conversion import check_exportable
from keras_effnet.export.int8.folding import input_layers
from keras_effnet.export.verification import centred_logits
from keras_effnet.preprocessing import ImageSpec

_TRAINER = "keras_effnet.export.finetune.worker"
PROGRESS = "epoch "  # how the lines begin that are meant for people

# What a layer of the twin takes over. Dropout rests: the targets are answers that no dropout disturbed.
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "Activation": ("activation",),
    "Add": (),
    "BatchNormalization": ("momentum", "epsilon", "center", "scale"),
    "Conv2D": ("filters", "kernel_size", "strides", "padding", "dilation_rate", "groups", "activation", "use_bias"),
    "Dense": ("units", "activation", "use_bias"),
    "DepthwiseConv2D": ("kernel_size", "strides", "padding", "depth_multiplier", "activation", "use_bias"),
    "Dropout": (),
    "GlobalAveragePooling2D": ("keepdims",),
    "GlobalMaxPooling2D": ("keepdims",),
    "InputLayer": (),
    "MaxPooling2D": ("pool_size", "strides", "padding"),
    "Multiply": (),
    "ReLU": ("max_value", "negative_slope", "threshold"),
    "Rescaling": ("scale", "offset"),
    "Softmax": (),
    "ZeroPadding2D": ("padding",),
}


@dataclass(frozen=True)
class FineTuning:
    """How long and how fast a trained network is adapted: Adam, falling to 0 by a cosine.

    Args:
        epochs: Int, at least 1.
        learning_rate: Float, of the first step.
        batch_size: Int.
        seed: Int, of the order of the images.
    """

    epochs: int = 4
    learning_rate: float = 1e-4
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self):
        if self.epochs < 1 or self.batch_size < 1:
            raise UserError(f"epochs and batch_size must be at least 1, got {self.epochs} and {self.batch_size}.")
        if not 0 < self.learning_rate <= 1:
            raise UserError(f"The learning rate must lie in (0, 1], got {self.learning_rate}.")


def training_images(
    model: keras.Model, data: Images, samples: int, seed: int, image_spec: ImageSpec | None
) -> np.ndarray:
    """Images for a network to learn from, as float32 of shape `(N, height, width, channels)`, values 0..255.

    Raises:
        UserError: A model without one image of fixed size coming in, or images that cannot be right.
    """
    check_exportable(model)
    if len(model.output_shape) != 2 or model.output_shape[1] < 2:
        raise UserError(f"Training keeps the answers among two classes or more; the model gives {model.output_shape}.")
    spec = ImageSpec.of_model(model)
    if not spec.in_network:
        raise UserError(f"{model.name} was built with include_preprocessing=False, but learns from pixels in 0..255.")
    images = load_images(data, image_spec or spec, samples, seed)
    check_images(images)
    return images


def describe(model: keras.Model) -> list[dict]:
    """A functional model as plain data: name, class, arguments and input layers of each layer, input side first.

    Raises:
        UserError: A layer has no counterpart in the twin.
    """
    layers, inputs = [], input_layers(model)
    for layer in model.layers:
        kind, config = type(layer).__name__, layer.get_config()
        if kind not in _ARGUMENTS or type(layer).__module__.split(".")[0] != "keras":
            raise UserError(f"Layer {layer.name} is a {kind}, which this training cannot take over to tf_keras.")
        layers.append(
            {
                "name": layer.name,
                "class": kind,
                "arguments": {key: config[key] for key in _ARGUMENTS[kind]},
                "inputs": [source.name for source in inputs[layer.name]],
            }
        )
    return layers


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    """`name/position` -> value, the order of a layer's weights being the same in both Keras."""
    return {f"{layer.name}/{i}": value for layer in model.layers for i, value in enumerate(layer.get_weights())}


def _failure(log: Path, status: int) -> str:
    """What a user is told of a training that failed; the log is kept where the next one does not overwrite it."""
    handle, kept = tempfile.mkstemp(prefix="keras_effnet-", suffix=".log")
    os.close(handle)
    shutil.copyfile(log, kept)
    lines = log.read_text(errors="replace").strip().splitlines()
    cause = f"killed by signal {-status}, as for want of memory" if status < 0 else (lines or ["no word said"])[-1]
    return f"The training in tf_keras failed: {cause}. Its log is kept: {kept}."


def _run(job: Path, announce: Callable[[str], None]) -> None:
    """Runs the other process to its end; its progress goes to `announce`, all else into `job/log.txt`.

    Raises:
        UserError: It failed.
    """
    environment = os.environ | {
        "TF_USE_LEGACY_KERAS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = [sys.executable, "-P", "-m", _TRAINER, str(job)]
    with (
        (job / "log.txt").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as process,
    ):
        try:
            for line in process.stdout:
                if line.startswith(PROGRESS):
                    announce(line.strip())
        except BaseException:  # an interrupted caller leaves nothing running
            process.kill()
            raise
    if process.returncode:
        raise UserError(_failure(job / "log.txt", process.returncode))


def fine_tune(
    model: keras.Model,
    images: np.ndarray,
    technique: str,
    options: dict[str, object],
    tuning: FineTuning,
    announce: Callable[[str], None] = lambda step: None,
) -> keras.Model:
    """Trains a network under a constraint to answer as it does now: distillation from itself, without labels.

    Args:
        model: Functional Keras model of stock layers in float32, with probabilities or logits as output.
        images: Array of shape `(N, height, width, channels)`, values as the network takes them.
        technique: String, a key of `twin_training.TECHNIQUES`.
        options: What the technique takes, as JSON values.
        tuning: `FineTuning`.
        announce: Called with a line of text after each epoch.

    Returns:
        A copy of `model` with the weights that were found.

    Raises:
        UserError: A layer that tf_keras cannot take over, or a training that failed.

    Source: distillation, Hinton et al. (2015); of a network into its own quantized self, Mishra & Marr, Apprentice
    (ICLR 2018).
    """
    network = describe(model)
    images = images.astype("float16")  # half the memory; finer than a grey level, whether normalised or not
    with tempfile.TemporaryDirectory(prefix="keras_effnet-") as folder:
        job = Path(folder)
        description = {
            "network": network,
            "input_shape": model.input_shape[1:],
            "technique": technique,
            "options": options,
            "tuning": asdict(tuning),
        }
        (job / "job.json").write_text(json.dumps(description))
        np.save(job / "images.npy", images)
        np.save(job / "targets.npy", centred_logits(model.predict(images, batch_size=32, verbose=0)))
        np.savez(job / "weights.npz", **weights(model))
        _run(job, announce)
        with np.load(job / "trained.npz") as trained:
            values = dict(trained)
    copy = keras.models.clone_model(model)
    for layer in copy.layers:
        layer.set_weights([values[f"{layer.name}/{i}"] for i in range(len(layer.weights))])
    return copy
