"""Quantization-aware training: a network learns to give its answers through the 255 steps that an int8 file has.

The ranges of all tensors come from calibration and stay as they are; what is trained is the weights, against the
answers of the float network, so no labels are needed. The trained weights then take the way of every int8 file, with
the ranges that they were trained under.

Imports `calibration`, `conversion`, `folding`, `interpreter`, `quantization`, `ranges`, `twin`, `verification`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

import keras
import numpy as np

from keras_effnet.export.calibration import Pictures, span_input_range
from keras_effnet.export.conversion import float32_copy
from keras_effnet.export.folding import fold_batch_norms
from keras_effnet.export.interpreter import TFLiteModel
from keras_effnet.export.quantization import BULK, Convert, _calibrated, _quantized
from keras_effnet.export.ranges import percentile_ranges, with_ranges
from keras_effnet.export.twin import FineTuning, fine_tune, training_pictures
from keras_effnet.export.verification import compare
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.quiet import captured_output

TUNING = FineTuning(epochs=6, learning_rate=1e-5)
_CALIBRATION = 200  # pictures that ranges are taken from; more only take time


def output_tensors(content: bytes, names: Collection[str]) -> dict[str, int]:
    """Where the outputs of layers are found in a converted float model, by the names that the converter gives.

    Args:
        content: The model's bytes.
        names: Names of layers.

    Returns:
        Layer name -> tensor index, for the layers whose output is a tensor of its own in the file: a convolution has
        none if the activation after it is fused into the operator.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.ModelT.InitFromPackedBuf(content, 0).subgraphs[0]
    found = {}
    for operator in graph.operators:  # in order, so the last tensor of a layer wins: its output
        for index in operator.outputs:
            # Of "net_1/stem_activation_1/Relu6;net_1/stem_conv_1/convolution" the part before ";" is the output.
            for scope in graph.tensors[index].name.decode().split(";")[0].split("/"):
                name = scope if scope in names else re.sub(r"_\d+$", "", scope)
                if name in names:
                    found[name] = int(index)
    return found


def _recorded_ranges(content: bytes) -> dict[int, tuple[float, float]]:
    """The least and the greatest value of every tensor of a calibrated float model; 0 always lies inside."""
    from ai_edge_litert import schema_py_generated as schema

    found = {}
    for index, tensor in enumerate(schema.ModelT.InitFromPackedBuf(content, 0).subgraphs[0].tensors):
        if tensor.quantization is not None and tensor.quantization.min is not None:
            found[index] = min(float(tensor.quantization.min[0]), 0.0), max(float(tensor.quantization.max[0]), 0.0)
    return found


def starting_ranges(folded: keras.Model, pictures: np.ndarray) -> dict[str, tuple[float, float]]:
    """Name of a layer -> range of its output: of all values or of the bulk, whichever the file answers better with."""
    with captured_output():
        calibrated = _calibrated(folded, pictures)
    outputs = output_tensors(calibrated, {layer.name for layer in folded.layers})
    answers = folded.predict(pictures, batch_size=32, verbose=0)

    def fidelity(ranges) -> float:
        with captured_output():
            content = _quantized(with_ranges(calibrated, ranges), "float32")
        return compare(answers, TFLiteModel(content).predict(pictures)).sqnr_db

    best = max((_recorded_ranges(calibrated), percentile_ranges(calibrated, pictures, BULK)), key=fidelity)
    return {name: best[index] for name, index in outputs.items() if index in best}


@dataclass(frozen=True, eq=False)
class QatResult:
    """A network trained for int8.

    Args:
        model: Functional Keras model with the trained weights, batch normalization folded away. In float it answers
            much like the network that it was made from.
        ranges: Name of a layer -> `(low, high)` of its output, under which the weights were trained.
        pictures: Array of shape `(N, height, width, channels)`, which the ranges came from.
    """

    model: keras.Model
    ranges: dict[str, tuple[float, float]]
    pictures: np.ndarray

    def tflite(self, input_type: str = "float32") -> bytes:
        """The int8 file: the trained weights under the ranges that they were trained with.

        Args:
            input_type: `"float32"`, or `"uint8"` for raw bytes.
        """
        with captured_output():
            calibrated = _calibrated(self.model, self.pictures)
            ranges = {index: self.ranges[name] for name, index in output_tensors(calibrated, self.ranges).items()}
            return _quantized(with_ranges(calibrated, ranges), input_type)


def train_quantized(
    model: keras.Model,
    pictures: np.ndarray,
    tuning: FineTuning = TUNING,
    announce: Callable[[str], None] = lambda step: None,
) -> QatResult:
    """`quantization_aware_training` on pictures that were read and checked already."""
    folded = fold_batch_norms(float32_copy(model))
    sample = span_input_range(pictures[:_CALIBRATION])
    ranges = starting_ranges(folded, sample)
    trained = fine_tune(folded, pictures, "quantize", {"ranges": ranges}, tuning, announce)
    return QatResult(trained, ranges, sample)


def method(tuning: FineTuning = TUNING, announce: Callable[[str], None] = lambda step: None) -> Convert:
    """Quantization-aware training as one more way to an int8 file, for `Recipe.methods`."""

    def convert(model: keras.Model, pictures: np.ndarray, input_type: str) -> bytes:
        return train_quantized(model, pictures, tuning, announce).tflite(input_type)

    return convert


def quantization_aware_training(
    model: keras.Model,
    data: Pictures,
    tuning: FineTuning = TUNING,
    *,
    samples: int = 2000,
    image_spec: ImageSpec | None = None,
    announce: Callable[[str], None] = lambda step: None,
) -> QatResult:
    """Trains a network to keep its answers in int8.

    Works in a process of its own, through tfmot on a tf_keras twin. Takes a forward and a backward pass for each
    picture and epoch, about four times the time of a prediction.

    Args:
        model: Trained functional Keras model with one image input of fixed size. It is left as it is.
        data: Pictures to learn from: a folder, a `tf.data.Dataset` of batches, an array of shape
            `(N, height, width, 3)` or a `Split`; pixels in 0..255. Labels are not looked at.
        tuning: `FineTuning`.
        samples: Int, pictures at most.
        image_spec: `ImageSpec`, how pictures are cropped.
        announce: Called with a line of text after each epoch.

    Returns:
        A `QatResult`.

    Raises:
        UserError: Pictures that cannot be right, a layer that tf_keras cannot take over, or a training that failed.

    Example:

    >>> result = keras_effnet.export.quantization_aware_training(model, "flowers/train")
    >>> Path("flowers_int8.tflite").write_bytes(result.tflite("uint8"))

    Source: training through rounded values, Jacob et al. (CVPR 2018), section 3.
    """
    pictures = training_pictures(model, data, samples, tuning.seed, image_spec)
    return train_quantized(model, pictures, tuning, announce)
