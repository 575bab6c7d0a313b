"""Fine-tuning with tfmot on a tf_keras twin of the network, in a subprocess.

tfmot supports only tf_keras, and importing it turns `tf.keras` into tf_keras for the whole process, hence the
subprocess (`worker`). The twin is built from the layers of the model, not from a spec: a reloaded model has no spec,
and for int8 its batch normalization is folded away. Keras in this process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np

from keras_effnet.errors import UserError
from keras_effnet.evaluation.agreement import centred_logits
from keras_effnet.export.calibration import Images, check_images, load_images
from keras_effnet.export.conversion.float_graph import check_exportable
from keras_effnet.export.conversion.folding import input_layers
from keras_effnet.export.conversion.plausibility import check_predictions
from keras_effnet.export.conversion.structure import plain
from keras_effnet.export.outputs import Outputs
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.system.private_api import graph_steps
from keras_effnet.tasks.recognition import is_detector

_TRAINER = "keras_effnet.export.finetune.worker"
PROGRESS = "epoch "  # prefix of progress lines

# Arguments that the twin's layers copy. Dropout is inactive: the targets are predictions without dropout.
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
    """Options of fine-tuning: Adam with cosine decay to 0.

    Args:
        epochs: Int, at least 1.
        learning_rate: Float, initial learning rate.
        batch_size: Int.
        seed: Int, seed of the order of the images.
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
    """Load training images as float32 of shape `(N, height, width, channels)`, values 0..255.

    Raises:
        UserError: The model has not exactly one image input of fixed size, or the images are implausible.
    """
    model = plain(model)
    check_exportable(model)
    task = "detection" if is_detector(model) else Outputs.of(model).only.task.name
    if task != "classification":
        raise UserError(f"Fine-tuning needs an output of shape (N, classes); the task of this one is {task}.")
    spec = ImageSpec.of_model(model)
    if not spec.in_network:
        raise UserError(f"{model.name} was built with include_preprocessing=False; fine-tuning needs pixels in 0..255.")
    images = load_images(data, image_spec or spec, samples, seed)
    check_images(images)
    return images


def describe(model: keras.Model) -> list[dict]:
    """Describe a functional model as JSON data: name, class, arguments and input layers of each layer, in order.

    Raises:
        UserError: A layer has no counterpart in the twin, or is called more than once.
    """
    layers, inputs = [], input_layers(model)
    calls = Counter(operation.name for operation, _, _ in graph_steps(model))
    for layer in model.operations:
        kind = type(layer).__name__
        stock = isinstance(layer, keras.layers.Layer) and type(layer).__module__.split(".")[0] == "keras"
        if kind not in _ARGUMENTS or not stock:
            raise UserError(
                f"Layer {layer.name} is a {kind}, which cannot be rebuilt in tf_keras; only stock layers can."
            )
        if calls[layer.name] > 1:
            raise UserError(
                f"Layer {layer.name} is called {calls[layer.name]} times, and fine-tuning needs networks that call "
                "each layer once: put copies in its place."
            )
        config = layer.get_config()
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
    """`name/position` -> value; Keras 3 and tf_keras order a layer's weights in the same way."""
    return {f"{layer.name}/{i}": value for layer in model.layers for i, value in enumerate(layer.get_weights())}


def _failure(log: Path, status: int) -> str:
    """Error message for a failed training; its log is copied to a file that later runs do not overwrite."""
    handle, kept = tempfile.mkstemp(prefix="keras_effnet-", suffix=".log")
    os.close(handle)
    shutil.copyfile(log, kept)
    lines = log.read_text(errors="replace").strip().splitlines()
    cause = f"killed by signal {-status}, probably out of memory" if status < 0 else (lines or ["no output"])[-1]
    return f"The training in tf_keras failed: {cause}. See its log, {kept}."


def _run(job: Path, announce: Callable[[str], None]) -> None:
    """Run the subprocess; progress goes to `announce`, all other output to `job/log.txt`.

    Raises:
        UserError: The training failed.
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
            for line in process.stdout or ():
                if line.startswith(PROGRESS):
                    announce(line.strip())
        except BaseException:  # also on KeyboardInterrupt: leave no process behind
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
    """Train a network under a constraint to keep its predictions: self-distillation, without labels.

    Args:
        model: Functional Keras model of stock layers in float32, with probabilities or logits as output.
        images: Array of shape `(N, height, width, channels)`, in the network's input range.
        technique: String, a key of `worker.TECHNIQUES`.
        options: Options of the technique, JSON values.
        tuning: `FineTuning`.
        announce: Called with a line of text after each epoch.

    Returns:
        A copy of `model` with the trained weights.

    Raises:
        UserError: A layer cannot be rebuilt in tf_keras, or the training failed.

    Source: distillation, Hinton et al. (2015); of a network into its own quantized self, Mishra & Marr, Apprentice
    (ICLR 2018).
    """
    network = describe(model)
    images = images.astype("float16")  # half the memory; finer than a grey level, normalized or not
    targets = model.predict(images, batch_size=32, verbose=0)
    check_predictions(model, images, targets)
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
        np.save(job / "targets.npy", centred_logits(targets))
        np.savez(job / "weights.npz", **weights(model))  # type: ignore[arg-type]  # numpy's stub matches the names with allow_pickle
        _run(job, announce)
        with np.load(job / "trained.npz") as trained:
            values = dict(trained)
    copy = keras.models.clone_model(model)
    for layer in copy.layers:
        layer.set_weights([values[f"{layer.name}/{i}"] for i in range(len(layer.weights))])
    return copy
