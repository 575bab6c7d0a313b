"""Calibration: tensor ranges observed by running a float file on images, and written back into the file.

TensorFlow's own calibration takes ten times as long and records only the minimum and the maximum, so a single unusual
image determines the step of a whole tensor. Ranges here can also cover a central share of the values and let the rest
saturate. LiteRT and numpy; never TensorFlow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from keras_effnet.export.tflite_file.mapped_images import ImageArray
from keras_effnet.export.tflite_file.schema import pack, parse, stored_bytes
from keras_effnet.export.tflite_file.tensors import in_passes, taps

_SAMPLES = 2000  # values drawn per tensor and image
_TAIL = 0.01  # share of the drawn values that is kept at either end
_PENDING = 10  # images whose values are collected before the middle is dropped
# Times the median: ordinary images of three trained networks stayed below 4, outlying ones passed 70.
_OUTLYING = 10.0
_OUTLYING_TENSORS = 0.1  # share of tensors
_MOST_OUTLYING = 0.1  # share of images: more are not outliers

Ranges = Mapping[int, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Observed:
    """Observed values of a tensor.

    Args:
        low, high: Floats, minimum and maximum.
        sample: Array of sampled values, the same number from each image: of many the smallest and the largest, sorted.
        drawn: Int, how many values were sampled; 0 if `sample` has all.
        amplitudes: Array of shape `(images,)`, largest magnitude in each image.
    """

    low: float
    high: float
    sample: np.ndarray
    drawn: int = 0
    amplitudes: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def bulk(self, share: float) -> tuple[float, float]:
        """Range of the central `share` of the values, more than 0.98, extended to include 0; without a sample all."""
        tail, half, dropped = (1 - share) / 2, len(self.sample) // 2, max(self.drawn - len(self.sample), 0)
        if dropped and tail > _TAIL:
            raise ValueError(f"The ends of {share:g} of the values were not kept.")
        values = self.sample if self.sample.size else np.array([self.low, self.high])
        if dropped:  # the quantiles do not depend on the values between the ends
            values = np.concatenate([values[:half], np.full(dropped, values[half]), values[half:]])
        low, high = np.quantile(values, (tail, 1 - tail))
        return min(float(low), 0.0), max(float(high), 0.0)


def observe(content: bytes, images: ImageArray, without: Collection[int] = ()) -> dict[int, Observed]:
    """Run a float file on calibration images and record the values of its tensors.

    Args:
        content: The file's bytes.
        images: Array of shape `(N, height, width, channels)`, in the file's input range.
        without: Indices of tensors that are left out.

    Returns:
        Tensor index -> `Observed`, for the input and the outputs of all operators.
    """
    graph = parse(content).subgraphs[0]
    rng = np.random.default_rng(0)
    lows, highs = zip(*((image.min(), image.max()) for image in images), strict=True)
    found = {int(graph.inputs[0]): Observed(float(np.min(lows)), float(np.max(highs)), np.zeros(0))}
    outputs = [int(index) for operator in graph.operators for index in operator.outputs if index not in without]
    for indices, runs in taps(content, in_passes(graph, outputs), images):
        seen = [_Seen(len(images), rng) for _ in indices]
        for values in runs:
            for tensor, value in zip(seen, values, strict=True):
                tensor.add(value)
        found |= {index: tensor.observed() for index, tensor in zip(indices, seen, strict=True)}
    return found


class _Seen:
    """Collects what `Observed` holds of one tensor. All samples of all tensors of B7 would take 0.6 GB.

    Args:
        images: Int, number of images to come.
        rng: Generator that draws the samples.
    """

    def __init__(self, images: int, rng: np.random.Generator):
        self._images, self._rng = images, rng
        self._ends: list[tuple[float, float]] = []
        self._parts: list[np.ndarray] = []
        self._drawn = 0

    def add(self, value: np.ndarray) -> None:
        """Add the values for one image."""
        values = value.ravel()
        drawn = values if values.size <= _SAMPLES else values[self._rng.integers(values.size, size=_SAMPLES)]
        self._ends.append((value.min(), value.max()))
        self._parts.append(drawn)
        self._drawn += drawn.size
        if len(self._parts) > _PENDING:
            self._drop_middle(int(_TAIL * self._images * drawn.size) + 2)

    def _drop_middle(self, kept: int) -> None:
        """Keep the `kept` smallest and largest of the drawn values."""
        values = np.sort(np.concatenate(self._parts))
        self._parts = [values if values.size <= 2 * kept else np.concatenate([values[:kept], values[-kept:]])]

    def observed(self) -> Observed:
        """The values of all images."""
        self._drop_middle(int(_TAIL * self._drawn) + 2)
        lows, highs = np.array(self._ends).T
        amplitudes = np.maximum(-lows, highs)
        return Observed(float(np.min(lows)), float(np.max(highs)), self._parts[0], self._drawn, amplitudes)


def outlying_images(observed: Mapping[int, Observed]) -> dict[int, float]:
    """Find images on which the activations of a network are many times those on all others.

    A network that classifies well can leave the range of its training on one image of a hundred, and its activations
    then grow from block to block, a thousandfold in a B0. Ranges that include them have steps too coarse for all other
    images; without them, these images saturate.

    Args:
        observed: Tensor index -> `Observed`, see `observe`.

    Returns:
        Place of an image -> how many times the median amplitude a tenth of all tensors exceed. Empty if it would have
        more than a tenth of the images.
    """
    rows = np.array([seen.amplitudes for seen in observed.values() if seen.amplitudes.size])
    if not rows.size:
        return {}
    ratios = rows / np.maximum(np.median(rows, axis=1, keepdims=True), 1e-12)
    excess = np.quantile(ratios, 1 - _OUTLYING_TENSORS, axis=0)
    places = np.flatnonzero(excess > _OUTLYING)
    return {int(place): float(excess[place]) for place in places} if len(places) <= _MOST_OUTLYING * len(excess) else {}


def scaled_swish_ranges(content: bytes, lows: Mapping[bytes, float], logistic: tuple[float, float]) -> Ranges:
    """Ranges of the tensors of each `u * sigmoid(s * u)`: u in `[low, 1]`, s * u where a sigmoid is not yet flat.

    Args:
        content: A float file.
        lows: Bytes of the constant s -> low. The constant identifies the swish that an operator belongs to.
        logistic: `(low, high)`, range of s * u.

    Returns:
        Tensor index -> `(low, high)`.
    """
    model = parse(content)
    ranges: dict[int, tuple[float, float]] = {}
    for operator in model.subgraphs[0].operators:
        if len(operator.inputs) != 2:
            continue
        stored = {int(index): stored_bytes(model, index) for index in operator.inputs}
        constants = [data for data in stored.values() if data is not None]
        if len(constants) == 1 and (low := lows.get(constants[0].tobytes())) is not None:
            u = next(index for index, data in stored.items() if data is None)
            ranges[u], ranges[int(operator.outputs[0])] = (low, 1.0), logistic
    return ranges


def with_ranges(content: bytes, ranges: Ranges) -> bytes:
    """Set the ranges of some tensors of a file, replacing existing ones."""
    from ai_edge_litert import schema_py_generated as schema

    model = parse(content)
    for index, (low, high) in ranges.items():
        tensor = model.subgraphs[0].tensors[index]
        if tensor.quantization is None:
            tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.min, tensor.quantization.max = np.array([low], "float32"), np.array([high], "float32")
    return pack(model)
