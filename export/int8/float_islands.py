"""Mixed precision: blocks or convolutions that compute in float, named by the user or chosen by gain over time.

Keras, LiteRT and TensorFlow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import keras

from keras_effnet.architecture.network_parts import parts
from keras_effnet.errors import UserError, one_of
from keras_effnet.export.conversion.float_graph import FloatGraph
from keras_effnet.export.int8.channel_scales import ScaledFile, convolutions
from keras_effnet.export.int8.noise_sources import Source, by_part, noise
from keras_effnet.export.int8.range_fitting import ActivationFit
from keras_effnet.export.measure.cpu_time import part_times
from keras_effnet.export.tflite_file.schema import parse
from keras_effnet.export.tflite_file.tensors import layer_of

_MOST_PARTS = 24  # networks with more blocks are measured by stage
_MOST_CONVOLUTIONS = 64  # networks with more are measured by stage and role
_IMAGES = 32  # on which each part is measured
_STEP = 0.04  # of float32's time, between files that are tried without a budget
_FASTER = 0.85  # of float's time: smaller gains of a single convolution are lost in the network to its conversions
_LEAST_ADDED = 0.1  # of a part's time in float: differences below it are noise of the clock


def float_parts(model: keras.Model) -> dict[str, frozenset[str]]:
    """Return the parts that can stay in float, with the names of their layers: `stem`, `block1a`, `block1`, `top`, ...

    `block1` is the whole first stage. In networks that were not built by this package every layer is a part.
    """
    try:
        found = parts(model)
    except UserError:
        layers = (layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer))
        return {layer.name: frozenset([layer.name]) for layer in layers}
    groups = {part.name: frozenset(layer.name for layer in part.layers) for part in found}
    for stage in sorted({part.stage for part in found if part.stage}):
        groups[f"block{stage}"] = frozenset().union(*(groups[part.name] for part in found if part.stage == stage))
    return groups


def check_parts(model: keras.Model, names: Collection[str]) -> None:
    """Check names of parts.

    Raises:
        UserError: A name is not a part of the model; the message gives the closest match.
    """
    for name in names:
        one_of("block", name, float_parts(model))


def part_tensors(content: bytes, model: keras.Model, names: Sequence[str]) -> list[str]:
    """Names of the output tensors of all operators of some parts of a file.

    Args:
        content: The model's float file.
        model: Functional Keras model.
        names: Names of parts, see `float_parts`.
    """
    groups = float_parts(model)
    chosen, layers = frozenset(layer for name in names for layer in groups[name]), [each.name for each in model.layers]
    graph = parse(content).subgraphs[0]
    outputs = (graph.tensors[int(index)].name.decode() for operator in graph.operators for index in operator.outputs)
    return [name for name in outputs if layer_of(name, layers) in chosen]


def _candidates(model: keras.Model) -> list[str]:
    """Parts to measure, which together cover the network: blocks, or stages in networks with many blocks."""
    names = list(float_parts(model))
    stages = [name for name in names if name[-1].isdigit() and name.startswith("block")]
    blocks = [name for name in names if name not in stages]
    if len(blocks) <= _MOST_PARTS or not stages:
        return blocks
    return [name for name in blocks if not name.startswith("block")] + stages


@dataclass(frozen=True)
class PartCost:
    """What a part of a network costs an int8 file, and what it costs in float.

    Args:
        noise: Float, noise over signal of the output, in power, if only this part is quantized.
        int8_seconds, float_seconds: Floats, CPU time for one image in either type.
    """

    noise: float
    int8_seconds: float
    float_seconds: float

    @property
    def gain(self) -> float:
        """Noise that float removes per second that it adds; a part that is no slower counts as a little slower."""
        added = max(self.float_seconds - self.int8_seconds, _LEAST_ADDED * self.float_seconds)
        return self.noise / max(added, 1e-9)


def measure_parts(graph: FloatGraph, calibrated: bytes, int8: bytes) -> dict[str, PartCost]:
    """Measure the parts that together cover a network, on the first calibration images.

    Args:
        graph: `FloatGraph` with images.
        calibrated: Its float file with ranges.
        int8: The int8 file without float parts.
    """
    parts = {name: layers for name, layers in float_parts(graph.model).items() if name in _candidates(graph.model)}
    return _costs(graph, calibrated, by_part(calibrated, parts), int8, parts)


def measure_convolutions(
    graph: FloatGraph, scaled: ScaledFile, int8: bytes, groups: Mapping[str, Mapping[int, str]]
) -> dict[str, PartCost]:
    """Measure groups of convolutions whose channels are scaled; those that int8 makes hardly faster are left out.

    Args:
        graph: `FloatGraph` with images.
        scaled: Its float file with all of these convolutions scaled.
        int8: The same with all of them in int8.
        groups: Name of a group -> index of each convolution's output in the float file -> name of its layer.
    """
    sources: dict[str, Source] = {}
    for name, group in groups.items():
        tensors = {scaled.inputs[index] for index in group} | {scaled.outputs[index] for index in group}
        sources[name] = frozenset(tensors), frozenset(scaled.kernels[index] for index in group)
    layers = {name: frozenset(group.values()) for name, group in groups.items()}
    costs = _costs(graph, scaled.content, sources, int8, layers)
    return {name: cost for name, cost in costs.items() if cost.int8_seconds < _FASTER * cost.float_seconds}


def _costs(
    graph: FloatGraph,
    calibrated: bytes,
    sources: Mapping[str, Source],
    int8: bytes,
    parts: Mapping[str, frozenset[str]],
) -> dict[str, PartCost]:
    # The images as a file takes them: without the black and white pixels that set the input's range.
    noises = noise(graph, calibrated, sources, graph.inputs(graph.calibration[:_IMAGES]))
    layers = [layer.name for layer in graph.model.layers]
    slow, fast = (part_times(content, parts, layers) for content in (graph.content, int8))
    return {name: PartCost(noises[name], fast[name], slow[name]) for name in parts}


def convolution_groups(fit: ActivationFit, model: keras.Model) -> dict[str, dict[int, str]]:
    """Groups of convolutions that are measured and chosen together: each alone, or in large networks those of a stage.

    Args:
        fit: `ActivationFit` of the model's float file.
        model: Functional Keras model.

    Returns:
        Name of a group -> index of each convolution's output in the file -> name of its layer.
    """
    names = [layer.name for layer in model.layers]
    tensors = fit.file.subgraphs[0].tensors
    layers = {index: layer_of(tensors[index].name, names) for index in convolutions(fit)}
    found = {index: layer for index, layer in layers.items() if layer is not None}
    labels = {layer: layer for layer in found.values()}
    if len(found) > _MOST_CONVOLUTIONS:
        labels |= _labels_by_stage(model)
    groups: dict[str, dict[int, str]] = {}
    for index, layer in found.items():
        groups.setdefault(labels[layer], {})[index] = layer
    return groups


def _labels_by_stage(model: keras.Model) -> dict[str, str]:
    """Layer -> its stage and role, such as `block4 project_conv`; empty for networks without stages."""
    try:
        found = [part for part in parts(model) if part.stage]
    except UserError:
        return {}
    return {
        layer.name: f"block{part.stage} {layer.name.partition(part.name)[2].strip('_')}"
        for part in found
        for layer in part.layers
    }


def growing_sets(parts: Mapping[str, PartCost]) -> list[tuple[str, ...]]:
    """Sets of 0, 1, 2, ... parts to compute in float, those first that remove most noise per added time.

    Args:
        parts: Name -> `PartCost`, in the network's order.
    """
    ranked = sorted(parts, key=lambda name: parts[name].gain, reverse=True)
    return [tuple(each for each in parts if each in ranked[:count]) for count in range(len(ranked) + 1)]


def spaced_sets(parts: Mapping[str, PartCost]) -> Iterator[tuple[str, ...]]:
    """Yield growing sets that are `_STEP` of float32's time apart, as estimated from the times of the parts.

    The smallest set with a part and the one of all parts are among them; the empty set is not.
    """
    whole = sum(part.float_seconds for part in parts.values()) or 1.0
    last = 0.0
    _, smallest, *larger = growing_sets(parts)
    yield smallest
    for chosen in larger:
        added = sum(parts[name].float_seconds - parts[name].int8_seconds for name in chosen) / whole
        if added >= last + _STEP or len(chosen) == len(parts):
            last = added
            yield chosen
