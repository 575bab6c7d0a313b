"""Conversion of a Keras model to the float32 `.tflite` from which every precision is made: batch 1, fixed size.

TensorFlow.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from keras_effnet.architecture.network_parts import computing_layers
from keras_effnet.errors import UserError
from keras_effnet.export.calibration import span_input_range
from keras_effnet.export.conversion.folding import fold_batch_norms
from keras_effnet.export.conversion.pixel_constants import widen_pixel_constants
from keras_effnet.export.conversion.plausibility import check_activations, check_weights
from keras_effnet.export.conversion.ranges import Observed, Ranges, observe, outlying_images, with_ranges
from keras_effnet.export.outputs import CLASSIFIER, Outputs
from keras_effnet.export.tflite_file.mapped_images import MappedImages
from keras_effnet.export.tflite_file.schema import buffer, pack, parse, stored_bytes, tensor_dtype
from keras_effnet.export.tflite_file.tensors import layer_of
from keras_effnet.system.private_api import graph_steps

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT

BULK = 0.998  # share of a tensor's values that percentile ranges cover


def weight_count(model: keras.Model) -> int:
    """Number of kernel elements, the minimum that a file must hold; batch normalization is folded away."""
    return sum(prod(layer.kernel.shape) for layer in computing_layers(model) if hasattr(layer, "kernel"))


def check_exportable(model: keras.Model) -> None:
    """Check that a model has one image input of fixed size and finite weights.

    Raises:
        UserError: The model has other inputs, or a weight is NaN, infinite or absurdly large.
    """
    if len(model.inputs) != 1:
        raise UserError(f"Export takes one input, an image; the model has {len(model.inputs)}.")
    shape = model.input_shape
    if len(shape) != 4 or None in shape[1:]:
        cure = "build it with input_shape=(H, W, 3), or pass image_size."
        raise UserError(f"The model's input {shape} has no fixed size; {cure}")
    dtype = keras.backend.standardize_dtype(model.inputs[0].dtype)
    if "float" not in dtype:
        raise UserError(
            f"The model's input has dtype {dtype}; build it with keras.Input({shape[1:]}), which takes the same pixels "
            "as float32, and copy the weights, new.set_weights(old.get_weights()). Files may still take bytes: "
            "input_type, --input-type uint8."
        )
    check_weights(model)


# Layer class -> conversion of its kernel to the layout in a `.tflite` file.
_IN_FILE: dict[type, Callable[[np.ndarray], np.ndarray]] = {
    keras.layers.Conv2D: lambda kernel: kernel.transpose(3, 0, 1, 2),
    keras.layers.DepthwiseConv2D: lambda kernel: kernel.reshape(1, *kernel.shape[:2], -1),
    keras.layers.Dense: np.transpose,
}


def _kernels(model: keras.Model) -> dict[int, np.ndarray]:
    """Position of a kernel among all variables of a model -> its values in the file's layout.

    Kernels that several calls share are left out: the converter may change what it makes of one call alone.
    """
    places = {id(variable): place for place, variable in enumerate(_variables(model))}
    layers = [layer for layer, _, _ in graph_steps(model) if type(layer) in _IN_FILE]
    uses = Counter(id(layer.kernel) for layer in layers)
    return {
        places[id(layer.kernel)]: _IN_FILE[type(layer)](keras.ops.convert_to_numpy(layer.kernel))
        for layer in layers
        if uses[id(layer.kernel)] == 1
    }


def _variables(model: keras.Model) -> list:
    return [*model.trainable_variables, *model.non_trainable_variables]


def _converted(model: keras.Model, constants: Sequence) -> bytes:
    """Convert a model with the given constants for its variables."""
    # Batch size is fixed at 1: browsers and phones fail on an unknown one.
    signature = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, name="image")
    trainable = len(model.trainable_variables)

    @tf.function(autograph=False)
    def serve(image):
        values = [tf.constant(*each) if isinstance(each, tuple) else tf.constant(each) for each in constants]
        outputs, _ = model.stateless_call(values[:trainable], values[trainable:], image, training=False)
        return outputs

    # No trackable argument: with a Keras 3 model as the second argument the file has no weights.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([serve.get_concrete_function(signature)])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]  # never Flex
    return converter.convert()


def _fill(file: ModelT, kernels: Mapping[float, np.ndarray]) -> set[float]:
    """Replace placeholder tensors, each filled with one marker value, by kernels; return the markers not found."""
    missing = dict(kernels)
    for index, tensor in enumerate(file.subgraphs[0].tensors):
        data = stored_bytes(file, index)
        if data is not None and tensor_dtype(file, index) == "float32":
            mark = float(data[:4].view("float32")[0])
            if mark in missing and tuple(tensor.shape) == missing[mark].shape:
                file.buffers[tensor.buffer] = buffer(missing.pop(mark))
    return set(missing)


def convert(model: keras.Model) -> bytes:
    """Convert a float32 model to a float32 `.tflite` file that takes one image, `(1, height, width, channels)`.

    The converter copies all weights a dozen times and folds batch normalization slowly: 5 GB and a minute for B7.
    Batch normalization is therefore folded beforehand, and the converter sees a placeholder for each kernel, a splat
    constant of its shape that takes no memory; the kernels are inserted into the finished file. If the converter
    changed a placeholder by folding a factor into it, a second conversion uses the real kernel there.

    Args:
        model: Functional Keras model in float32.
    """
    folded = fold_batch_norms(model)
    # Markers that are exact in float32 and unlikely as the first element of a bias or table.
    kernels = {1 + (place + 1) / 8192: (place, kernel) for place, kernel in _kernels(folded).items()}
    while True:
        marks = {place: np.float32(mark) for mark, (place, _) in kernels.items()}
        given = [
            (marks[place], None, variable.shape) if place in marks else keras.ops.convert_to_numpy(variable)
            for place, variable in enumerate(_variables(folded))
        ]
        file = parse(_converted(folded, given))
        lost = _fill(file, {mark: kernel for mark, (_, kernel) in kernels.items()})
        if not lost:
            del folded
            gc.collect()  # a Keras model is a cycle of references: the copy would stay in memory
            widen_pixel_constants(file)
            return pack(file)
        kernels = {mark: entry for mark, entry in kernels.items() if mark not in lost}


def required(pixels: np.ndarray | None) -> np.ndarray:
    """Return calibration images. Raises `UserError` if there are none."""
    if pixels is None:
        raise UserError("Integer precisions need calibration images; pass calibration=FOLDER.")
    return pixels


@dataclass(frozen=True, eq=False)
class FloatGraph:
    """A float32 model and its `.tflite`, converted once for all precisions that start from it.

    Args:
        model: Functional Keras model in float32.
        pixels: Calibration images of shape `(N, height, width, channels)`, values 0..255, or None.
        scale, offset: Floats. The graph takes `pixels * scale + offset`.
        outputs: `Outputs` of the model.
        rewritten: The float file, if it has been made or is another one than the plain conversion.
    """

    model: keras.Model
    pixels: np.ndarray | None = None
    scale: float = 1.0
    offset: float = 0.0
    outputs: Outputs = CLASSIFIER
    rewritten: bytes | None = field(default=None, repr=False)

    @property
    def calibration(self) -> np.ndarray:
        """Calibration images, values 0..255. Raises `UserError` if the graph has none."""
        return required(self.pixels)

    def inputs(self, pixels: np.ndarray) -> MappedImages:
        """Map images with pixels in 0..255 to the graph's input range."""
        return MappedImages(pixels, self._mapped)

    def _mapped(self, image: np.ndarray) -> np.ndarray:
        return image.astype("float32") * np.float32(self.scale) + np.float32(self.offset)

    @property
    def images(self) -> MappedImages:
        """Calibration images in the graph's input range, each with a black and a white pixel."""
        return MappedImages(self.calibration, lambda image: self._mapped(span_input_range(image)))

    @cached_property
    def content(self) -> bytes:
        """The float32 file."""
        return self.rewritten or convert(self.model)

    @cached_property
    def observed(self) -> dict[int, Observed]:
        """Values of each tensor observed on the calibration images. Raises `UserError` if a range is not plausible."""
        observed = observe(self.content, self.images)
        tensors = parse(self.content).subgraphs[0].tensors
        layers = [layer.name for layer in self.model.layers]
        for index, seen in observed.items():
            name = layer_of(tensors[index].name, layers)
            check_activations(f"layer {name}" if name else tensors[index].name.decode(), seen.low, seen.high)
        return observed

    @cached_property
    def outlying(self) -> dict[int, float]:
        """Calibration images on which activations are many times those on all others, see `outlying_images`."""
        return outlying_images(self.observed)

    @cached_property
    def typical(self) -> FloatGraph:
        """This graph without its outlying calibration images; itself if there are none."""
        if not self.outlying:
            return self
        pixels = np.delete(self.calibration, list(self.outlying), axis=0)
        return replace(self, pixels=pixels, rewritten=self.content)

    @property
    def extremes(self) -> Ranges:
        """Observed minimum and maximum of each tensor. Raises `UserError` if a range is not plausible."""
        return {index: (seen.low, seen.high) for index, seen in self.observed.items()}

    @property
    def minmax(self) -> bytes:
        """The float32 file with minimum and maximum of every tensor as ranges; made each time, as it is large."""
        return with_ranges(self.content, self.extremes)

    @property
    def percentile(self) -> bytes:
        """The float32 file with percentile ranges: extreme values saturate, and the step of all others is smaller.

        Made each time, as it is large.
        """
        bulk = {index: seen.bulk(BULK) for index, seen in self.observed.items() if seen.sample.size}
        return with_ranges(self.content, {**self.extremes, **bulk})
