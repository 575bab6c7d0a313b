"""Ranges fitted to the layers that read a tensor."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from small_network import swish_network

from keras_effnet.export import export_tflite
from keras_effnet.export.conversion.float_graph import convert
from keras_effnet.export.int8.channel_scales import convolutions
from keras_effnet.export.int8.quantizers import logits
from keras_effnet.export.int8.range_fitting import ActivationFit, rounded, swish
from keras_effnet.system.output import captured_output


@pytest.fixture(scope="module")
def fit():
    """A swish between two convolutions. Channel 0 spans -100..100 and is not read; channel 1 spans -1..1 and is."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 1, name="first")(inputs)
    x = keras.layers.Activation("swish", name="swish")(x)
    x = keras.layers.Conv2D(3, 1, name="second")(x)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, keras.layers.Dense(4, name="dense")(pooled))
    kernel = np.zeros((1, 1, 3, 2))
    kernel[0, 0, 0, 0], kernel[0, 0, 1, 1] = 100, 1
    model.get_layer("first").set_weights([kernel, np.zeros(2)])
    model.get_layer("second").set_weights([np.array([[[[0, 0, 0], [1, 2, 3]]]]), np.zeros(3)])
    with captured_output():
        content = convert(model)
    return ActivationFit(content, np.random.default_rng(0).uniform(-1, 1, (20, 8, 8, 3)).astype("float32"))


def test_a_channel_that_nothing_reads_has_no_importance(fit):
    (given,) = (index for index in fit.swishes if not fit.pooled(index))
    unread, read = fit.importance(fit.swishes[given])
    assert unread == 0
    assert read > 0


@pytest.mark.parametrize(
    ("reader", "filters"),
    [
        (keras.layers.Conv2D, {"filters": 4, "groups": 2}),
        (keras.layers.DepthwiseConv2D, {"depth_multiplier": 2}),
    ],
)
def test_channels_of_groups_and_with_several_filters_have_an_importance(reader, filters):
    """Of four channels the first and the last are read, by the first and the last output."""
    image, layer = keras.Input((4, 4, 3)), reader(kernel_size=1, use_bias=False, **filters)
    model = keras.Model(image, layer(keras.layers.ReLU()(keras.layers.Conv2D(4, 1)(image))))
    model.layers[1].set_weights([np.abs(model.layers[1].get_weights()[0]), np.zeros(4)])
    kernel = np.zeros(layer.kernel.shape)
    kernel[0, 0, 0, 0] = kernel[0, 0, -1, -1] = 1
    layer.set_weights([kernel])
    with captured_output():
        content = convert(model)
    fit = ActivationFit(content, np.random.default_rng(0).uniform(0, 1, (8, 4, 4, 3)).astype("float32"))
    first, *_, last = fit.channels[int(fit.file.subgraphs[0].outputs[0])].variance
    given = int(fit.file.subgraphs[0].operators[0].outputs[0])
    np.testing.assert_allclose(fit.importance(given), [1 / first, 0, 0, 1 / last], rtol=1e-6)
    assert convolutions(fit) == [given]


def test_the_range_before_a_swish_serves_the_channel_that_is_read(fit):
    (given,) = (index for index in fit.swishes if not fit.pooled(index))
    low, high = fit.ranges()[given]
    assert fit.channels[given].high[0] > 90
    assert high < 10 and low > -10
    x = np.linspace(-1, 1, 200).astype("float32")
    assert np.abs(swish(rounded(x, low, high)) - swish(x)).max() < 0.03, "a step of the whole range errs by 0.2"


def test_the_output_of_a_swish_ends_where_its_input_does(fit):
    (given,) = (index for index in fit.swishes if not fit.pooled(index))
    ranges = fit.ranges()
    assert ranges[fit.swishes[given]][1] == pytest.approx(float(swish(np.array(ranges[given][1]))))


def test_pooled_tensors_get_a_margin(fit):
    index = int(fit.file.subgraphs[0].outputs[0])
    seen, (low, high) = fit.channels[index], fit.ranges()[index]
    assert high == pytest.approx(1.25 * max(seen.high.max(), 0), rel=1e-5)
    assert low == pytest.approx(1.25 * min(seen.low.min(), 0), rel=1e-5)


def test_the_logits_are_the_output_of_the_last_dense_layer(fit):
    graph = fit.file.subgraphs[0]
    assert logits(fit.content) == [graph.tensors[graph.outputs[0]].name.decode()]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fitted", "equalized"])
def test_a_swish_network_takes_bytes_and_gives_float_logits(method, digits, tmp_path):
    model, path = swish_network(), tmp_path / "digits.tflite"
    result = export_tflite(
        model,
        path,
        "int8",
        method=method,
        calibration=digits.train,
        verification=digits.test,
        input_type="uint8",
        min_agreement=0.97,
    )
    assert result.report.top1_agreement >= 0.97
