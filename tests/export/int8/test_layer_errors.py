"""Quantization error of each layer: none in a float file, and the first layer that loses the signal."""

from __future__ import annotations

import numpy as np
import pytest

from keras_effnet.evaluation.agreement import tensor_sqnr
from keras_effnet.export.conversion.float_graph import FloatGraph
from keras_effnet.export.int8.layer_errors import LayerError, first_lost, measure_layer_errors
from keras_effnet.export.int8.quantizers import quantize_int8
from keras_effnet.system.output import captured_output


@pytest.fixture
def fragile_graph(fragile_model, smooth_images) -> FloatGraph:
    return FloatGraph(fragile_model(), smooth_images(40, 8).astype("float32"))


def test_a_float_file_has_no_errors(fragile_graph, smooth_images):
    with captured_output():
        errors = measure_layer_errors(fragile_graph.content, fragile_graph, smooth_images(4, 8))
    assert [error.layer for error in errors] and min(error.sqnr_db for error in errors) > 100
    assert first_lost(errors) is None


def test_the_first_layer_that_loses_the_signal_is_named(fragile_graph, smooth_images):
    with captured_output():
        errors = measure_layer_errors(quantize_int8(fragile_graph.minmax), fragile_graph, smooth_images(4, 8))
    by_name = {error.layer: error.sqnr_db for error in errors}
    assert first_lost(errors).layer == "logits"  # of the colours' tensor the large channel survives
    assert by_name["logits"] < 6 < max(by_name.values())


def test_the_first_lost_is_the_first_in_order_and_not_the_worst():
    errors = [LayerError("a", 30.0), LayerError("b", 5.0), LayerError("c", -20.0)]
    assert first_lost(errors).layer == "b"
    assert first_lost(errors[:1]) is None


def test_a_layer_that_is_the_same_everywhere_and_in_both_files_is_not_lost():
    gate = np.full((4, 1000), 1e-26, "float32")  # of a sigmoid that is shut, 0 in int8
    assert tensor_sqnr(gate, np.zeros_like(gate)) >= 300
    assert tensor_sqnr(gate, gate + np.float32(0.1)) < 0


def test_the_error_is_that_of_the_tensors_in_decibels():
    signal = np.random.default_rng(0).normal(5, 1, (4, 1000)).astype("float32")
    noise = np.random.default_rng(1).normal(0, 0.1, (4, 1000)).astype("float32")
    assert tensor_sqnr(signal, signal + noise) == pytest.approx(20, abs=0.2)
