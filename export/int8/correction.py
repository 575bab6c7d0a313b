"""Per-channel bias and gain correction after quantization.

Rounding and saturation add noise and also shift and scale whole channels, which later layers cannot distinguish from
signal. The file is run on the calibration images piece by piece; each piece receives the outputs of the pieces before
it, which are already corrected. Each convolution's output is compared with the float file's, channel by channel: the
gain is multiplied into the scale of the weights, the shift is added to the bias. Size and speed of the file stay the
same. LiteRT and numpy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from keras_effnet.export.conversion.float_graph import FloatGraph
from keras_effnet.export.tflite_file.interpreter import TFLiteModel, open_interpreter
from keras_effnet.export.tflite_file.pieces import piece, read_by, written_by
from keras_effnet.export.tflite_file.schema import (
    add_buffer,
    buffer,
    constant,
    operator_name,
    pack,
    parse,
    tensor_dtype,
)
from keras_effnet.export.tflite_file.tensors import chunks, in_passes, taps

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT, OperatorT, QuantizationParametersT

_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")

_ROWS = 4096  # values compared per channel, over all images
_BLOCK = 32  # channels fitted together, so that their values stay in the processor's cache
_LEAST_ROWS = 8  # channels with fewer usable values are not corrected
_HELD_BYTES = 4e8  # of one tensor for all images: large networks use fewer images and more values of each
_ROW_BYTES = 1.5e8  # of the values compared, of several tensors
_FEWEST = 8  # images, even if they exceed _HELD_BYTES
_OUTLIER = 3.0  # standard deviations: values that saturated in an earlier layer would bias the fit
_GAIN_SPREAD = 0.05  # prior standard deviation of gains around 1; gains with little evidence are shrunk towards 1
_GAINS = (0.8, 1.25)

Values: TypeAlias = dict[int, np.ndarray]  # of one image, by the tensor's index
Fit = Callable[[np.ndarray, np.ndarray, "QuantizationParametersT"], tuple[np.ndarray, np.ndarray]]


def correct(content: bytes, graph: FloatGraph, fit: Fit | None = None) -> bytes:
    """Correct the mean and the gain of every convolution channel of an int8 file to those of the float file.

    Convolutions that compute in float, and those whose weights are shared or quantized per tensor, are left unchanged.

    Args:
        content: Bytes of a file that was quantized from `graph`.
        graph: `FloatGraph` with calibration images.
        fit: Function from the file's values, the float file's, and the quantization of the former, to gain and shift
            per channel. By default `fitted_to_bulk`; `fitted_within_range` is for fitted ranges.

    Returns:
        Bytes of the corrected file.
    """
    fit = fit or fitted_to_bulk
    model = parse(content)
    file = model.subgraphs[0]
    largest = max(int(np.prod(tensor.shape)) for tensor in file.tensors)
    pixels = graph.calibration[: max(_FEWEST, int(_HELD_BYTES / largest))]
    correctable = _correctable(model)
    each = max(1, _ROWS // len(pixels))
    reader = TFLiteModel(content)
    values: list[Values] = [{int(file.inputs[0]): reader.quantized_input(image)[None]} for image in pixels]
    numbers = {file.tensors[output].name: number for number, output in correctable.items()}
    done = 0
    for name, target in _expected(graph, list(numbers), pixels, each):
        number = numbers[name]
        output = correctable[number]
        _advance(model, values, done, number)
        got = np.stack([_rows(made[output], each) for made in _runs(model, values, number, number + 1)])
        _edit(model, file.operators[number], got, target, fit)
        done = number
    return pack(model)


def _correctable(model: ModelT) -> dict[int, int]:
    """Position of each operator that can be corrected -> index of its output tensor."""
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
    """Sample up to `each` values per channel of one image's tensor: an array of shape `(values, channels)`."""
    flat = values.reshape(-1, values.shape[-1])
    size = len(flat)
    return flat if size <= each else flat[np.random.default_rng(size).choice(size, each, replace=False)]


def _expected(
    graph: FloatGraph, names: Sequence[bytes], pixels: np.ndarray, each: int
) -> Iterator[tuple[bytes, np.ndarray]]:
    """Yield the name and the sampled values of each tensor that the float file has, in the order of `names`.

    A pass over the images takes as many tensors as `_ROW_BYTES` of values: those of all of B7 are 3 GB.
    """
    file = parse(graph.content).subgraphs[0]
    tensors = file.tensors
    places = {tensor.name: index for index, tensor in enumerate(tensors)}
    wanted = [places[name] for name in names if name in places]
    inputs = graph.inputs(pixels)
    sizes = [4 * len(pixels) * each * int(tensors[index].shape[-1]) for index in wanted]
    # One call, whose passes start where those before them ended.
    parts = (fewer for part in chunks(wanted, sizes, _ROW_BYTES) for fewer in in_passes(file, part))
    for indices, runs in taps(graph.content, parts, inputs):
        kept = [[_rows(value, each) for value in row] for row in runs]
        for place, index in enumerate(indices):
            yield tensors[index].name, np.stack([row[place] for row in kept])


