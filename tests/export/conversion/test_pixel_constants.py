"""The shape of the constants that normalize pixels in a file."""

from __future__ import annotations

import keras
import numpy as np

from keras_effnet.export.conversion.float_graph import convert
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.tflite_file.schema import constant, operator_name, parse
from keras_effnet.system.output import captured_output


def network(scale, offset) -> keras.Model:
    """Rescaling of pixels, and of many channels behind them; pooling keeps the converter from folding either."""
    image = keras.Input((6, 8, 3))
    pixels = keras.layers.Rescaling(scale, offset)(image)
    channels = keras.layers.Concatenate()([keras.layers.MaxPooling2D(2)(pixels)] * 4)
    return keras.Model(image, keras.layers.Rescaling(np.arange(1.0, 13), 1.0)(channels))


def constants(content: bytes) -> list[tuple[str, tuple[int, ...], np.ndarray]]:
    file = parse(content)
    found = []
    for operator in file.subgraphs[0].operators:
        for index in operator.inputs:
            values = constant(file, int(index))
            if operator_name(file, operator) in ("MUL", "ADD") and values is not None:
                found.append((operator_name(file, operator), values.shape, values))
    return found


def test_one_value_per_channel_is_repeated_along_the_width_of_an_image():
    mean, scale = [-2.0, -1.5, -1.0], [0.01, 0.02, 0.03]
    model = network(scale, mean)
    with captured_output():
        content = convert(model)
    (first, shape, values), (second, other, offsets), *rest = constants(content)
    assert (first, shape, second, other) == ("MUL", (1, 1, 8, 3), "ADD", (1, 1, 8, 3))
    np.testing.assert_array_equal(values, np.broadcast_to(np.float32(scale), shape))
    np.testing.assert_array_equal(offsets, np.broadcast_to(np.float32(mean), shape))
    assert (12,) in [shape for _, shape, _ in rest]  # fast as they are
    images = np.random.default_rng(0).uniform(0, 255, (2, 6, 8, 3)).astype("float32")
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(TFLiteModel(content).predict(images), expected, rtol=1e-5, atol=1e-5)


def test_a_constant_of_images_of_two_widths_stays_as_it_is():
    scale, image = keras.layers.Rescaling([0.01, 0.02, 0.03]), keras.Input((6, 8, 3))
    model = keras.Model(image, scale(keras.layers.MaxPooling2D(2)(scale(image))))
    with captured_output():
        content = convert(model)
    assert [shape for _, shape, _ in constants(content)] == [(3,), (3,)]
    images = np.random.default_rng(0).uniform(0, 255, (2, 6, 8, 3)).astype("float32")
    np.testing.assert_allclose(TFLiteModel(content).predict(images), model.predict(images, verbose=0), rtol=1e-5)


def test_one_value_for_all_channels_stays_as_it_is():
    with captured_output():
        pixels, *_ = constants(convert(network(1 / 255, 0.5)))
    assert pixels[1] == ()
