"""Kernels of many zeros or of few distinct values: as large as before in memory, much smaller once compressed.

What a store or an update sends is compressed, so a network with 75% zeros reaches phones in less than half the bytes.
The speed stays: the kernels of LiteRT multiply zeros too. Both give a Keras model, so every precision can follow.

Imports `calibration`, `conversion`, `folding`, `twin` beside it, and `transfer`, `saving`, `errors` above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from keras_effnet.architecture.network_parts import computing_layers
from keras_effnet.errors import UserError
from keras_effnet.export.calibration import Images
from keras_effnet.export.conversion import float32_copy
from keras_effnet.export.finetune.parent import FineTuning, fine_tune, training_images
from keras_effnet.export.int8.folding import fold_batch_norms
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.transfer import reestimate_batch_norm

PRUNING = FineTuning(epochs=8, learning_rate=1e-3)
CLUSTERING = FineTuning(epochs=8, learning_rate=1e-4)
_BATCH = 32


@dataclass(frozen=True)
class Kernel:
    """What compression finds in one kernel.

    Args:
        name: String, of its layer.
        weights: Int, how many it has.
        zeros: Float in [0, 1], share of them that are exactly 0.
        values: Int, distinct values.
    """

    name: str
    weights: int
    zeros: float
    values: int


@dataclass(frozen=True, eq=False)
class Thinned:
    """A pruned or clustered network.

    Args:
        model: Functional Keras model, which exports at every precision.
        kernels: Tuple of `Kernel`, input side first.
    """

    model: keras.Model
    kernels: tuple[Kernel, ...]

    @property
    def zeros(self) -> float:
        """Share of all kernels' weights that are 0."""
        return sum(kernel.zeros * kernel.weights for kernel in self.kernels) / sum(k.weights for k in self.kernels)


def kernels(model: keras.Model) -> tuple[Kernel, ...]:
    """Zeros and distinct values of every kernel of a network."""
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
) -> Thinned:
    """Sets the smallest weights of each kernel to 0, step by step, while the others learn to make up for them.

    Depthwise kernels and the first convolution stay whole: under a hundredth of the weights, on which all else depends.

    Args:
        model: Trained functional Keras model with one image input of fixed size. It is left as it is.
        data: Images to learn from, of the kinds that `export_tflite` calibrates on. Labels are not looked at: the
            network's own answers are the targets. They must be thousands of the kind that the network was trained on: a
            published network of a thousand classes loses most of them with 75% zeros on a hundred.
        sparsity: Float in (0, 1), share of zeros in each kernel.
        tuning: `FineTuning`.
        samples: Int, images at most.
        image_spec: `ImageSpec`, how images are cropped.
        announce: Called with a line of text after each epoch.

    Returns:
        A `Thinned` of the same architecture, its batch normalization statistics measured anew.

    Raises:
        UserError: An argument out of range, images that cannot be right, or a training that failed.

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
    return Thinned(pruned, kernels(pruned))


def cluster(
    model: keras.Model,
    data: Images,
    clusters: int = 16,
    tuning: FineTuning = CLUSTERING,
    *,
    samples: int = 2000,
    image_spec: ImageSpec | None = None,
    announce: Callable[[str], None] = lambda step: None,
) -> Thinned:
    """Draws the weights of each kernel from a few values, which are then trained.

    Batch normalization is folded away first: folded later, it would give each channel values of its own. In an int8
    file, whose channels each have a step, the count holds for each channel. Depthwise kernels and the first
    convolution stay as they are, see `prune`.

    Args:
        model, data, tuning, samples, image_spec, announce: As in `prune`.
        clusters: Int, at least 2, distinct values of a kernel. 32 keep far more of an answer than 16.

    Returns:
        A `Thinned` without batch normalization.

    Raises:
        UserError: An argument out of range, images that cannot be right, or a training that failed.

    Example:

    >>> clustered = keras_effnet.export.cluster(model, "flowers/train", clusters=32)

    Source: trained shared weights, Han et al., Deep Compression (ICLR 2016).
    """
    if clusters < 2:
        raise UserError(f"clusters must be at least 2, got {clusters}.")
    images = training_images(model, data, samples, tuning.seed, image_spec)
    folded = fold_batch_norms(float32_copy(model))
    clustered = fine_tune(folded, images, "cluster", {"clusters": clusters}, tuning, announce)
    return Thinned(clustered, kernels(clustered))
