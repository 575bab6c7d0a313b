"""Ranges of activations that minimize the error in the layers that read them.

Minimum and maximum of a tensor are set by its widest channel, often one that later layers hardly use. Here the error of
each channel counts as much as the kernels that read it make of it, relative to the variance of their outputs, and the
error of a pre-activation is measured after its swish. LiteRT and numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from keras_effnet.export.conversion.ranges import Ranges
from keras_effnet.export.tflite_file.mapped_images import ImageArray
from keras_effnet.export.tflite_file.schema import constant, operator_name, parse
from keras_effnet.export.tflite_file.tensors import in_passes, taps

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT, OperatorT

POOLED_MARGIN = 1.25  # pooled tensors have one value per image and channel: images to come exceed the calibration's
LOGISTIC_RANGE = (-8.0, 8.0)  # beyond, a sigmoid is flat
_ROWS = 768  # positions of a tensor, over all images, on which errors are measured
_HELD_BYTES = 5e8  # of the values at these positions: fewer in large networks
_SHARES = np.geomspace(0.5, 1, 7)  # of minimum and maximum
# Of the maximum of a pre-activation, and its lower ends: swish is flat below.
_SWISH_SHARES, _SWISH_LOWS = np.geomspace(0.05, 1, 14), (-3.0, -4.0, -6.0, -8.0, -12.0, -20.0)
# Operators that pass each channel on, and the kernels' axis of input channels. A depthwise kernel is (1, h, w, C).
_CHANNELWISE = ("ADD", "MUL", "MEAN", "PAD", "RESHAPE")
_SUMMED = {"CONV_2D": (1, 2), "FULLY_CONNECTED": (), "DEPTHWISE_CONV_2D": (0, 1, 2)}


def swish(values: np.ndarray) -> np.ndarray:
    """`x * sigmoid(x)`."""
    return values / (1 + np.exp(-np.clip(values, -60, 60)))


def rounded(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values after quantization to 8 bits of a range that includes 0."""
    step = np.float32((high - low) / 255)
    return np.clip(np.round(values / step), round(low / step), round(high / step)) * step


@dataclass(frozen=True, eq=False)
class Channels:
    """Observed values of a tensor by channel.

    Args:
        rows: `float32` array of shape `(n, channels)`, values at sampled positions of all images.
        low, high: Arrays of shape `(channels,)`, minimum and maximum over all positions.
    """

    rows: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def ends(self) -> tuple[float, float]:
        """Range of all values, extended to include 0 and never empty."""
        return min(float(self.low.min()), 0.0), max(float(self.high.max()), 1e-6)

    @property
    def variance(self) -> np.ndarray:
        """Array of shape `(channels,)`."""
        return self.rows.var(axis=0, dtype="float64")


