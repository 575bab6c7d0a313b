"""Per-channel bias and gain correction of quantized files."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from small_network import swish_network

import keras_effnet
from keras_effnet.export.calibration import load_images
from keras_effnet.export.conversion.float_graph import FloatGraph
from keras_effnet.export.int8 import correction
from keras_effnet.export.int8.correction import correct, fitted_to_bulk, fitted_within_range
from keras_effnet.export.int8.quantizers import quantize_int8
from keras_effnet.export.tflite_file.interpreter import TFLiteModel, open_interpreter
from keras_effnet.export.tflite_file.schema import pack, parse
from keras_effnet.export.tflite_file.tensors import activations, output_tensors, taps
from keras_effnet.export.verification import compare
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.tasks import TASKS

FLOAT32, INT8 = 0, 9  # of the flatbuffer schema
SIDE = 32


@pytest.fixture(scope="module")
def pixels():
    coarse = np.random.default_rng(1).uniform(0, 255, (24, 4, 4, 3))
    return coarse.repeat(SIDE // 4, axis=1).repeat(SIDE // 4, axis=2).astype("float32")


@pytest.fixture(scope="module")
def lite(pixels):
    """A network of ReLU6 with biases, and its int8 file."""
    spec = keras_effnet.architecture_spec("lite0", depth=0.3, width=0.3)
    model = keras_effnet.EfficientNet(spec, classes=7, input_shape=(SIDE, SIDE, 3))
    rng = np.random.default_rng(0)
    model.set_weights([w + rng.normal(0, 0.02, w.shape) * (w.ndim == 1) for w in model.get_weights()])
    graph = FloatGraph(model, pixels)
    return graph, quantize_int8(graph.minmax)


def weighted(content):
    """Of each integer convolution: the tensors of input, weights and bias, and the values of the bias."""
    file = parse(content)
    tensors = file.subgraphs[0].tensors
    for operator in file.subgraphs[0].operators:
        if len(operator.inputs) == 3 and tensors[operator.outputs[0]].type == INT8:
            image, weights, bias = (tensors[index] for index in operator.inputs)
            yield image, weights, bias, np.asarray(file.buffers[bias.buffer].data, "uint8").view("int32")


def spoiled(content, layer, gain, shift):
    """The file with one convolution's output multiplied and shifted, in parts of its scale."""
    file = parse(content)
    graph = file.subgraphs[0]
    index = output_tensors(content, [layer])[layer]
    (operator,) = (each for each in graph.operators if index in each.outputs)
    image, weights, bias = (graph.tensors[each] for each in operator.inputs)
    values = np.asarray(file.buffers[bias.buffer].data, "uint8").view("int32")
    step = graph.tensors[index].quantization.scale[0]
    real = values * np.float64(bias.quantization.scale) * gain + shift * step
    weights.quantization.scale = np.float32(weights.quantization.scale * gain)
    bias.quantization.scale = weights.quantization.scale * image.quantization.scale[0]
    file.buffers[bias.buffer].data = np.round(real / bias.quantization.scale).astype("int32").view("uint8")
    return pack(file)


def errors(content, graph, layer):
    """Of a layer's output, pixel by pixel: how far it is from the float file's."""
    both = [(content, graph.pixels), (graph.content, graph.inputs(graph.pixels))]
    ours, floats = (next(activations(file, [output_tensors(file, [layer])[layer]], images))[1] for file, images in both)
    return ours - floats


def mean_error(content, graph, layer):
    """Of each channel: how far its mean is from the float file's."""
    return np.abs(errors(content, graph, layer).mean(axis=(0, 1, 2)))


def fidelity(content, graph):
    images = graph.inputs(graph.pixels)
    return TASKS["classification"].sqnr_db(
        TFLiteModel(graph.content).predict(images), TFLiteModel(content).predict(images)
    )


@pytest.mark.parametrize(("gain", "shift"), [(1.0, 12.0), (0.85, 0.0), (1.15, -6.0)])
def test_a_convolution_that_is_off_is_put_right(lite, gain, shift):
    graph, content = lite
    layer = "block2a_project_conv"
    broken = spoiled(content, layer, gain, shift)
    before, after = (mean_error(file, graph, layer).mean() for file in (broken, correct(broken, graph)))
    assert after < before / 5
    assert fidelity(correct(broken, graph), graph) > fidelity(broken, graph) + 3


def test_a_good_file_is_not_made_worse(lite):
    graph, content = lite
    assert fidelity(correct(content, graph), graph) > fidelity(content, graph) - 0.3


def test_bias_scale_stays_input_scale_times_weight_scale(lite):
    graph, content = lite
    fixed = list(weighted(correct(content, graph)))
    assert len(fixed) > 5
    changed = [
        not np.array_equal(before[1].quantization.scale, after[1].quantization.scale)
        for before, after in zip(weighted(content), fixed, strict=True)
    ]
    assert all(changed)
    for image, weights, bias, _ in fixed:
        product = image.quantization.scale[0] * weights.quantization.scale
        np.testing.assert_allclose(bias.quantization.scale, product, rtol=1e-6)


