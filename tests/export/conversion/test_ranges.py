"""Ranges of tensors: observed with and without outliers, and written into the file that int8 starts from."""

from __future__ import annotations

import tracemalloc

import keras
import numpy as np
import pytest

from keras_effnet.export.conversion.float_graph import FloatGraph
from keras_effnet.export.conversion.ranges import Observed, _Seen, observe, outlying_images, with_ranges
from keras_effnet.export.int8 import quantizers
from keras_effnet.export.tflite_file.interpreter import open_interpreter
from keras_effnet.export.tflite_file.schema import parse
from keras_effnet.export.tflite_file.tensors import activations, taps
from keras_effnet.export.tflite_file.weight_storage import float16_weights, int8_weights
from keras_effnet.system.output import captured_output


@pytest.fixture(scope="module")
def graph() -> FloatGraph:
    """Averages each 8x8 image of one channel, doubled: what its tensors hold is plain arithmetic."""
    image = keras.Input((8, 8, 1))
    doubled = keras.layers.Conv2D(1, 1, use_bias=False, name="doubled")(image)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D(name="average")(doubled))
    model.get_layer("doubled").set_weights([np.full((1, 1, 1, 1), 2.0)])
    pixels = np.random.default_rng(0).uniform(1, 10, (40, 8, 8, 1)).astype("float32")
    pixels[3, 4, 4] = 250
    return FloatGraph(model, pixels)


def names_and_ranges(content: bytes) -> dict[str, tuple[float, float]]:
    found = {}
    for tensor in parse(content).subgraphs[0].tensors:
        if tensor.quantization is not None and tensor.quantization.min is not None:
            found[tensor.name.decode()] = float(tensor.quantization.min[0]), float(tensor.quantization.max[0])
    return found


def test_the_least_and_the_greatest_value_are_seen(graph):
    with captured_output():
        ranges = list(names_and_ranges(graph.minmax).values())
    images = np.stack(list(graph.images))
    average = 2 * images.mean(axis=(1, 2))
    assert ranges[0] == pytest.approx((0, 255))  # each image has a black and a white pixel
    assert sorted(ranges[1:])[0] == pytest.approx((0, 510))
    assert sorted(ranges[1:])[1] == pytest.approx((average.min(), average.max()), rel=1e-5)


def test_ranges_of_the_bulk_leave_a_single_outlier_out(graph):
    with captured_output():
        seen = observe(graph.content, graph.pixels)
    (doubled,) = [value for value in seen.values() if value.high == pytest.approx(500)]
    low, high = doubled.bulk(0.99)
    assert low == 0 and 18 < high < 21


def test_ranges_of_the_bulk_need_the_ends_of_a_sample_alone():
    values = np.random.default_rng(0).standard_t(3, (60, 500, 4)).astype("float32")
    seen = _Seen(len(values), np.random.default_rng(1))
    for value in values:
        seen.add(value)
    drawn = values.ravel()
    found = seen.observed()
    assert found.sample.size < 0.03 * drawn.size and found.drawn == drawn.size
    assert (found.low, found.high) == (values.min(), values.max())
    for share in (0.998, 0.99, 0.981):
        assert found.bulk(share) == Observed(found.low, found.high, drawn).bulk(share)
    with pytest.raises(ValueError, match="not kept"):
        found.bulk(0.9)


@pytest.mark.parametrize(("resumed_bytes", "operators"), [(0, [1, 2]), (1e8, [1, 1])])
def test_a_pass_ends_with_the_last_tensor_it_reads_and_starts_where_the_one_before_ended(
    graph, monkeypatch, resumed_bytes, operators
):
    with captured_output():
        whole = dict(activations(graph.content, outputs := outputs_of(graph.content), graph.images))
    opened = []

    def counted(content, threads):
        opened.append(len(parse(content).subgraphs[0].operators))
        return open_interpreter(content, threads)

    monkeypatch.setattr("keras_effnet.export.tflite_file.tensors.open_interpreter", counted)
    monkeypatch.setattr("keras_effnet.export.tflite_file.tensors._RESUMED_BYTES", resumed_bytes)
    parts = {}
    for part, runs in taps(graph.content, [[index] for index in outputs], graph.images):
        parts |= dict(zip(part, map(np.stack, zip(*map(list, runs), strict=True)), strict=True))
    assert opened == operators
    assert parts.keys() == whole.keys()
    for index, values in parts.items():
        np.testing.assert_array_equal(values, whole[index])


def test_a_pass_unpacks_the_weights_that_it_reads():
    image = keras.Input((4, 4, 64))
    hidden = keras.layers.Conv2D(64, 1, use_bias=False)(image)
    hidden = keras.layers.Conv2D(64, 1, use_bias=False)(hidden)
    graph = FloatGraph(keras.Model(image, keras.layers.Conv2D(32, 1, use_bias=False)(hidden)))
    inputs = np.random.default_rng(0).uniform(-1, 1, (2, 4, 4, 64)).astype("float32")
    with captured_output():
        outputs = outputs_of(graph.content)
    for content in (int8_weights(graph.content), float16_weights(graph.content)):
        whole = dict(activations(content, outputs, inputs))
        alone = [[index] for index in outputs]
        passes = [(part, np.stack([value for (value,) in runs])) for part, runs in taps(content, alone, inputs)]
        assert [part for part, _ in passes] == alone and len(passes) == 3
        for (index,), values in passes:
            np.testing.assert_array_equal(values, whole[index])


