"""int8 convolutions in a float network, with a factor per channel for what they read and what they write.

An int8 tensor has one step for all of its channels. Where its neighbours compute in float, each channel can have a step
of its own: it is divided by a factor before it is rounded and multiplied by it behind. The kernel absorbs the factors,
so the float function is unchanged. Some of the multiplications cost nothing: the input of a projection is divided with
the gate of squeeze-and-excite, one value per channel, and `u * sigmoid(s * u)` is `swish(s * u) / s`. LiteRT and numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from keras_effnet.export.conversion.ranges import with_ranges
from keras_effnet.export.int8.range_fitting import ActivationFit, Channels, error_against, rounded, swish
from keras_effnet.export.tflite_file.schema import add_buffer, add_operator_code, constant, operator_name, pack, parse

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT, OperatorT

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_FLAT = -8.0  # below, swish is flat
_LOWS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.7, 1.0, 2.0)  # minus the lower end of a range up to 1
_SPREADS = (1.0, 0.75, 0.5, 0.25, 0.0)  # exponents of the factors: 0 is one factor for all channels
_LEAST = 1e-4  # factor of a channel that is always 0, relative to the largest


@dataclass(frozen=True, eq=False)
class Factors:
    """What the channels of a tensor are divided by, and the range of the quotients.

    Args:
        scale: `float32` array of shape `(channels,)`.
        low: Float, minus the lower end of the quotients; the upper end is 1.
    """

    scale: np.ndarray
    low: float


@dataclass(frozen=True, eq=False)
class ScaledFile:
    """A float file in which some convolutions read and write quotients.

    Args:
        content: The file's bytes, with ranges.
        inputs, outputs, kernels: For each of these convolutions, by the index of its output in the original file, the
            indices of the tensors that it reads and writes in this file.
    """

    content: bytes
    inputs: dict[int, int]
    outputs: dict[int, int]
    kernels: dict[int, int]


def convolutions(fit: ActivationFit) -> list[int]:
    """Indices of the output tensors of all convolutions of a file with a kernel, a bias and more than one position.

    Without those in groups, and depthwise ones with several filters for a channel.
    """
    found = []
    for operator in fit.file.subgraphs[0].operators:
        index = int(operator.outputs[0])
        if operator_name(fit.file, operator) not in _CONVOLUTIONS or index not in fit.channels or fit.pooled(index):
            continue
        given, weights, bias = [*map(int, operator.inputs), -1][:3]
        kernel, channels = constant(fit.file, weights), int(fit.file.subgraphs[0].tensors[given].shape[-1])
        if kernel is not None and kernel.shape[-1] == channels and constant(fit.file, bias) is not None:
            found.append(index)
    return found


def scale_channels(fit: ActivationFit, calibrated: bytes, chosen: Collection[int]) -> ScaledFile:
    """Divide the channels that some convolutions of a file read and write by factors that suit 8 bits.

    Args:
        fit: `ActivationFit` of the file.
        calibrated: The file with ranges.
        chosen: Indices of the outputs of these convolutions, see `convolutions`.
    """
    return _Rewriting(fit, calibrated, chosen).file()


def _margin(positions: int) -> float:
    """Factor by which the values of images to come may exceed the calibration's: more if each had few positions."""
    return float(np.clip(1 + 5 / np.sqrt(positions), 1.25, 2.5))


def _best_factors(
    ends: tuple[np.ndarray, np.ndarray],
    error: Callable[[np.ndarray, float], float],
    spreads: Sequence[float] = (1.0,),
) -> Factors:
    """The factors and the lower end with the least error, among those with which every channel fills the range."""
    low, high = ends
    choices = []
    for end, spread in product(_LOWS, spreads):
        scale = np.maximum(high, -low / end)
        scale = np.maximum(scale, max(_LEAST * scale.max(), 1e-12))
        choices.append(Factors((scale.max() * (scale / scale.max()) ** spread).astype("float32"), end))
    return min(choices, key=lambda each: error(each.scale, each.low))


def _stored(model: ModelT, index: int) -> np.ndarray:
    values = constant(model, index)
    if values is None:
        raise ValueError("Only convolutions with a stored kernel and bias can be scaled; see `convolutions`.")
    return values


