"""Pruning and clustering: kernels with many zeros or few distinct values, for smaller compressed files.

App stores and updates send compressed files, so a network with 75% zeros is downloaded in less than half the bytes.
Size in memory and speed are unchanged, since LiteRT's kernels multiply zeros too. Both techniques return a Keras model,
which can be exported in every precision. Keras and TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from keras_effnet.architecture.network_parts import computing_layers
from keras_effnet.errors import UserError
from keras_effnet.export.calibration import Images
from keras_effnet.export.conversion.folding import fold_batch_norms
from keras_effnet.export.conversion.structure import float32_copy
from keras_effnet.export.finetune.parent import FineTuning, fine_tune, training_images
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.transfer import reestimate_batch_norm

PRUNING = FineTuning(epochs=8, learning_rate=1e-3)
CLUSTERING = FineTuning(epochs=8, learning_rate=1e-4)
_BATCH = 32


@dataclass(frozen=True)
class Kernel:
    """Compressibility of one kernel.

    Args:
        name: String, name of its layer.
        weights: Int, number of weights.
        zeros: Float in [0, 1], share of weights that are exactly 0.
        values: Int, number of distinct values.
    """

    name: str
    weights: int
    zeros: float
    values: int


@dataclass(frozen=True, eq=False)
class CompressionResult:
    """A pruned or clustered network.

    Args:
        model: Functional Keras model, which can be exported in every precision.
        kernels: Tuple of `Kernel`s, from input to output.
    """

    model: keras.Model
    kernels: tuple[Kernel, ...]

    @property
    def zeros(self) -> float:
        """Share of all kernel weights that are 0."""
        return sum(kernel.zeros * kernel.weights for kernel in self.kernels) / sum(k.weights for k in self.kernels)


def kernels(model: keras.Model) -> tuple[Kernel, ...]:
    """Count zeros and distinct values of every kernel of a network."""
    found = []
    for layer in computing_layers(model):
        if hasattr(layer, "kernel"):
            kernel = keras.ops.convert_to_numpy(layer.kernel)
            found.append(Kernel(layer.name, kernel.size, float(np.mean(kernel == 0)), len(np.unique(kernel))))
    return tuple(found)


def prune(
    model: keras.Model,
    data: Images,
    sparsity: float = 0.75,
    tuning: FineTuning = PRUNING,
    *,
    samples: int = 2000,
    image_spec: ImageSpec | None = None,
    announce: Callable[[str], None] = lambda step: None,
) -> CompressionResult:
    """Magnitude pruning: gradually set the smallest weights of each kernel to 0 while training the others.

    Depthwise kernels and the first convolution are not pruned: they hold less than 1% of the weights, and all others
    depend on them.

    Args:
        model: Trained functional Keras model with one image input of fixed size. It is not modified.
        data: Training images, of the kinds that `export_tflite` calibrates on. Labels are ignored: the network's own
            predictions are the targets. Use thousands of images like those that the network was trained on: with 75%
            zeros and a hundred images a published network of a thousand classes loses most of its accuracy.
        sparsity: Float in (0, 1), share of zeros in each kernel.
        tuning: `FineTuning`.
        samples: Int, maximum number of images.
        image_spec: `ImageSpec`, how images are cropped.
        announce: Called with a line of text after each epoch.

    Returns:
        A `CompressionResult` of the same architecture with re-estimated batch normalization statistics.

    Raises:
        UserError: An argument is out of range, the images are implausible, or the training failed.

    Example:

    >>> pruned = keras_effnet.export.prune(model, "flowers/train")
    >>> keras_effnet.export.export_tflite(pruned.model, "flowers.tflite", "int8", calibration="flowers/train")

    Source: the gradual schedule, Zhu & Gupta, To prune, or not to prune (2017).
    """
    if not 0 < sparsity < 1:
        raise UserError(f"sparsity must lie between 0 and 1, got {sparsity}.")
    images = training_images(model, data, samples, tuning.seed, image_spec)
    pruned = fine_tune(float32_copy(model), images, "prune", {"sparsity": sparsity}, tuning, announce)
    reestimate_batch_norm(pruned, [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)])
    return CompressionResult(pruned, kernels(pruned))


def cluster(
    model: keras.Model,
    data: Images,
    clusters: int = 16,
    tuning: FineTuning = CLUSTERING,
    *,
    samples: int = 2000,
    image_spec: ImageSpec | None = None,
    announce: Callable[[str], None] = lambda step: None,
) -> CompressionResult:
    """Weight clustering: restrict each kernel to a few distinct values, which are then trained.

    Batch normalization is folded first; folding it later would give each channel different values. In an int8 file,
    which has a scale per channel, the number of values holds per channel. Depthwise kernels and the first convolution
    are not clustered, see `prune`.

    Args:
        model, data, tuning, samples, image_spec, announce: As in `prune`.
        clusters: Int, at least 2, number of distinct values per kernel. 32 are far more accurate than 16.

    Returns:
        A `CompressionResult` without batch normalization.

    Raises:
        UserError: An argument is out of range, the images are implausible, or the training failed.

    Example:

    >>> clustered = keras_effnet.export.cluster(model, "flowers/train", clusters=32)

    Source: trained shared weights, Han et al., Deep Compression (ICLR 2016).
    """
    if clusters < 2:
        raise UserError(f"clusters must be at least 2, got {clusters}.")
    images = training_images(model, data, samples, tuning.seed, image_spec)
    folded = fold_batch_norms(float32_copy(model))
    clustered = fine_tune(folded, images, "cluster", {"clusters": clusters}, tuning, announce)
    return CompressionResult(clustered, kernels(clustered))
