"""Quantization-aware training: weights are trained under the 8-bit rounding of an int8 file.

The ranges of all tensors come from calibration and stay fixed; only the weights are trained, to reproduce the
predictions of the float network, so no labels are needed. The trained weights are then quantized like any int8 file,
with the ranges used in training. Keras and TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from keras_effnet.export.calibration import Images
from keras_effnet.export.conversion.float_graph import FloatGraph
from keras_effnet.export.conversion.folding import fold_batch_norms
from keras_effnet.export.conversion.ranges import with_ranges
from keras_effnet.export.conversion.source import ExportSource
from keras_effnet.export.conversion.structure import float32_copy
from keras_effnet.export.finetune.parent import FineTuning, fine_tune, training_images
from keras_effnet.export.int8.quantizers import best_calibrated, quantize_int8
from keras_effnet.export.tflite_file.schema import parse
from keras_effnet.export.tflite_file.tensors import output_tensors
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.system.output import captured_output

TUNING = FineTuning(epochs=6, learning_rate=1e-5)
_CALIBRATION = 200  # images for the ranges; more do not improve them


def _recorded_ranges(content: bytes) -> dict[int, tuple[float, float]]:
    """Ranges of all tensors of a calibrated float file, extended to include 0."""
    found = {}
    for index, tensor in enumerate(parse(content).subgraphs[0].tensors):
        if tensor.quantization is not None and tensor.quantization.min is not None:
            found[index] = min(float(tensor.quantization.min[0]), 0.0), max(float(tensor.quantization.max[0]), 0.0)
    return found


def starting_ranges(graph: FloatGraph) -> dict[str, tuple[float, float]]:
    """Name of a layer -> range of its output, minmax or percentile, whichever gives the better int8 SQNR."""
    outputs = output_tensors(graph.content, {layer.name for layer in graph.model.layers})
    with captured_output():
        ranges = _recorded_ranges(best_calibrated(graph, graph.images))
    return {name: ranges[index] for name, index in outputs.items() if index in ranges}


@dataclass(frozen=True, eq=False)
class QatResult:
    """A network trained for int8.

    Args:
        model: Functional Keras model with the trained weights, batch normalization folded. In float its predictions
            are close to the original network's.
        ranges: Dict of layer name -> `(low, high)`, the output ranges used in training.
        pixels: Array of shape `(N, height, width, channels)`, values 0..255, on which the ranges were calibrated.
    """

    model: keras.Model
    ranges: dict[str, tuple[float, float]]
    pixels: np.ndarray

    def file(self, input_type: str) -> tuple[bytes, FloatGraph]:
        """Make the bytes of `tflite`, and the float graph that they were quantized from."""
        graph = ExportSource(self.model, self.pixels).graph(input_type)
        outputs = output_tensors(graph.content, {layer.name for layer in graph.model.layers})
        ranges = {index: self.ranges[name] for name, index in outputs.items() if name in self.ranges}
        return quantize_int8(with_ranges(graph.content, {**graph.extremes, **ranges}), input_type), graph

    def tflite(self, input_type: str = "float32") -> bytes:
        """Make the int8 file from the trained weights and the ranges used in training.

        Args:
            input_type: `"float32"`, or `"uint8"` for raw bytes.
        """
        with captured_output():
            return self.file(input_type)[0]


def train_quantized(
    model: keras.Model,
    images: np.ndarray,
    tuning: FineTuning = TUNING,
    announce: Callable[[str], None] = lambda step: None,
) -> QatResult:
    """`quantization_aware_training` on images that are already loaded and checked."""
    with captured_output():
        graph = FloatGraph(fold_batch_norms(float32_copy(model)), images[:_CALIBRATION]).typical
    ranges = starting_ranges(graph)
    trained = fine_tune(graph.model, images, "quantize", {"ranges": ranges}, tuning, announce)
    return QatResult(trained, ranges, graph.calibration)


def quantization_aware_training(
    model: keras.Model,
    data: Images,
    tuning: FineTuning = TUNING,
    *,
    samples: int = 2000,
    image_spec: ImageSpec | None = None,
    announce: Callable[[str], None] = lambda step: None,
) -> QatResult:
    """Quantization-aware training: train a network to keep its predictions in int8.

    Runs in a subprocess, with tfmot on a tf_keras twin. Each image and epoch takes a forward and a backward pass, about
    four times the time of a prediction.

    Args:
        model: Trained functional Keras model with one image input of fixed size. It is not modified.
        data: Training images: a folder, a `tf.data.Dataset` of batches, an array of shape
            `(N, height, width, 3)` or a `Split`; pixels in 0..255. Labels are ignored.
        tuning: `FineTuning`.
        samples: Int, maximum number of images.
        image_spec: `ImageSpec`, how images are cropped.
        announce: Called with a line of text after each epoch.

    Returns:
        A `QatResult`.

    Raises:
        UserError: The images are implausible, a layer cannot be rebuilt in tf_keras, or the training failed.

    Example:

    >>> result = keras_effnet.export.quantization_aware_training(model, "flowers/train")
    >>> Path("flowers_int8.tflite").write_bytes(result.tflite("uint8"))

    Source: training through rounded values, Jacob et al. (CVPR 2018), section 3.
    """
    images = training_images(model, data, samples, tuning.seed, image_spec)
    return train_quantized(model, images, tuning, announce)