class _Rewriting:
    """The steps of `scale_channels`, operator by operator."""

    def __init__(self, fit: ActivationFit, calibrated: bytes, chosen: Collection[int]):
        from ai_edge_litert import schema_py_generated as schema

        self.fit, self.chosen = fit, chosen
        self.model = parse(calibrated)
        self.graph = self.model.subgraphs[0]
        self.multiplication = add_operator_code(self.model, schema.BuiltinOperator.MUL, 1)
        self.makers = {int(index): each for each in self.graph.operators for index in each.outputs}
        self.swishes = {output: given for given, output in fit.swishes.items()}
        self.operators: list[OperatorT] = []
        self.ranges: dict[int, tuple[float, float]] = {}
        self.written: dict[int, Factors] = {}  # by a convolution's original output
        self.inputs: dict[int, int] = {}
        self.outputs: dict[int, int] = {}
        self.kernels: dict[int, int] = {}

    def file(self) -> ScaledFile:
        for operator in self.graph.operators:
            operator.inputs = [int(index) for index in operator.inputs]
            if int(operator.outputs[0]) in self.chosen:
                self._convolution(operator)
            else:
                self.operators.append(operator)
        self.graph.operators = self.operators
        content = with_ranges(pack(self.model), self.ranges)
        return ScaledFile(content, self.inputs, self.outputs, self.kernels)

    def _convolution(self, operator: OperatorT) -> None:
        made = int(operator.outputs[0])
        kernel, bias = (_stored(self.model, index) for index in operator.inputs[1:3])
        kernel = kernel * self._divide_input(operator, kernel).scale
        self.outputs[made] = made
        # A fused activation, such as ReLU6, bounds all channels alike.
        factors = None if operator.builtinOptions.fusedActivationFunction else self._output_factors(made)
        if factors is not None:
            axis = (-1,) if operator_name(self.model, operator) == "DEPTHWISE_CONV_2D" else (-1, 1, 1, 1)
            kernel, bias = kernel / factors.scale.reshape(axis), bias / factors.scale
            self.written[made], self.outputs[made] = factors, self._tensor(made, made, b"_quotients")
            self.ranges[self.outputs[made]] = (-factors.low, 1.0)
            operator.outputs = [self.outputs[made]]
        operator.inputs[1:3] = [self._constant(made, kernel, b"_kernel"), self._constant(made, bias, b"_bias")]
        self.kernels[made] = operator.inputs[1]
        self.operators.append(operator)
        if factors is not None:
            self._multiply(self.outputs[made], factors.scale, made, made)

    def _ends(self, index: int, least: float = -np.inf) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper end of each channel, with a margin."""
        seen, margin = self.fit.channels[index], _margin(self.fit.positions(index))
        return margin * np.clip(seen.low, least, 0), margin * np.maximum(seen.high, 0)

    def _output_factors(self, index: int) -> Factors:
        """Factors of a convolution's output, by the error behind the swish that follows."""
        seen, output = self.fit.channels[index], self.fit.swishes.get(index)
        if output is None:
            rounding = error_against(seen.rows, self.fit.weight(index))
            return _best_factors(
                self._ends(index), lambda scale, low: rounding(rounded(seen.rows / scale, -low, 1.0) * scale)
            )
        rounding = error_against(swish(seen.rows), self.fit.weight(output))
        rounded_again = self._sole_reader(output) in self.chosen  # which reads the swish over the same factors

        def error(scale: np.ndarray, low: float) -> float:
            got = swish(rounded(seen.rows / scale, -low, 1.0) * scale)
            return rounding(rounded(got / scale, -low / 2, 1.0) * scale if rounded_again else got)

        return _best_factors(self._ends(index, _FLAT), error)

    def _divide_input(self, operator: OperatorT, kernel: np.ndarray) -> Factors:
        """Let a convolution read quotients; return the factors."""
        given, made = operator.inputs[0], int(operator.outputs[0])
        seen = self.fit.channels.get(given)
        if seen is None:  # the image
            self.inputs[made] = given
            return Factors(np.ones(kernel.shape[-1], "float32"), 0.0)
        self.inputs[made], source = given, self._before_pad(given)
        if self._sole_reader(source) == made and self.swishes.get(source) in self.written:
            return self._divide_swish(source, given)
        factors = self._input_factors(operator, kernel, seen)
        gate = self._gate(given)
        if gate is not None and self._sole_reader(given) == made:
            product_of_gate = self.makers[given]
            self.operators.remove(product_of_gate)
            scaled = self._tensor(gate, made, b"_gate")
            self._multiply(gate, 1 / factors.scale, scaled, made)
            product_of_gate.inputs = [scaled if index == gate else index for index in product_of_gate.inputs]
            self.operators.append(product_of_gate)
        else:
            self.inputs[made] = operator.inputs[0] = self._tensor(given, made, b"_input")
            self._multiply(given, 1 / factors.scale, operator.inputs[0], made)
        self.ranges[self.inputs[made]] = (-factors.low, 1.0)
        return factors

    def _divide_swish(self, source: int, given: int) -> Factors:
        """Multiply the quotients by the sigmoid, where the convolution before has written quotients."""
        before = self.swishes[source]
        factors = self.written[before]
        swished = self.makers[source]
        swished.inputs = [self.outputs[before] if index == before else index for index in swished.inputs]
        lowest = float((-self.fit.channels[source].low / factors.scale).max())
        low = float(np.clip(lowest, 0.0, factors.low / 2))
        self.ranges |= dict.fromkeys((source, given), (-low, 1.0))
        return Factors(factors.scale, low)

    def _input_factors(self, operator: OperatorT, kernel: np.ndarray, seen: Channels) -> Factors:
        """Factors of a convolution's input, by what rounding of it and of the kernel add to the output's variance.

        A kernel has one step per output channel, which widely spread factors make coarse for most input channels; a
        depthwise one has a single input channel for each.
        """
        made = int(operator.outputs[0])
        variance = self.fit.channels[made].variance + 1e-12
        power = np.square(kernel, dtype="float64")
        if operator_name(self.model, operator) == "DEPTHWISE_CONV_2D":
            weight = power.sum(axis=(0, 1, 2)) / variance
            return _best_factors(
                self._ends(operator.inputs[0]),
                lambda scale, low: float(np.square((1 + low) / 255 * scale) @ weight),
            )
        weight = (power.sum(axis=(1, 2)) / variance[:, None]).sum(axis=0)
        signal = np.square(seen.rows, dtype="float64").mean(axis=0) * kernel[0, :, :, 0].size

        def error(scale: np.ndarray, low: float) -> float:
            steps = np.abs(kernel * scale).reshape(len(kernel), -1).max(axis=1) / 127
            of_kernel = (np.square(steps) / variance).sum() * (signal / np.square(scale)).sum()
            return float(np.square((1 + low) / 255 * scale) @ weight + of_kernel)

        return _best_factors(self._ends(operator.inputs[0]), error, _SPREADS)

    def _before_pad(self, index: int) -> int:
        maker = self.makers.get(index)
        return int(maker.inputs[0]) if maker is not None and operator_name(self.model, maker) == "PAD" else index

    def _sole_reader(self, index: int) -> int | None:
        """Output of the only operator that reads a tensor, looking through a PAD; None if several do."""
        readers = self.fit.readers.get(index, [])
        if len(readers) != 1:
            return None
        output = int(readers[0].outputs[0])
        return self._sole_reader(output) if operator_name(self.fit.file, readers[0]) == "PAD" else output

    def _gate(self, index: int) -> int | None:
        """The pooled factor of a product with squeeze-and-excite, or None."""
        maker = self.makers.get(index)
        if maker is None or operator_name(self.model, maker) != "MUL":
            return None
        return next((each for each in maker.inputs if each in self.fit.channels and self.fit.pooled(each)), None)

    def _tensor(self, like: int, convolution: int, suffix: bytes) -> int:
        """A new tensor without a range, named after a convolution's output so that it belongs to the same layer."""
        tensor = copy(self.graph.tensors[like])
        tensor.name, tensor.quantization = self.graph.tensors[convolution].name + suffix, None
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _constant(self, convolution: int, values: np.ndarray, suffix: bytes) -> int:
        index = self._tensor(convolution, convolution, suffix)
        tensor = self.graph.tensors[index]
        tensor.buffer, tensor.shape = add_buffer(self.model, values.astype("float32")), np.array(values.shape, "int32")
        return index

    def _multiply(self, given: int, factors: np.ndarray, made: int, convolution: int) -> None:
        from ai_edge_litert import schema_py_generated as schema

        operator = schema.OperatorT()
        suffix = b"_factors" if made == convolution else b"_divisors"
        operator.opcodeIndex, operator.outputs = self.multiplication, [made]
        operator.inputs = [given, self._constant(convolution, factors, suffix)]
        operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.MulOptions, schema.MulOptionsT()
        self.operators.append(operator)
