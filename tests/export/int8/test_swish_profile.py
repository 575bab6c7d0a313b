"""Profile of the swishes: the range before each of them, and the noise behind it in the first and the kept file."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from matplotlib import pyplot

from keras_effnet.evaluation import quantization_plots
from keras_effnet.export.conversion.float_graph import FloatGraph
from keras_effnet.export.int8.layer_errors import LayerError
from keras_effnet.export.int8.swish_profile import profile_swishes


def test_ranges_are_those_of_the_network_and_pooled_swishes_are_left_out():
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 1, name="first")(image)
    x = keras.layers.Activation("swish", name="first_activation")(x)
    x = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = keras.layers.Activation("swish", name="pooled_activation")(keras.layers.Conv2D(2, 1)(x))
    model = keras.Model(image, keras.layers.Dense(4)(keras.layers.Flatten()(x)))
    kernel = np.zeros((1, 1, 3, 2))
    kernel[0, 0, 0] = 1, -0.1
    model.get_layer("first").set_weights([kernel, np.zeros(2)])
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3)).astype("float32")
    (found,) = profile_swishes(FloatGraph(model, pixels), [LayerError("first_activation", 3.0)], [])
    assert (found.layer, found.first_db, found.kept_db) == ("first_activation", 3.0, None)
    assert (found.low, found.high) == (pytest.approx(-25.5), pytest.approx(255))  # of the black and the white pixel
    assert found.low <= found.bulk_low <= 0 < found.bulk_high <= found.high


def test_a_swish_of_the_image_itself_has_the_range_of_its_pixels():
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.Conv2D(3, 1)(keras.layers.Activation("swish", name="act")(image)))
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype("float32")
    (found,) = profile_swishes(FloatGraph(model, pixels), [], [])
    assert (found.low, found.high, found.bulk_low) == (0, 255, 0) and 250 < found.bulk_high <= 255


def test_a_layer_with_two_swishes_has_two_ranges():
    x = image = keras.Input((8, 8, 3))
    twice = keras.layers.Activation("swish", name="act")
    for _ in range(2):
        x = twice(keras.layers.Conv2D(3, 1)(x))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype("float32")
    assert [each.layer for each in profile_swishes(FloatGraph(model, pixels), [], [])] == ["act", "act (2)"]


def test_the_chart_shows_each_range_and_one_line_per_file(monkeypatch):
    drawn = []
    monkeypatch.setattr(quantization_plots, "save", lambda figure, path: drawn.append(figure))
    ranges = {"stem_activation": (-8.0, 30.0, -4.0, 20.0), "block1a_activation": (-100.0, 50.0, -6.0, 9.0)}
    quantization_plots.swish_profiles(ranges, {"int8, corrected": [3.0, None], "int8, kept": [9.0, 12.0]}, "x.png")
    above, below = drawn[0].axes
    assert [(bar.get_y(), bar.get_y() + bar.get_height()) for bar in above.patches[:2]] == [
        (-8.0, 30.0),
        (-100.0, 50.0),
    ]
    assert [text.get_text() for text in below.get_xticklabels()] == ["stem", "block1a"]
    assert [list(line.get_ydata()) for line in below.lines] == [[3.0], [9.0, 12.0]]
    pyplot.close("all")