def test_tensors_are_copied_one_at_a_time(graph, monkeypatch):
    copied = []

    class Counted:
        def __init__(self, interpreter):
            self.interpreter = interpreter

        def __getattr__(self, name):
            return getattr(self.interpreter, name)

        def get_tensor(self, index):
            copied.append(index)
            return self.interpreter.get_tensor(index)

    monkeypatch.setattr(
        "keras_effnet.export.tflite_file.tensors.open_interpreter", lambda *given: Counted(open_interpreter(*given))
    )
    ((_, runs),) = taps(graph.content, [outputs_of(graph.content)], graph.images)
    for done, values in enumerate(runs):
        for place, _ in enumerate(values):
            assert len(copied) == 2 * done + place + 1


def outputs_of(content: bytes) -> list[int]:
    return [int(index) for operator in parse(content).subgraphs[0].operators for index in operator.outputs]


def test_a_graph_keeps_one_file(graph):
    with captured_output():
        assert graph.minmax != graph.percentile
    assert [value for value in vars(graph).values() if isinstance(value, bytes)] == [graph.content]


def test_files_of_different_ranges_are_made_and_quantized_one_after_the_other(graph, monkeypatch):
    steps = []

    def noted(name, function):
        return lambda *given: steps.append(name) or function(*given)

    for name in ("minmax", "percentile"):
        monkeypatch.setattr(FloatGraph, name, property(noted(name, getattr(FloatGraph, name).fget)))
    monkeypatch.setattr(quantizers, "quantize_int8", noted("quantized", quantizers.quantize_int8))
    with captured_output():
        best = quantizers.best_calibrated(graph, graph.images)
    assert steps[:4] == ["minmax", "quantized", "percentile", "quantized"]
    assert best == getattr(graph, steps[4])


def test_inputs_are_mapped_one_at_a_time():
    pixels = np.full((16, 64, 64, 3), 100, "float32")
    graph = FloatGraph(keras.Model(), pixels, scale=0.5, offset=-1.0)
    tracemalloc.start()
    found = [(float(image[5, 5, 0]), *image[0, :2, 0].tolist()) for image in graph.images]
    given = [float(image[0, 0, 0]) for image in graph.inputs(pixels)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.3 * pixels.nbytes
    assert found == [(49, -1, 126.5)] * 16 and given == [49] * 16
    assert (pixels == 100).all()


def test_all_tensors_but_constants_are_observed(graph):
    with captured_output():
        seen = observe(graph.content, graph.images)
    model = parse(graph.content)
    constant = {i for i, t in enumerate(model.subgraphs[0].tensors) if model.buffers[t.buffer].data is not None}
    assert set(seen) == set(range(len(model.subgraphs[0].tensors))) - constant


def test_ranges_can_be_set_one_by_one(graph):
    with captured_output():
        index = max(observe(graph.content, graph.images))
        edited = names_and_ranges(with_ranges(graph.minmax, {index: (-3.0, 4.0)}))
        plain = names_and_ranges(graph.minmax)
    changed = [name for name in plain if plain[name] != edited[name]]
    assert len(changed) == 1 and edited[changed[0]] == (-3.0, 4.0)


def test_what_the_bulk_leaves_out_is_split_between_both_ends():
    values = np.arange(-500.0, 501.0)
    assert Observed(-500, 500, values).bulk(0.9) == pytest.approx((-450, 450))
    assert Observed(0, 1000, values + 500).bulk(0.9) == pytest.approx((0, 950))  # 0 always lies inside


def amplitudes(*rows) -> dict[int, Observed]:
    """Observed tensors with these amplitudes, an image per column."""
    return {index: Observed(0, 1, np.zeros(0), 0, np.array(row, float)) for index, row in enumerate(rows)}


def test_an_image_outlies_if_a_tenth_of_all_tensors_are_far_beyond_their_medians():
    steady, growing = [1.0] * 20, [1.0] * 19 + [700.0]
    assert outlying_images(amplitudes(*[steady] * 8, growing, growing)) == {19: pytest.approx(700)}
    assert outlying_images(amplitudes(*[steady] * 39, growing)) == {}  # of one tensor: a detector of something rare
    assert outlying_images(amplitudes(*[[2 * each for each in range(1, 21)]] * 10)) == {}  # spread, not apart


def test_a_tenth_of_all_images_may_outlie_and_what_a_fifth_does_is_no_outlier():
    assert set(outlying_images(amplitudes(*[[1.0] * 18 + [700.0] * 2] * 10))) == {18, 19}
    assert outlying_images(amplitudes(*[[1.0] * 16 + [700.0] * 4] * 10)) == {}
    assert outlying_images({0: Observed(0, 1, np.zeros(3))}) == {}
