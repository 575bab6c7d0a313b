"""Puts right what quantizing did to each channel on the whole: every convolution's mean and gain, one after another.

Rounding and saturating do more than add noise: they shift and shrink channels, and the layers after take that for
signal. The file is run on the calibration images piece by piece, each piece fed with what those before it, already
corrected, now give. Each convolution's output is held against the float file's, channel by channel: the gain goes into
the scale of the weights, the shift into the bias. The file stays as large and as fast as it was.

Imports `conversion`, `interpreter`, `tensors` beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from copy import copy

import numpy as np

from keras_effnet.export.conversion import FloatGraph
from keras_effnet.export.tflite_file.interpreter import TFLiteModel, open_interpreter
from keras_effnet.export.tflite_file.schema import (
    add_buffer,
    buffer,
    constant,
    operator_name,
    pack,
    parse,
    tensor_dtype,
)
from keras_effnet.export.tflite_file.tensors import taps

_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")

_ROWS = 4096  # values of a channel that are compared, over all images
_LEAST_ROWS = 8  # a channel with fewer that say something is left alone
_HELD_BYTES = 4e8  # of one tensor for all images: large networks are corrected on fewer, with more values of each
_FEWEST = 8  # images, whatever they take
_OUTLIER = 3.0  # standard deviations: what saturated somewhere before would shift all other values
_DOUBT = 0.05  # how far from 1 gains are expected; those that the images do not bear out stay nearer
_GAINS = (0.8, 1.25)


def correct(content: bytes, graph: FloatGraph) -> bytes:
    """An int8 file with the mean and the gain of each channel of its convolutions as in the float file.

    Convolutions that compute in float, or whose weights are shared or have one scale for all channels, stay as they
    are.

    Args:
        content: The bytes of a file that was made from `graph`.
        graph: `FloatGraph` with calibration images.
    """
    model = parse(content)
    file = model.subgraphs[0]
    largest = max(int(np.prod(tensor.shape)) for tensor in file.tensors)
    pixels = graph.pixels[: max(_FEWEST, int(_HELD_BYTES / largest))]
    correctable = _correctable(model)
    each = max(1, _ROWS // len(pixels))
    expected = _expected(graph, [file.tensors[output].name for output in correctable.values()], pixels, each)
    reader = TFLiteModel(content)
    values = {int(file.inputs[0]): np.stack([reader.quantized_input(image)[None] for image in pixels])}
    done = 0
    for number, output in correctable.items():
        target = expected.get(file.tensors[output].name)
        if target is None:
            continue
        values |= _run(model, values, done, number)
        values = {index: held for index, held in values.items() if index in _read(file.operators[number:])}
        got = _run(model, values, number, number + 1)[output]
        _edit(model, file.operators[number], _rows(got, each), target)
        done = number
    return pack(model)


def _correctable(model) -> dict[int, int]:
    """Number of each operator that can be corrected -> its output."""
    graph = model.subgraphs[0]
    readers = np.bincount([index for operator in graph.operators for index in operator.inputs if index >= 0])
    found = {}
    for number, operator in enumerate(graph.operators):
        inputs = [int(index) for index in operator.inputs]
        if operator_name(model, operator) not in _WEIGHTED or len(inputs) < 3 or inputs[2] < 0:
            continue
        _, weights, bias = (graph.tensors[index] for index in inputs)
        output = int(operator.outputs[0])
        integers = tensor_dtype(model, output) == "int8" and tensor_dtype(model, inputs[2]) == "int32"
        if integers and len(weights.quantization.scale) == bias.shape[0] and max(readers[inputs[1:]]) == 1:
            found[number] = output
    return found


def _rows(values: np.ndarray, each: int) -> np.ndarray:
    """Some of the values of each channel: an array of shape `(images, at most each, channels)`."""
    flat = values.reshape(len(values), -1, values.shape[-1])
    size = flat.shape[1]
    return flat if size <= each else flat[:, np.random.default_rng(size).choice(size, each, replace=False)]


def _expected(graph: FloatGraph, names: Sequence[bytes], pixels: np.ndarray, each: int) -> dict[bytes, np.ndarray]:
    """Tensor name -> rows of what the float file has there."""
    places = {tensor.name: index for index, tensor in enumerate(parse(graph.content).subgraphs[0].tensors)}
    wanted = {places[name]: name for name in names if name in places}
    found = {}
    for indices, runs in taps(graph.content, list(wanted), graph.inputs(pixels)):
        kept = [[_rows(value[None], each)[0] for value in row] for row in runs]
        found |= {wanted[index]: np.stack(rows) for index, rows in zip(indices, zip(*kept, strict=True), strict=True)}
    return found


def _read(operators: Sequence) -> set[int]:
    return {int(index) for operator in operators for index in operator.inputs}


def _written(operators: Sequence) -> set[int]:
    return {int(index) for operator in operators for index in operator.outputs}


def _run(model, values: Mapping[int, np.ndarray], start: int, end: int) -> dict[int, np.ndarray]:
    """Runs the operators from `start` to before `end` for each image.

    Args:
        model: The file.
        values: Tensor index -> what it holds for each image.

    Returns:
        The same of what they write and the rest of the file reads.
    """
    graph = model.subgraphs[0]
    operators = graph.operators[start:end]
    if not operators:
        return {}
    inputs = sorted(_read(operators) & values.keys())
    outputs = sorted(_written(operators) & (_read(graph.operators[end:]) | set(map(int, graph.outputs))))
    content = _piece(model, operators, inputs, outputs)
    runs = _runs(content, [values[index] for index in inputs])
    return {index: np.stack(rows) for index, rows in zip(outputs, zip(*runs, strict=True), strict=True)}


def _piece(model, operators: Sequence, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
    """A file of some of the operators, with the tensors that they need."""
    from ai_edge_litert import schema_py_generated as schema

    used = sorted(index for index in _read(operators) | set(outputs) | _written(operators) if index >= 0)
    place = {index: number for number, index in enumerate(used)} | {-1: -1}  # -1 stands for a bias that is not there
    piece, graph = copy(model), copy(model.subgraphs[0])
    piece.buffers, graph.tensors, graph.operators = [schema.BufferT()], [], []
    for index in used:
        tensor = copy(model.subgraphs[0].tensors[index])
        piece.buffers.append(model.buffers[tensor.buffer])
        tensor.buffer = len(piece.buffers) - 1
        graph.tensors.append(tensor)
    for operator in map(copy, operators):
        operator.inputs = [place[int(index)] for index in operator.inputs]
        operator.outputs = [place[int(index)] for index in operator.outputs]
        graph.operators.append(operator)
    graph.inputs, graph.outputs = [place[index] for index in inputs], [place[index] for index in outputs]
    piece.subgraphs, piece.signatureDefs, piece.metadata = [graph], None, None
    return pack(piece)


def _runs(content: bytes, inputs: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """The outputs of a file for each image."""
    interpreter = open_interpreter(content, os.cpu_count())
    entries, exits = interpreter.get_input_details(), interpreter.get_output_details()
    for row in zip(*inputs, strict=True):
        for entry, value in zip(entries, row, strict=True):
            interpreter.set_tensor(entry["index"], value)
        interpreter.invoke()
        # Whole: what the converter reshapes may have lost its first axis.
        yield [interpreter.get_tensor(leaving["index"]) for leaving in exits]


def _edit(model, operator, got: np.ndarray, target: np.ndarray) -> None:
    """Gives an operator the gain and the shift that bring its output nearest to the target."""
    graph = model.subgraphs[0]
    image, weights, bias = (graph.tensors[index] for index in operator.inputs)
    gain, shift = _fitted(got, target, graph.tensors[operator.outputs[0]].quantization)
    values = constant(model, operator.inputs[2])
    real = values * np.asarray(bias.quantization.scale, "float64") * gain + shift
    weights.quantization.scale = (weights.quantization.scale * gain).astype("float32")
    bias.quantization.scale = weights.quantization.scale * np.float32(image.quantization.scale[0])
    limits = np.iinfo("int32")
    values = np.clip(np.round(real / bias.quantization.scale.astype("float64")), limits.min, limits.max)
    if sum(tensor.buffer == bias.buffer for tensor in graph.tensors) > 1:  # equal biases share a buffer
        bias.buffer = add_buffer(model, values.astype("int32"))
    else:
        model.buffers[bias.buffer] = buffer(values.astype("int32"))


def _fitted(got: np.ndarray, target: np.ndarray, quantization) -> tuple[np.ndarray, np.ndarray]:
    """Gain and shift of each channel, `gain * got + shift` being nearest to the target.

    Values at either end of the range, where the output saturates or a fused ReLU6 cuts it off, say nothing of either;
    outliers come of saturation further up, and the bulk must not move for them.

    Args:
        got: int8 array of shape `(images, values, channels)`.
        target: Array of the same shape, real numbers.
        quantization: Of `got`.
    """
    step, zero = float(quantization.scale[0]), int(quantization.zeroPoint[0])
    real, target = (got.astype("float64") - zero) * step, target.astype("float64")
    low, high = (-128 - zero + 0.5) * step, (127 - zero - 0.5) * step
    counted = (got > -128) & (got < 127) & (target > low) & (target < high)
    error = np.where(counted, target - real, np.nan)
    error[:, :, ~counted.any(axis=(0, 1))] = 0
    middle = np.nanmedian(error, axis=(0, 1))
    spread = 1.4826 * np.nanmedian(np.abs(error - middle), axis=(0, 1))
    counted &= np.abs(target - real - middle) <= _OUTLIER * (spread + step / 4)

    def total(values):
        return np.sum(values * counted, axis=(0, 1))

    count = total(1.0)
    mean_got, mean_target = total(real) / np.maximum(count, 1), total(target) / np.maximum(count, 1)
    real, target = real - mean_got, target - mean_target
    # Least squares, drawn towards 1: values of one image go together, so what counts is the number of images.
    noise = total((target - real) ** 2) / (len(got) * _DOUBT**2)
    gain = np.clip((total(real * target) + noise) / np.maximum(total(real**2) + noise, 1e-30), *_GAINS)
    told = count >= _LEAST_ROWS
    gain = np.where(told, gain, 1.0)
    return gain, np.where(told, mean_target - gain * mean_got, 0.0)
