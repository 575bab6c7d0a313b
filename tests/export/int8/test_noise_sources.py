"""Where the noise of a quantized network arises."""

from __future__ import annotations

import numpy as np
import pytest

from keras_effnet.export.conversion.float_graph import FloatGraph
from keras_effnet.export.int8.noise_sources import by_kind, by_part, noise, simulated
from keras_effnet.export.int8.quantizers import quantize_int8
from keras_effnet.export.int8.range_fitting import ActivationFit
from keras_effnet.export.measure.cpu_time import part_times
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.system.output import captured_output


@pytest.fixture(scope="module")
def graph(fragile_model, smooth_images) -> FloatGraph:
    """A network in which one large channel drowns the others in the tensor `colours`."""
    with captured_output():
        graph = FloatGraph(fragile_model(), smooth_images(24, 8).astype("float32"))
        assert graph.minmax
    return graph


@pytest.fixture(scope="module")
def layers(graph) -> dict[str, tuple[str, ...]]:
    """The layers as parts."""
    _, *colours, logits, softmax = (layer.name for layer in graph.model.layers)
    return {"colours": tuple(colours), "logits": (logits, softmax)}


def test_where_nothing_is_quantized_there_is_no_noise(graph):
    assert noise(graph, graph.minmax, {"nothing": (frozenset(), frozenset())}, graph.calibration)["nothing"] < 1e-9


def test_all_sources_together_make_the_noise_of_the_int8_file(graph, layers):
    parts = by_part(graph.content, layers)
    tensors, kernels = (frozenset().union(*each) for each in zip(*parts.values(), strict=True))
    expected = TFLiteModel(graph.content).predict(graph.calibration)
    with captured_output():
        real = TFLiteModel(quantize_int8(graph.minmax)).predict(graph.calibration)
    found = TFLiteModel(simulated(graph.minmax, tensors, kernels)).predict(graph.calibration)
    sqnr = graph.outputs.sqnr_db
    assert sqnr(expected, found) == pytest.approx(sqnr(expected, real), abs=2)


def test_the_tensors_with_the_large_channel_make_the_most_noise(graph, layers):
    found = noise(graph, graph.minmax, by_part(graph.content, layers), graph.calibration)
    assert found["colours"] > 10 * found["logits"]


def test_kinds_cover_all_activations_once_and_all_kernels(graph, layers):
    kinds = by_kind(ActivationFit(graph.content, graph.images))
    parts = by_part(graph.content, layers)
    of_kinds = [index for activations, _ in kinds.values() for index in activations]
    assert len(of_kinds) == len(set(of_kinds))
    assert set(of_kinds) <= frozenset().union(*(activations for activations, _ in parts.values()))
    assert kinds["kernels"][1] == frozenset().union(*(kernels for _, kernels in parts.values()))


def test_the_parts_of_a_network_take_time(graph, layers):
    times = part_times(graph.content, layers, [name for each in layers.values() for name in each])
    assert list(times) == list(layers)
    assert times["colours"] > 0 and all(np.isfinite(list(times.values())))