def test_the_file_keeps_its_operators_types_and_weights(lite):
    graph, content = lite
    before, after = parse(content), parse(correct(content, graph))
    kinds = [[tensor.type for tensor in file.subgraphs[0].tensors] for file in (before, after)]
    assert kinds[0] == kinds[1]
    assert len(before.subgraphs[0].operators) == len(after.subgraphs[0].operators)
    for old, new in zip(before.subgraphs[0].tensors, after.subgraphs[0].tensors, strict=True):
        if old.type == INT8:
            np.testing.assert_array_equal(before.buffers[old.buffer].data, after.buffers[new.buffer].data)


def test_raw_bytes_are_corrected_as_well(lite):
    graph, _ = lite
    content = quantize_int8(graph.minmax, "uint8")
    broken = spoiled(content, "block2a_project_conv", 0.85, 4.0)
    assert fidelity(correct(broken, graph), graph) > fidelity(broken, graph)


def test_values_are_held_and_fitted_in_parts_without_changing_the_file(lite, monkeypatch):
    graph, content = lite
    expected, passes, operators = correct(content, graph), [], []

    def counted(content, parts, inputs):
        passes.extend(parts := list(parts))
        return taps(content, parts, inputs)

    def opened(content, threads):
        operators.append(len(parse(content).subgraphs[0].operators))
        return open_interpreter(content, threads)

    monkeypatch.setattr(correction, "taps", counted)
    monkeypatch.setattr("keras_effnet.export.tflite_file.tensors.open_interpreter", opened)
    monkeypatch.setattr(correction, "_BLOCK", 4)
    monkeypatch.setattr(correction, "_ROW_BYTES", 1e5)
    assert correct(content, graph) == expected
    assert len(passes) > 5 and sum(map(len, passes)) == len(list(weighted(content)))
    # Each pass starts where the one before it ended: together they run the float file once.
    assert sum(operators) <= len(parse(graph.content).subgraphs[0].operators)


def test_what_an_image_needs_no_more_is_dropped_before_the_next_image_runs(lite, monkeypatch):
    graph, content = lite
    model, runs, held = parse(content), correction._runs, []
    given = int(model.subgraphs[0].inputs[0])
    values = [{given: image[None]} for image in graph.pixels]

    def watched(*arguments):
        for made in runs(*arguments):
            held.append(sum(given in each for each in values))
            yield made

    monkeypatch.setattr(correction, "_runs", watched)
    correction._advance(model, values, 0, 3)
    assert held == list(range(len(values), 0, -1))
    assert all(each and given not in each for each in values)


def test_convolutions_whose_equal_biases_share_a_buffer_are_corrected_each(pixels):
    keras.utils.set_random_seed(0)
    x = image = keras.Input((SIDE, SIDE, 3))
    for _ in range(3):
        x = keras.layers.ReLU()(keras.layers.Conv2D(4, 3, strides=2)(x))
    graph = FloatGraph(keras.Model(image, keras.layers.GlobalAveragePooling2D()(x)), pixels)
    plain = quantize_int8(graph.minmax)
    assert len({bias.buffer for _, _, bias, _ in weighted(plain)}) == 1
    made = correct(plain, graph)
    answers = TFLiteModel(graph.content).predict(pixels)
    before, after = (graph.outputs.sqnr_db(answers, TFLiteModel(each).predict(pixels)) for each in (plain, made))
    assert after > before
    assert len({bias.buffer for _, _, bias, _ in weighted(made)}) == 3


def test_medians_are_those_of_numpy():
    rng = np.random.default_rng(0)
    values, counted = rng.normal(size=(3, 50, 6)), rng.uniform(size=(3, 50, 6)) < 0.5
    counted[..., 4], counted[..., 5] = False, np.arange(150).reshape(3, 50) == 7
    expected = np.nanmedian(np.where(counted, values, np.nan)[..., [0, 1, 2, 3, 5]], axis=(0, 1))
    found = correction._median(values, counted)
    np.testing.assert_array_equal(found[[0, 1, 2, 3, 5]], expected)
    assert found[4] == 0


def test_a_convolution_in_float_stays_as_it_is(lite):
    graph, _ = lite
    index = output_tensors(graph.content, ["stem_activation"])["stem_activation"]
    stem = parse(graph.content).subgraphs[0].tensors[index].name.decode()
    content = quantize_int8(graph.minmax, float_tensors=[stem])
    fixed = parse(correct(content, graph))
    floats = {tensor.name for tensor in fixed.subgraphs[0].tensors if tensor.type == FLOAT32}
    assert stem.encode() in floats


# --- swish and squeeze-and-excite


@pytest.fixture(scope="module")
def swish(digits):
    """A swish network with squeeze-and-excite and trained-like weights, calibrated on 40 images, and its int8 file."""
    model = swish_network()
    graph = FloatGraph(model, load_images(digits.train, ImageSpec.of_model(model), 40))
    return graph, quantize_int8(graph.minmax)