def sample_channels(content: bytes, indices: Sequence[int], images: ImageArray) -> dict[int, Channels]:
    """Tensor index -> `Channels`, from runs of a float file on images in its input range."""
    rng = np.random.default_rng(0)
    graph = parse(content).subgraphs[0]
    channels = sum(int(graph.tensors[index].shape[-1]) for index in indices)
    each, found = max(1, int(min(_ROWS, _HELD_BYTES / (4 * channels))) // len(images)), {}
    for chunk, runs in taps(content, in_passes(graph, indices), images):
        rows: list[list[np.ndarray]] = [[] for _ in chunk]
        extremes: list[list[np.ndarray]] = [[] for _ in chunk]
        for values in runs:
            for place, value in enumerate(values):
                flat = value.reshape(-1, value.shape[-1])
                rows[place].append(flat[rng.integers(len(flat), size=min(each, len(flat)))])
                extremes[place].append(np.stack([flat.min(axis=0), flat.max(axis=0)]))
        for index, parts, ends in zip(chunk, rows, extremes, strict=True):
            stacked = np.stack(ends)
            found[index] = Channels(np.concatenate(parts), stacked[:, 0].min(axis=0), stacked[:, 1].max(axis=0))
    return found


@dataclass(frozen=True, eq=False)
class ActivationFit:
    """Which operators read each activation of a float file, and how much they make of an error in each channel.

    Args:
        content: The file's bytes.
        images: Calibration images in the file's input range.
    """

    content: bytes
    images: ImageArray = field(repr=False)

    @cached_property
    def file(self) -> ModelT:
        """The parsed file."""
        return parse(self.content)

    @cached_property
    def readers(self) -> dict[int, list[OperatorT]]:
        """Tensor index -> operators that read it."""
        found: dict[int, list[OperatorT]] = {}
        for operator in self.file.subgraphs[0].operators:
            for index in map(int, operator.inputs):
                found.setdefault(index, []).append(operator)
        return found

    @cached_property
    def channels(self) -> dict[int, Channels]:
        """Observed values of all outputs of operators that have a batch axis and channels."""
        graph = self.file.subgraphs[0]
        outputs = [int(index) for operator in graph.operators for index in operator.outputs]
        batches = [index for index in outputs if len(graph.tensors[index].shape) > 1 == graph.tensors[index].shape[0]]
        return sample_channels(self.content, batches, self.images)

    @cached_property
    def swishes(self) -> dict[int, int]:
        """Input tensor of each swish -> its output tensor."""
        found: dict[int, int] = {}
        for operator in self.file.subgraphs[0].operators:
            if operator_name(self.file, operator) == "LOGISTIC":
                given, gate = int(operator.inputs[0]), int(operator.outputs[0])
                products = [each for each in self.readers.get(gate, ()) if given in map(int, each.inputs)]
                found.update((given, int(each.outputs[0])) for each in products)
        return found

    def pooled(self, index: int) -> bool:
        """Whether a tensor has one position only."""
        shape = self.file.subgraphs[0].tensors[index].shape
        return int(np.prod(shape)) == int(shape[-1])

    def importance(self, index: int) -> np.ndarray:
        """Relative variance that a squared error of each channel adds to the next layers, shape `(channels,)`."""
        size = int(self.file.subgraphs[0].tensors[index].shape[-1])
        total = np.zeros(size)
        for operator in self.readers.get(index, ()):
            name, output = operator_name(self.file, operator), int(operator.outputs[0])
            if name in _SUMMED:
                kernel = constant(self.file, int(operator.inputs[1]))
                if kernel is None or output not in self.channels:
                    continue
                variance = self.channels[output].variance[:, None] + 1e-12
                weight = np.square(kernel.astype("float64")).sum(axis=_SUMMED[name]).reshape(len(variance), -1)
                each = weight.shape[1]  # input channels of a group: all of them, or one of a depthwise convolution
                total += (weight / variance).reshape(size // each, -1, each).sum(axis=1).ravel()
            elif name in _CHANNELWISE and int(self.file.subgraphs[0].tensors[output].shape[-1]) == size:
                passed = self.importance(output)
                total += passed / self.positions(index) if name == "MEAN" else passed
        return total

    def kernel_error(self, index: int, scale: np.ndarray) -> float:
        """Relative variance that rounding adds to the next layers if kernels absorb a factor per channel.

        A kernel has one step per output channel, set by its largest value. Factors that differ widely between input
        channels make this step coarse for all others. Depthwise kernels have one per channel: factors change nothing.

        Args:
            index: Tensor whose channels are divided by the factors.
            scale: Array of shape `(channels,)`.
        """
        size, total = len(scale), 0.0
        for operator in self.readers.get(index, ()):
            name, output = operator_name(self.file, operator), int(operator.outputs[0])
            if name in ("CONV_2D", "FULLY_CONNECTED"):
                kernel = constant(self.file, int(operator.inputs[1]))
                if kernel is None or output not in self.channels:
                    continue
                largest = np.abs(kernel * scale).reshape(len(kernel), -1).max(axis=1)
                positions = kernel[0].size // size
                power = np.square(self.channels[index].rows / scale, dtype="float64").mean(axis=0).sum() * positions
                total += float((np.square(largest / 127) / 12 / (self.channels[output].variance + 1e-12)).sum() * power)
            elif name in _CHANNELWISE and int(self.file.subgraphs[0].tensors[output].shape[-1]) == size:
                total += self.kernel_error(output, scale)
        return total

    def positions(self, index: int) -> int:
        """Number of positions of a tensor, height times width."""
        shape = self.file.subgraphs[0].tensors[index].shape
        return int(np.prod(shape)) // int(shape[-1])

    def weight(self, index: int) -> np.ndarray:
        """The importance of each channel, or ones if no convolution reads the tensor."""
        weight = self.importance(index)
        return weight if weight.any() else np.ones_like(weight)

    def ranges(self, known: Ranges | None = None) -> dict[int, tuple[float, float]]:
        """Range of every observed activation: fitted, or minimum and maximum with a margin if pooled.

        Args:
            known: Tensor index -> range, for tensors whose range is known.
        """
        found = dict(known or {})
        outputs = set(self.swishes.values())
        for index, seen in self.channels.items():
            if index in found:
                continue
            low, high = seen.ends
            if self.pooled(index):
                found[index] = (POOLED_MARGIN * low, POOLED_MARGIN * high)
            elif index in self.swishes:
                weight = self.weight(self.swishes[index])
                found[index] = _fitted(seen, _SWISH_LOWS, _SWISH_SHARES, weight, swish)
            elif index not in outputs:
                found[index] = _fitted(seen, low * _SHARES, _SHARES, self.weight(index), lambda values: values)
        # The output of a swish cannot exceed that of the largest pre-activation.
        for given, output in self.swishes.items():
            if given in found and not self.pooled(given):
                found[output] = (self.channels[output].ends[0], float(swish(np.array(found[given][1]))))
        return found


def signal(target: np.ndarray, weight: np.ndarray) -> float:
    """Weighted variance of the channels of a tensor, at least 1e-30."""
    return max(float(target.var(axis=0, dtype="float64") @ weight), 1e-30)


def error_against(target: np.ndarray, weight: np.ndarray) -> Callable[[np.ndarray], float]:
    """Function from values of a tensor to their weighted squared error over the `signal` of the target."""
    variance = signal(target, weight)
    return lambda values: float(np.square(values - target).mean(axis=0) @ weight / variance)


def _fitted(
    seen: Channels,
    lows: Sequence[float] | np.ndarray,
    shares: np.ndarray,
    weight: np.ndarray,
    function: Callable[[np.ndarray], np.ndarray],
) -> tuple[float, float]:
    """Choose the range with the least error after a function, among lower ends and shares of the maximum."""
    error, (least, greatest) = error_against(function(seen.rows), weight), seen.ends
    tried = [(low, share * greatest) for low in sorted({min(max(least, low), 0.0) for low in lows}) for share in shares]
    return min(tried, key=lambda each: error(function(rounded(seen.rows, *each))))
