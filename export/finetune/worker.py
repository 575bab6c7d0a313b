"""Fine-tuning subprocess: `python -m keras_effnet.export.finetune.worker JOB`, started by `parent` only.

Builds the tf_keras twin of a network, wraps it with tfmot, trains it to keep its predictions, and writes the weights.
The only module that imports tf_keras and tfmot; never import it in a process that uses Keras 3.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster as keeping_zeros

_SAME = 1e-4  # tolerated difference of probabilities between a network and its twin
_PRUNED = 0.1  # kernels with a larger share of zeros are treated as pruned
_SILENCE = 1e-6  # lower bound of the logits' power, against division by 0
_CLUSTERS = 256  # kernels with at most as many distinct values, the limit of int8, are treated as clustered
_KERNELS = {"Conv2D": "kernel", "Dense": "kernel", "DepthwiseConv2D": "depthwise_kernel"}

Weights = dict[str, np.ndarray]  # `name/position` of a weight within its layer -> value


class Changed(NamedTuple):
    """A twin wrapped for training under a constraint.

    Args:
        model: tf_keras model to train.
        callbacks: Keras callbacks that the training needs.
        finish: Function that returns the weights after the training.
    """

    model: tf_keras.Model
    callbacks: list[tf_keras.callbacks.Callback]
    finish: Callable[[], Weights]


def build(network: list[dict], input_shape: list[int]) -> tf_keras.Model:
    """Build the twin of a described network; its output are logits."""
    tensors: dict[str, tf.Tensor] = {}
    x = None
    for entry in network:
        name, arguments = entry["name"], dict(entry["arguments"])
        if entry["class"] == "InputLayer":
            x = inputs = tf_keras.Input(input_shape, name=name)
        elif entry["class"] in ("Dropout", "Softmax"):
            x = tensors[entry["inputs"][0]]
        else:
            if entry is network[-1] and arguments.get("activation") == "softmax":
                arguments["activation"] = "linear"
            sources = [tensors[source] for source in entry["inputs"]]
            layer = getattr(tf_keras.layers, entry["class"])(name=name, **arguments)
            x = layer(sources if len(sources) > 1 else sources[0])
        tensors[name] = x
    return tf_keras.Model(inputs, x)


def _kernels(twin) -> dict[str, str]:
    """Layer name -> name of the attribute that holds its kernel."""
    kinds = {layer.name: type(layer).__name__ for layer in twin.layers}
    return {name: _KERNELS[kind] for name, kind in kinds.items() if kind in _KERNELS}


def _weights(model) -> Weights:
    return {f"{layer.name}/{i}": value for layer in model.layers for i, value in enumerate(layer.get_weights())}


# ------------------------------------------------------------------ int8


class KernelQuantizer(tfmot.quantization.keras.quantizers.Quantizer):
    """Quantizer of kernels as in the file: symmetric, 255 values, a scale per output channel.

    tfmot's own uses the last axis as channels, which has size 1 in a depthwise kernel. Pruned weights stay 0, and
    clustered weights keep sharing a value, with a common gradient.

    Args:
        kernel: The kernel before the training.
        depthwise: Bool.
    """

    def __init__(self, kernel: np.ndarray, depthwise: bool):
        self.channels = int(np.prod(kernel.shape[-2:])) if depthwise else kernel.shape[-1]
        self.mask = (kernel != 0).astype("float32")
        values, self.members = np.unique(kernel, return_inverse=True)
        self.clusters = len(values) if len(values) <= _CLUSTERS else None

    def build(self, tensor_shape, name, layer):
        return {}

    def __call__(self, inputs, training, weights, **kwargs):
        if self.clusters:
            members = self.members.reshape(inputs.shape)
            inputs = tf.gather(tf.math.unsorted_segment_mean(inputs, members, self.clusters), members)
        rows = tf.reshape(inputs * self.mask, (-1, self.channels))
        bound = tf.maximum(tf.reduce_max(tf.abs(tf.stop_gradient(rows)), axis=0), 1e-8)
        rows = tf.quantization.fake_quant_with_min_max_vars_per_channel(rows, -bound, bound, narrow_range=True)
        return tf.reshape(rows, inputs.shape)

    def get_config(self):
        return {}


class AsInFile(tfmot.quantization.keras.QuantizeConfig):
    """Quantize the same parts of a layer as the file: its kernel, and its output if that is a separate tensor there."""

    def __init__(self, kernel: str | None, quantizer: KernelQuantizer | None, output: list[float] | None):
        self.kernel, self.quantizer, self.output = kernel, quantizer, output

    def get_weights_and_quantizers(self, layer):
        return [(getattr(layer, self.kernel), self.quantizer)] if self.kernel else []

    def set_quantize_weights(self, layer, quantize_weights):
        if self.kernel:
            setattr(layer, self.kernel, *quantize_weights)

    def get_activations_and_quantizers(self, layer):
        return []

    def set_quantize_activations(self, layer, quantize_activations):
        pass

    def get_output_quantizers(self, layer):
        if self.output is None:
            return []
        low, high = self.output
        return [tfmot.quantization.keras.quantizers.FixedQuantizer(8, low, high, narrow_range=False)]

    def get_config(self):
        return {"kernel": self.kernel, "quantizer": None, "output": self.output}


def quantize(twin, options: dict[str, Any], steps: int) -> Changed:
    """Round every kernel and every tensor of the file to 8 bits.

    Args:
        twin: tf_keras model.
        options: Dict with `ranges`, a dict from layer name to `[low, high]` of its output.
        steps: Int, training steps.
    """
    kernels, ranges = _kernels(twin), options["ranges"]
    # Kept here, because the wrapper replaces a layer's variables by rounded tensors.
    variables = {f"{layer.name}/{i}": variable for layer in twin.layers for i, variable in enumerate(layer.weights)}
    quantizers = {
        name: KernelQuantizer(variables[f"{name}/0"].numpy(), kernel == "depthwise_kernel")
        for name, kernel in kernels.items()
    }

    def wrap(layer):
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            layer.trainable = False  # the file uses its moving statistics
        name = layer.name
        kernel, quantizer, output = kernels.get(name), quantizers.get(name), ranges.get(name)
        if kernel is None and output is None:
            return layer
        return tfmot.quantization.keras.QuantizeWrapperV2(layer, AsInFile(kernel, quantizer, output))

    model = tf_keras.models.clone_model(twin, clone_function=wrap)

    masks = {f"{name}/0": quantizer.mask for name, quantizer in quantizers.items()}

    def finish():
        return {name: variable.numpy() * masks.get(name, 1) for name, variable in variables.items()}

    return Changed(model, [], finish)


# ------------------------------------------------------------------ zeros and clusters


def _compressible(twin) -> set[str]:
    """Names of the layers whose kernels are pruned or clustered.

    Depthwise layers and the first convolution are excluded: they hold less than 1% of the weights, and all later layers
    depend on them.
    """
    names = [name for name, kernel in _kernels(twin).items() if kernel == "kernel"]
    return set(names[1:])


def prune(twin, options: dict[str, Any], steps: int) -> Changed:
    """Prune the smallest weights of each kernel, a growing share over the first two thirds of the training.

    Args:
        twin: tf_keras model.
        options: Dict with `sparsity`, the final share of zeros.
        steps: Int, training steps.
    """
    chosen = _compressible(twin)
    schedule = tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=min(0.5, options["sparsity"] / 2),
        final_sparsity=options["sparsity"],
        begin_step=0,
        end_step=max(1, 2 * steps // 3),
        frequency=max(1, steps // 30),
    )

    def wrap(layer):
        return tfmot.sparsity.keras.prune_low_magnitude(layer, schedule) if layer.name in chosen else layer

    model = tf_keras.models.clone_model(twin, clone_function=wrap)
    # The callback applies the masks again at the end of each epoch.
    return Changed(model, [tfmot.sparsity.keras.UpdatePruningStep()], lambda: _weights(twin))


def cluster(twin, options: dict[str, Any], steps: int) -> Changed:
    """Restrict each kernel to a few values, which are trained instead of the weights; pruned kernels keep their zeros.

    Args:
        twin: tf_keras model.
        options: Dict with `clusters`, the number of values.
        steps: Int, training steps.
    """
    chosen = _compressible(twin)

    def wrap(layer):
        if layer.name not in chosen or layer.kernel.shape.num_elements() <= options["clusters"]:
            return layer
        return keeping_zeros.cluster_weights(
            layer,
            options["clusters"],
            tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
            preserve_sparsity=bool(np.mean(layer.kernel.numpy() == 0) > _PRUNED),
        )

    model = tf_keras.models.clone_model(twin, clone_function=wrap)
    return Changed(model, [], lambda: _weights(tfmot.clustering.keras.strip_clustering(model)))


TECHNIQUES = {"quantize": quantize, "prune": prune, "cluster": cluster}


# ------------------------------------------------------------------ training


def _check(twin, images: np.ndarray, targets: np.ndarray) -> None:
    """Exit if the twin's predictions differ from the model's."""
    answers, targets = (tf.nn.softmax(logits).numpy() for logits in (twin(images, training=False), targets))
    if not np.abs(answers - targets).max() <= _SAME:
        sys.exit(f"the twin's probabilities differ from the model's by {np.abs(answers - targets).max():.2g}")


def noise_to_signal(targets, logits):
    """Noise-to-signal ratio of logits, the reciprocal of the SQNR of `VerifyReport`, as a training loss.

    Cross-entropy would have almost no gradient for images that the network is certain of.

    Args:
        targets, logits: Logits of shape `(N, classes)`; the targets have mean 0 per image.
    """
    noise = logits - tf.reduce_mean(logits, axis=1, keepdims=True) - targets
    return tf.reduce_mean(noise**2, axis=1) / tf.maximum(tf.reduce_mean(targets**2, axis=1), _SILENCE)


def _batches(images: np.ndarray, targets: np.ndarray, batch_size: int, seed: int) -> tf.data.Dataset:
    data = tf.data.Dataset.from_tensor_slices((images, targets)).shuffle(len(images), seed=seed)
    return data.batch(batch_size).map(lambda images, answers: (tf.cast(images, tf.float32), answers))


def main(job: Path) -> None:
    """Read `job.json`, `weights.npz`, `images.npy` and `targets.npy` of a job folder; write `trained.npz`."""
    description = json.loads((job / "job.json").read_text())
    images, targets = np.load(job / "images.npy"), np.load(job / "targets.npy")
    tuning = description["tuning"]
    tf_keras.utils.set_random_seed(tuning["seed"])
    twin = build(description["network"], description["input_shape"])
    with np.load(job / "weights.npz") as weights:
        for layer in twin.layers:
            layer.set_weights([weights[f"{layer.name}/{i}"] for i in range(len(layer.weights))])
    _check(twin, images[:8].astype("float32"), targets[:8])

    batches = _batches(images, targets, tuning["batch_size"], tuning["seed"])
    steps = int(batches.cardinality()) * tuning["epochs"]
    changed = TECHNIQUES[description["technique"]](twin, description["options"], steps)
    schedule = tf_keras.optimizers.schedules.CosineDecay(tuning["learning_rate"], steps)
    changed.model.compile(tf_keras.optimizers.Adam(schedule), noise_to_signal)

    def report(epoch, logs):
        if not np.isfinite(logs["loss"]):
            sys.exit("the loss became NaN; lower the learning rate")
        print(f"epoch {epoch + 1}/{tuning['epochs']}  loss {logs['loss']:.4f}", flush=True)

    progress = tf_keras.callbacks.LambdaCallback(on_epoch_end=report)
    changed.model.fit(batches, epochs=tuning["epochs"], verbose=0, callbacks=[*changed.callbacks, progress])
    np.savez(job / "trained.npz", **changed.finish())  # type: ignore[arg-type]  # numpy's stub matches the names with allow_pickle


if __name__ == "__main__":
    main(Path(sys.argv[1]))
