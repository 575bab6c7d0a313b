"""int8 convolutions in a float network: the same function in float, a step per channel in int8, few multiplications."""

from __future__ import annotations

import dataclasses
from collections import Counter
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers

from keras_effnet.export import candidate_trial, export_tflite, recipes
from keras_effnet.export.conversion.float_graph import FloatGraph
from keras_effnet.export.int8 import fitted_files, float_islands
from keras_effnet.export.int8.channel_scales import ScaledFile, _best_factors, _margin, convolutions, scale_channels
from keras_effnet.export.int8.fitted_files import equalized, fitted, quantize_fitted, with_int8_convolutions
from keras_effnet.export.int8.float_islands import PartCost, convolution_groups, measure_convolutions
from keras_effnet.export.int8.range_fitting import ActivationFit
from keras_effnet.export.measure.cpu_time import _owners
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.tflite_file.schema import operator_name, parse, tensor_dtype
from keras_effnet.export.tflite_file.tensors import activations
from keras_effnet.system.output import captured_output


def bottleneck() -> keras.Model:
    """A stem, an inverted bottleneck and a ReLU6 layer; the channels of the bottleneck differ a thousandfold."""
    image = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", name="stem")(image)
    x = layers.Activation("swish")(layers.BatchNormalization()(x))
    y = layers.BatchNormalization(name="expand_bn")(layers.Conv2D(12, 1, name="expand")(x))
    y = layers.ZeroPadding2D(1)(layers.Activation("swish")(y))
    y = layers.BatchNormalization()(layers.DepthwiseConv2D(3, name="depthwise")(y))
    y = layers.Activation("swish")(y)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
    gate = layers.Conv2D(12, 1, activation="sigmoid", name="excite")(layers.Conv2D(4, 1, activation="swish")(gate))
    y = layers.BatchNormalization()(layers.Conv2D(8, 1, name="project")(layers.Multiply()([y, gate])))
    x = layers.Conv2D(16, 1, name="head")(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(layers.ReLU(6.0, name="head_relu6")(x))
    model = keras.Model(image, layers.Dense(5, activation="softmax")(x), name="bottleneck")
    gains = np.geomspace(1, 1000, 12)
    model.get_layer("expand_bn").set_weights([gains, np.zeros(12), np.zeros(12), np.ones(12)])
    stem = model.get_layer("stem")
    stem.set_weights([stem.get_weights()[0] / 128, np.zeros(8)])
    kernel, bias = model.get_layer("depthwise").get_weights()
    model.get_layer("depthwise").set_weights([kernel / gains[:, None], bias])
    return model


@pytest.fixture(scope="module")
def images(smooth_images) -> np.ndarray:
    return smooth_images(48, 12).astype("float32")


@pytest.fixture(scope="module")
def graph(images) -> FloatGraph:
    with captured_output():
        graph = FloatGraph(bottleneck(), images[:24])
        assert graph.minmax
    return graph


@pytest.fixture(scope="module")
def fit(graph) -> ActivationFit:
    return ActivationFit(graph.content, graph.images)


@pytest.fixture(scope="module")
def every(graph, fit) -> ScaledFile:
    return scale_channels(fit, graph.minmax, convolutions(fit))


@pytest.fixture(scope="module")
def int8(every) -> bytes:
    with captured_output():
        return fitted_files._int8_convolutions(every, "float32")


def test_all_convolutions_but_those_of_squeeze_and_excite_can_be_chosen(graph, fit):
    groups = convolution_groups(fit, graph.model)
    assert list(groups) == ["stem", "expand", "depthwise", "project", "head_relu6"]


@pytest.mark.parametrize("chosen", [slice(None), *range(5)], ids=str)
def test_factors_change_nothing_in_float(graph, fit, images, chosen):
    every = convolutions(fit)
    scaled = scale_channels(fit, graph.minmax, every[chosen] if isinstance(chosen, slice) else [every[chosen]])
    assert scaled.content != graph.minmax
    expected, got = (TFLiteModel(content).predict(images) for content in (graph.content, scaled.content))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_gate_that_two_convolutions_read_is_not_divided_for_one(images):
    image = keras.Input((12, 12, 3))
    x = layers.Activation("swish")(layers.BatchNormalization()(layers.Conv2D(8, 3)(image)))
    gate = layers.Conv2D(8, 1, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply()([x, gate])
    model = keras.Model(image, layers.Concatenate()([layers.Conv2D(4, 1)(x), layers.Conv2D(4, 1)(layers.ReLU()(x))]))
    with captured_output():
        graph = FloatGraph(model, images[:8])
        fit = ActivationFit(graph.content, graph.images)
        scaled = scale_channels(fit, graph.minmax, convolutions(fit))
    assert len(scaled.outputs) == 3
    expected, got = (TFLiteModel(content).predict(images[:4]) for content in (graph.content, scaled.content))
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


def test_a_channel_that_is_always_0_has_a_ten_thousandth_of_the_largest_factor():
    ends = np.zeros(2), np.array([5.0, 0.0])
    np.testing.assert_allclose(_best_factors(ends, lambda scale, low: low).scale, [5, 5e-4], rtol=1e-6)


def test_the_range_of_a_divided_swish_ends_where_its_values_do(fit, every):
    written, read = (
        parse(every.content).subgraphs[0].tensors[index].quantization.min[0]
        for index in (every.outputs[convolutions(fit)[1]], every.inputs[convolutions(fit)[2]])
    )
    assert written / 2 <= read < 0  # a swish has no minimum below -0.28


def multiplications(content: bytes) -> int:
    model = parse(content)
    return Counter(operator_name(model, each) for each in model.subgraphs[0].operators)["MUL"]


def test_swishes_and_gates_spare_multiplications(graph, every):
    # Behind stem, expand, depthwise and project; before expand, project and head, before project on the gate alone. The
    # stem reads the image, the depthwise convolution what a swish divided, and the head has a fused ReLU6.
    assert multiplications(every.content) - multiplications(graph.content) == 7
    model = parse(every.content)
    gate = next(each for each in model.subgraphs[0].tensors if each.name.endswith(b"_gate"))
    assert list(gate.shape) == [1, 1, 1, 12]


def test_only_the_chosen_convolutions_compute_in_int8(every, int8):
    model = parse(int8)
    integers = Counter(
        operator_name(model, each)
        for each in model.subgraphs[0].operators
        if tensor_dtype(model, int(each.outputs[0])) == "int8"
    )
    assert integers.pop("QUANTIZE") == len(every.outputs)
    assert integers == {"CONV_2D": 4, "DEPTHWISE_CONV_2D": 1}


def test_steps_per_channel_save_what_large_channels_drown(graph, images, int8):
    with captured_output():
        per_tensor = quantize_fitted(*fitted(graph))
    unseen = images[24:]
    answers = TFLiteModel(graph.content).predict(unseen)
    found = [graph.outputs.sqnr_db(answers, TFLiteModel(each).predict(unseen)) for each in (per_tensor, int8)]
    assert found[1] > found[0] + 6
    assert found[1] > 40


@pytest.mark.parametrize(("positions", "margin"), [(4, 2.5), (25, 2.0), (100, 1.5), (6400, 1.25)])
def test_the_fewer_positions_the_more_room_for_images_to_come(positions, margin):
    assert _margin(positions) == margin


def test_every_channel_has_this_room(fit, every):
    room = {tensor: _margin(fit.positions(index)) for index, tensor in every.outputs.items() if tensor != index}
    assert len(room) == 4
    for tensor, values in activations(every.content, list(room), fit.images):
        assert values.max() <= 1 / room[tensor] + 1e-4


def test_conversions_and_factors_count_with_their_convolution(graph, int8):
    names = [layer.name for layer in graph.model.layers]
    model = parse(int8)
    kinds = [operator_name(model, each) for each in model.subgraphs[0].operators]
    owners = _owners(model, {name: name for name in names}, names)
    of_expand = [kind for kind, owner in zip(kinds, owners, strict=True) if owner == "expand"]
    assert of_expand == ["MUL", "QUANTIZE", "CONV_2D", "DEQUANTIZE", "MUL"]


COSTS = {  # in int8 0.5 of float32's time
    "stem": PartCost(noise=1e-2, int8_seconds=1, float_seconds=1.1),
    "expand": PartCost(noise=5e-3, int8_seconds=1, float_seconds=2),
    "project": PartCost(noise=1e-6, int8_seconds=2, float_seconds=5.5),
    "head": PartCost(noise=1e-9, int8_seconds=2, float_seconds=1),
}


def test_a_convolution_that_is_hardly_faster_in_int8_stays_in_float(monkeypatch, graph, fit, every):
    monkeypatch.setattr(float_islands, "_costs", lambda *inputs: COSTS)
    measured = measure_convolutions(graph, every, b"", convolution_groups(fit, graph.model))
    assert list(measured) == ["expand", "project"]


def test_the_source_of_a_group_is_what_its_convolutions_read_and_write(monkeypatch, graph, fit, every):
    def costs(graph, calibrated, sources, int8, parts):
        tensors, kernels = sources["project"]
        names = [parse(calibrated).subgraphs[0].tensors[index].name.decode() for index in sorted(tensors | kernels)]
        assert len(names) == 3 and sum("project" in name for name in names) == 2
        return {}

    monkeypatch.setattr(float_islands, "_costs", costs)
    assert measure_convolutions(graph, every, b"", convolution_groups(fit, graph.model)) == {}


@pytest.fixture
def files(monkeypatch):
    """Function from costs and a budget to what is made of five convolutions, of which `head` always stays in float."""
    names = ["stem", "expand", "depthwise", "project", "head"]
    times = {4: 0.5, 3: 0.5, 2: 0.6, 1: 0.8, 0: 1.0}

    def make(costs: dict[str, PartCost], budget: float | None) -> list[tuple]:
        for name, stand_in in {
            "ActivationFit": lambda *inputs: None,
            "convolution_groups": lambda *inputs: {each: {index: each} for index, each in enumerate(names)},
            "scale_channels": lambda fit, minmax, chosen: ScaledFile(b"", {}, dict.fromkeys(chosen, 0), {}),
            "_int8_convolutions": lambda scaled, input_type: len(scaled.outputs),
            "measure_convolutions": lambda *inputs: costs,
            "time_ratios": lambda files: [1.0, times[files[1]]],
            "correct": lambda content, origin, fit: content,
            "int8_weights": lambda content: content,
            "replace": lambda graph, **changes: changes,
        }.items():
            monkeypatch.setattr(fitted_files, name, stand_in)
        graph = SimpleNamespace(content=b"", images=None, model=None, minmax=b"")
        return list(with_int8_convolutions(graph, budget=budget))

    return make


@pytest.mark.parametrize(("budget", "made"), [(0.4, [4]), (0.5, [4, 3]), (0.65, [4, 3, 2]), (2.0, [4, 2, 1, 0])])
def test_the_most_float_convolutions_within_a_budget(files, budget, made):
    costs = {name: cost for name, cost in COSTS.items() if name != "head"} | {"depthwise": PartCost(1e-9, 1, 9)}
    found = files(costs, budget)
    assert [content for _, content, _ in found] == made
    assert [what for what, _, _ in found] == [f"{count} of 5 convolutions" for count in made]


@pytest.mark.parametrize("budget", [None, 0.65])
def test_where_int8_makes_no_convolution_faster_there_is_no_such_file(files, budget):
    assert files({}, budget) == []


def test_a_mixed_file_of_a_swish_network_has_int8_convolutions(monkeypatch, graph, images, tmp_path):
    def part_times(content, parts, network):  # of so small a network: whatever the machine's
        return dict.fromkeys(parts, 2.0 if content == graph.content else 1.0)

    monkeypatch.setattr(float_islands, "part_times", part_times)
    sources = {"calibration": images[:24], "verification": images[24:], "min_agreement": 0.9}
    result = export_tflite(graph.model, tmp_path / "mixed.tflite", "mixed", **sources)
    assert result.method == "int8: 5 of 5 convolutions; corrected"
    assert result.report.top1_agreement >= 0.9


@pytest.mark.parametrize(("precision", "method"), [("int8", "equalized"), ("mixed", None)])
def test_times_are_over_the_plain_float_file(monkeypatch, graph, images, tmp_path, precision, method):
    """Not over the float file with more multiplications that such a file is made from."""
    plain = []

    def time_ratios(files):
        plain.append(multiplications(files[0]))
        return [1.0] * len(files)

    monkeypatch.setattr(candidate_trial, "time_ratios", time_ratios)
    monkeypatch.setattr(fitted_files, "time_ratios", lambda files: [1.0] * len(files))
    sources = {"calibration": images[:24], "verification": images[24:], "allow_degraded": True}
    export_tflite(graph.model, tmp_path / "net.tflite", precision, method=method, budget=2.0, **sources)
    assert plain == [multiplications(graph.content)]


def test_swishes_are_equalized_where_an_image_was_left_out_too(monkeypatch, graph):
    source = dataclasses.replace(graph)
    monkeypatch.setitem(source.__dict__, "outlying", {3: 100.0})
    with captured_output():
        made, _ = equalized(source.typical)
    assert len(made.calibration) == len(graph.calibration) - 1
    assert multiplications(made.content) > multiplications(graph.content)


@pytest.mark.parametrize(("convolutions", "then_blocks"), [(0, True), (1, True), (2, False)])
def test_blocks_are_tried_where_no_convolution_is_faster_or_the_fastest_file_is_too_slow(
    monkeypatch, graph, convolutions, then_blocks
):
    made = [(f"{count} of 5 convolutions", b"", graph) for count in range(convolutions)]
    monkeypatch.setattr(recipes, "with_int8_convolutions", lambda *choices: iter(made))
    monkeypatch.setattr(recipes, "with_float_blocks", lambda *choices: iter([(("stem",), b"")]))
    source = SimpleNamespace(model=graph.model, calibrated=lambda input_type: graph)
    methods = [each.method for each in recipes._mixed(source, recipes.Settings(budget=0.65))]
    assert len(methods) == convolutions + then_blocks
    assert (methods[-1] == "float: stem; corrected") == then_blocks
