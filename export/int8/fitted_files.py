"""int8 files with fitted ranges: plain, with equalized swishes, with float blocks, or with int8 convolutions alone.

Keras, LiteRT and TensorFlow.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from keras_effnet.export.conversion.float_graph import FloatGraph
from keras_effnet.export.conversion.ranges import Ranges, observe, scaled_swish_ranges, with_ranges
from keras_effnet.export.int8.channel_scales import ScaledFile, scale_channels
from keras_effnet.export.int8.correction import correct, fitted_within_range
from keras_effnet.export.int8.equalization import choose_factors, equalize
from keras_effnet.export.int8.float_islands import (
    PartCost,
    convolution_groups,
    growing_sets,
    measure_convolutions,
    measure_parts,
    part_tensors,
    spaced_sets,
)
from keras_effnet.export.int8.quantizers import logits, quantize_int8
from keras_effnet.export.int8.range_fitting import LOGISTIC_RANGE, ActivationFit
from keras_effnet.export.measure.cpu_time import time_ratios
from keras_effnet.export.tflite_file.schema import parse
from keras_effnet.export.tflite_file.weight_storage import int8_weights

_LARGEST = 3  # sets within a budget that are corrected and compared


def fitted(graph: FloatGraph) -> tuple[FloatGraph, bytes]:
    """A graph, and its float file with ranges fitted to the layers that read them."""
    return graph, _with_fitted_ranges(graph, {})


def equalized(source: FloatGraph) -> tuple[FloatGraph, bytes]:
    """A graph whose swishes are scaled per channel, and its float file with fitted ranges."""
    factors = choose_factors(ActivationFit(source.content, source.images), source.model)
    graph = replace(source, model=equalize(source.model, factors), rewritten=None)
    lows = {each.scale.tobytes(): -each.low for each in factors.values()}
    scaled = scaled_swish_ranges(graph.content, lows, LOGISTIC_RANGE)
    return graph, _with_fitted_ranges(graph, scaled)


def _with_fitted_ranges(graph: FloatGraph, others: Ranges) -> bytes:
    fitted_ranges = ActivationFit(graph.content, graph.images).ranges(others)
    rest = observe(graph.content, graph.images, without=fitted_ranges)
    return with_ranges(graph.content, {index: (seen.low, seen.high) for index, seen in rest.items()} | fitted_ranges)


def quantize_fitted(
    graph: FloatGraph, calibrated: bytes, input_type: str = "float32", float_blocks: Sequence[str] = ()
) -> bytes:
    """Quantize a file with fitted ranges to int8 and correct it; logits and some blocks stay float with int8 weights.

    Args:
        graph: `FloatGraph`.
        calibrated: Its float file with fitted ranges.
        input_type: `"float32"` or `"uint8"`.
        float_blocks: Names of the float blocks, see `float_islands.float_parts`.
    """
    plain = _uncorrected(graph, calibrated, input_type, float_blocks)
    return int8_weights(correct(plain, graph, fitted_within_range))


def with_float_blocks(
    graph: FloatGraph,
    input_type: str = "float32",
    float_blocks: tuple[str, ...] = (),
    budget: float | None = None,
    announce: Callable[[str], None] = lambda step: None,
) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """Yield names of float blocks, and the fitted file with these blocks in float.

    Args:
        graph: `FloatGraph` with images.
        input_type: `"float32"` or `"uint8"`.
        float_blocks: Names of blocks. By default none, and then growing sets of the blocks that remove most noise per
            time that they add.
        budget: Float, time over float32's: the largest sets within it are found by bisection. None makes sets of all
            sizes.
        announce: Called with a line of text before each long step.
    """
    calibrated = fitted(graph)[1]

    def uncorrected(names: Sequence[str]) -> bytes:
        return _uncorrected(graph, calibrated, input_type, names)

    def file(names: tuple[str, ...]) -> tuple[tuple[str, ...], bytes]:
        return names, quantize_fitted(graph, calibrated, input_type, names)

    if float_blocks:
        yield file(float_blocks)
        return
    announce("Quantizing every block")
    plain = file(())
    yield plain
    announce("Measuring noise and time of each block")
    costs = measure_parts(graph, calibrated, plain[1])
    yield from map(file, _sets(costs, budget, graph.content, uncorrected))


def with_int8_convolutions(
    graph: FloatGraph,
    input_type: str = "float32",
    budget: float | None = None,
    announce: Callable[[str], None] = lambda step: None,
) -> Iterator[tuple[str, bytes, FloatGraph]]:
    """Yield what computes in int8, files with some convolutions in int8 and all else in float, and their float graphs.

    Channels of what these convolutions read and write have factors of their own, see `channel_scales`. First the file
    of all convolutions that int8 makes much faster; then those go back to float that make most noise per time saved.
    Nothing is yielded if int8 makes none faster, and the first file alone if it exceeds the budget.

    Args:
        graph: `FloatGraph` with images.
        input_type: `"float32"` or `"uint8"`.
        budget: Float, time over float32's, or None, as in `with_float_blocks`.
        announce: Called with a line of text before each long step.
    """
    fit, calibrated = ActivationFit(graph.content, graph.images), graph.minmax
    groups = convolution_groups(fit, graph.model)

    def scaled(in_float: Collection[str]) -> ScaledFile:
        chosen = [index for name, group in groups.items() if name not in in_float for index in group]
        return scale_channels(fit, calibrated, chosen)

    announce("Quantizing every convolution")
    every = scaled(())
    int8 = _int8_convolutions(every, input_type)
    announce("Measuring noise and time of each convolution")
    costs = measure_convolutions(graph, every, int8, groups)
    slow = set(groups) - set(costs)

    def uncorrected(names: Sequence[str]) -> bytes:
        return _int8_convolutions(scaled({*names, *slow}), input_type)

    def file(names: Sequence[str]) -> tuple[str, bytes, FloatGraph]:
        made = scaled({*names, *slow})
        origin = replace(graph, rewritten=made.content)
        content = int8_weights(correct(_int8_convolutions(made, input_type), origin, fitted_within_range))
        return f"{len(made.outputs)} of {len(every.outputs)} convolutions", content, origin

    if not costs:
        return
    yield file(())
    if budget is not None and time_ratios([graph.content, uncorrected(())])[1] > budget:
        return
    yield from map(file, _sets(costs, budget, graph.content, uncorrected))


def _sets(
    costs: Mapping[str, PartCost], budget: float | None, content: bytes, uncorrected: Callable[[tuple[str, ...]], bytes]
) -> Iterator[tuple[str, ...]]:
    """Sets of parts to compute in float: of all sizes, or the largest within a budget, found by bisection."""
    if budget is None:
        yield from spaced_sets(costs)
        return
    sets = growing_sets(costs)
    # Correction does not change the time.
    fits = bisect_right(sets, budget, lo=1, key=lambda names: time_ratios([content, uncorrected(names)])[1])
    yield from sets[max(1, fits - _LARGEST) : fits]


def _int8_convolutions(scaled: ScaledFile, input_type: str) -> bytes:
    """A file in which only the scaled convolutions compute in int8."""
    graph = parse(scaled.content).subgraphs[0]
    integers = set(scaled.outputs.values())
    outputs = (int(index) for operator in graph.operators for index in operator.outputs)
    in_float = [graph.tensors[index].name.decode() for index in outputs if index not in integers]
    return quantize_int8(scaled.content, input_type, in_float)


def _uncorrected(graph: FloatGraph, calibrated: bytes, input_type: str, float_blocks: Sequence[str]) -> bytes:
    in_float = [*logits(calibrated), *part_tensors(calibrated, graph.model, float_blocks)]
    return quantize_int8(calibrated, input_type, in_float)