@pytest.mark.slow
def test_a_swish_network_answers_new_images_better_corrected(swish, digits):
    model = swish[0].model
    spec = ImageSpec.of_model(model)
    # All that calibration does not see: among half as many, rounding alone turns the comparison either way.
    held_out = np.concatenate([load_images(part, spec, len(part)) for part in (digits.val, digits.test)])
    answers = model.predict(held_out, verbose=0)
    agreement = np.zeros(2)
    for count in (40, 100, 200, 400):  # of one calibration, an image between two classes may turn either way
        graph = FloatGraph(model, load_images(digits.train, spec, count))
        content = quantize_int8(graph.minmax)
        plain, corrected = (TFLiteModel(file).predict(held_out) for file in (content, correct(content, graph)))
        before, after = compare(answers, plain), compare(answers, corrected)
        assert before.sqnr_db > 15, "a file that int8 has destroyed shows nothing"
        assert after.sqnr_db > before.sqnr_db + 1.5
        errors = [np.abs(got - answers).mean(axis=1) for got in (plain, corrected)]
        assert (errors[1] < errors[0]).mean() > 0.55, "more than chance would bring nearer in 539 images"
        agreement += before.top1_agreement, after.top1_agreement
    assert agreement[1] >= agreement[0]


@pytest.mark.parametrize(
    ("layer", "gain", "shift"),
    [
        ("block1a_dwconv", 0.85, 0.0),
        ("block1a_se_expand", 1.0, 8.0),
        ("block2a_expand_conv", 0.85, 0.0),
        ("block2a_se_reduce", 1.15, -6.0),
    ],
)
def test_before_a_swish_and_in_a_gate_a_convolution_is_put_right(swish, layer, gain, shift):
    graph, content = swish
    broken = spoiled(content, layer, gain, shift)
    before, after = (np.square(errors(file, graph, layer)).mean() for file in (broken, correct(broken, graph)))
    assert after < before / 4
    assert fidelity(correct(broken, graph), graph) > fidelity(broken, graph) + 0.5


# --- the fit of one channel


Steps = SimpleNamespace(scale=(0.1,), zeroPoint=(0,))


def quantized(values):
    return np.clip(np.round(values / 0.1), -128, 127).astype("int8")


@pytest.fixture
def normal():
    return np.random.default_rng(0).normal(0, 3, (50, 40, 1))


def test_gain_and_shift_are_found(normal):
    gain, shift = fitted_to_bulk(quantized((normal - 1.5) / 1.1), normal, Steps)
    assert gain == pytest.approx(1.1, abs=0.01)
    assert shift == pytest.approx(1.5, abs=0.05)


@pytest.mark.parametrize(("factor", "gain"), [(1.5, 1.25), (0.5, 0.8)])
def test_however_many_images_there_are_a_gain_stays_near_1(normal, factor, gain):
    many = np.tile(normal, (20, 1, 1))
    found, _ = fitted_to_bulk(quantized(many), many * factor, Steps)
    assert found == pytest.approx(gain)


def test_what_saturates_does_not_count(normal):
    wide = normal * 5  # a fifth lies beyond 12.7
    gain, shift = fitted_to_bulk(quantized(wide), wide, Steps)
    assert gain == pytest.approx(1, abs=0.005)
    assert shift == pytest.approx(0, abs=0.05)


def test_a_few_wild_values_do_not_move_the_bulk(normal):
    wild = normal.copy()
    wild[:2] += 8
    _, shift = fitted_to_bulk(quantized(normal), wild, Steps)
    assert abs(shift) < 0.05 < wild.mean() - normal.mean()


def test_few_noisy_images_do_not_make_a_gain():
    rng = np.random.default_rng(0)
    signal = rng.normal(0, 1, (12, 1, 400))
    noisy = quantized(signal + rng.normal(0, 1, signal.shape))
    gain, _ = fitted_to_bulk(noisy, signal, Steps)
    assert np.all(gain > 0.9), "plain least squares gives 0.5"


def test_a_constant_channel_is_shifted_alone():
    gain, shift = fitted_to_bulk(np.full((20, 9, 1), 10, "int8"), np.full((20, 9, 1), 1.37), Steps)
    assert gain == pytest.approx(1)
    assert shift == pytest.approx(0.37)


def test_a_channel_that_always_saturates_is_left_alone():
    gain, shift = fitted_to_bulk(np.full((20, 9, 1), 127, "int8"), np.full((20, 9, 1), 99.0), Steps)
    assert (gain, shift) == (1, 0)


def test_within_a_fitted_range_saturated_values_count(normal):
    wide = normal * 5  # a fifth lies beyond 12.7
    gain, shift = fitted_within_range(quantized(wide - 4), wide, Steps)
    assert gain > 0.99
    corrected = np.clip(gain * (quantized(wide - 4) * 0.1) + shift, -12.8, 12.7)
    assert abs((corrected - np.clip(wide, -12.8, 12.7)).mean()) < 1
