"""int8 files with fitted ranges: plain, with equalized swishes, and with float blocks. Keras, LiteRT and TensorFlow."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from keras_effnet.export.conversion.float_graph import FloatGraph
from keras_effnet.export.conversion.ranges import scaled_swish_ranges, with_ranges
from keras_effnet.export.int8.correction import correct, fitted_within_range
from keras_effnet.export.int8.equalization import choose_factors, equalize
from keras_effnet.export.int8.float_islands import growing_sets, measure_parts, part_tensors, spaced_sets
from keras_effnet.export.int8.quantizers import logits, quantize_int8
from keras_effnet.export.int8.range_fitting import LOGISTIC_RANGE, ActivationFit
from keras_effnet.export.measure.cpu_time import time_ratios
from keras_effnet.export.tflite_file.weight_storage import int8_weights

_LARGEST = 3  # sets within a budget that are corrected and compared


def fitted(graph: FloatGraph) -> tuple[FloatGraph, bytes]:
    """A graph, and its float file with ranges fitted to the layers that read them."""
    return graph, with_ranges(graph.minmax, ActivationFit(graph.content, graph.images).ranges())


def equalized(source: FloatGraph) -> tuple[FloatGraph, bytes]:
    """A graph whose swishes are scaled per channel, and its float file with fitted ranges."""
    factors = choose_factors(ActivationFit(source.content, source.images), source.model)
    graph = replace(source, model=equalize(source.model, factors))
    lows = {each.scale.tobytes(): -each.low for each in factors.values()}
    scaled = scaled_swish_ranges(graph.content, lows, LOGISTIC_RANGE)
    return graph, with_ranges(graph.minmax, {**ActivationFit(graph.content, graph.images).ranges(), **scaled})


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
    if budget is None:
        yield from map(file, spaced_sets(costs))
        return
    sets = growing_sets(costs)

    def time_ratio(names: tuple[str, ...]) -> float:  # correction does not change it
        return time_ratios([graph.content, _uncorrected(graph, calibrated, input_type, names)])[1]

    fits = bisect_right(sets, budget, lo=1, key=time_ratio)  # as many sets are within the budget
    yield from map(file, sets[max(1, fits - _LARGEST) : fits])


def _uncorrected(graph: FloatGraph, calibrated: bytes, input_type: str, float_blocks: Sequence[str]) -> bytes:
    in_float = [*logits(calibrated), *part_tensors(calibrated, graph.model, float_blocks)]
    return quantize_int8(calibrated, input_type, in_float)