def _advance(model: ModelT, values: Sequence[Values], start: int, end: int) -> None:
    """Run the operators `start` to `end - 1` for each image, and keep the values that later operators read.

    Image by image: the inputs of all images beside their outputs would take the memory twice.
    """
    later = read_by(model.subgraphs[0].operators[end:])
    for held, made in zip(values, _runs(model, values, start, end), strict=True):
        held |= made
        for index in held.keys() - later:
            del held[index]


def _runs(model: ModelT, values: Sequence[Values], start: int, end: int) -> Iterator[Values]:
    """Run the operators `start` to `end - 1` for each image.

    Args:
        model: The file.
        values: For each image, the values of tensors that these operators may read.

    Yields:
        For each image, the outputs of these operators that later operators or the file's outputs use.
    """
    graph = model.subgraphs[0]
    operators = graph.operators[start:end]
    if not operators:
        yield from ({} for _ in values)
        return
    inputs = sorted(read_by(operators) & values[0].keys())
    outputs = sorted(written_by(operators) & (read_by(graph.operators[end:]) | set(map(int, graph.outputs))))
    content = piece(model, operators, inputs, outputs)
    interpreter = open_interpreter(content, os.cpu_count())
    entries, exits = interpreter.get_input_details(), interpreter.get_output_details()
    for held in values:
        for entry, index in zip(entries, inputs, strict=True):
            interpreter.set_tensor(entry["index"], held[index])
        interpreter.invoke()
        # Not indexed by [0]: a reshape in the file may have removed the batch axis.
        made = (interpreter.get_tensor(leaving["index"]) for leaving in exits)
        yield dict(zip(outputs, made, strict=True))


def _edit(model: ModelT, operator: OperatorT, got: np.ndarray, target: np.ndarray, fit: Fit) -> None:
    """Apply the gain and the shift that bring the output of an operator closest to the target."""
    graph = model.subgraphs[0]
    image, weights, bias = (graph.tensors[index] for index in operator.inputs)
    made, parts = graph.tensors[operator.outputs[0]], range(0, got.shape[-1], _BLOCK)
    fits = [fit(got[..., at : at + _BLOCK], target[..., at : at + _BLOCK], made.quantization) for at in parts]
    gain, shift = (np.concatenate(each) for each in zip(*fits, strict=True))
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


def fitted_to_bulk(
    got: np.ndarray, target: np.ndarray, quantization: QuantizationParametersT
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a gain and a shift per channel so that `gain * got + shift` is closest to the target.

    Values at the ends of the range, where the output saturates or a fused ReLU6 clips it, are ignored. So are outliers,
    which come from saturation in earlier layers.

    Args:
        got: int8 array of shape `(images, values, channels)`.
        target: Array of the same shape, real numbers.
        quantization: Quantization parameters of `got`.
    """
    step, zero = float(quantization.scale[0]), int(quantization.zeroPoint[0])
    real, target = (got.astype("float64") - zero) * step, target.astype("float64")
    low, high = (-128 - zero + 0.5) * step, (127 - zero - 0.5) * step
    counted = (got > -128) & (got < 127) & (target > low) & (target < high)
    error = target - real
    middle = _median(error, counted)
    deviation = np.abs(error - middle)
    spread = 1.4826 * _median(deviation, counted)
    counted &= deviation <= _OUTLIER * (spread + step / 4)
    return _regression(real, target, counted)


def _median(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Median per channel of the counted values, 0 without any; three times as fast as `np.nanmedian`."""
    channels = values.shape[-1]
    rows = np.sort(np.where(counted, values, np.inf).reshape(-1, channels).T, axis=1)
    count = np.count_nonzero(counted, axis=(0, 1))
    low, high = (rows[np.arange(channels), np.maximum(middle, 0)] for middle in ((count - 1) // 2, count // 2))
    return np.where(count, (low + high) / 2, 0.0)


def fitted_within_range(
    got: np.ndarray, target: np.ndarray, quantization: QuantizationParametersT
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a gain and a shift per channel so that `gain * got + shift` is closest to the target, saturated alike.

    For ranges that were fitted: what lies beyond them does not matter to the layers that follow, and the values that
    saturate are part of the signal. The arguments are those of `fitted_to_bulk`.
    """
    step, zero = float(quantization.scale[0]), int(quantization.zeroPoint[0])
    real = (got.astype("float64") - zero) * step
    target = np.clip(target.astype("float64"), (-128 - zero) * step, (127 - zero) * step)
    return _regression(real, target, np.ones(real.shape, bool))


def _regression(real: np.ndarray, target: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gain and shift per channel by ridge regression of the target on the counted values."""

    def total(values):
        return np.sum(values * counted, axis=(0, 1))

    count = total(1.0)
    mean_got, mean_target = total(real) / np.maximum(count, 1), total(target) / np.maximum(count, 1)
    real, target = real - mean_got, target - mean_target
    # Ridge regression towards 1: values of one image are correlated, so the number of images is the sample size.
    noise = total((target - real) ** 2) / (len(real) * _GAIN_SPREAD**2)
    gain = np.clip((total(real * target) + noise) / np.maximum(total(real**2) + noise, 1e-30), *_GAINS)
    usable = count >= _LEAST_ROWS
    gain = np.where(usable, gain, 1.0)
    return gain, np.where(usable, mean_target - gain * mean_got, 0.0)
