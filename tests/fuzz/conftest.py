"""Files that are damaged."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_effnet.system.output import captured_output


def _network() -> keras.Model:
    """A classifier of 16x16 pixels with the operators of EfficientNet, large enough for dynamic-range weights."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="swish")(image)
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu6")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
    gate = layers.Conv2D(8, 1, activation="sigmoid")(layers.Conv2D(2, 1, activation="swish")(gate))
    x = layers.Add()([layers.Conv2D(8, 1)(layers.Multiply()([y, gate])), x])
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(128, 1, activation="relu")(x))
    return keras.Model(image, layers.Dense(10, activation="softmax")(x))


def _converted(model: keras.Model, precision: str) -> bytes:
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(tf.TensorSpec((1, 16, 16, 3)))
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function]
    )  # without `model`: its weights become constants
    if precision != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        images = np.random.default_rng(0).uniform(0, 1, (4, 1, 16, 16, 3)).astype("float32")
        converter.representative_dataset = lambda: ([image] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
    with captured_output():
        return converter.convert()


@pytest.fixture(scope="session")
def tflite_files() -> dict[str, bytes]:
    """A tiny network at four precisions."""
    model = _network()
    return {precision: _converted(model, precision) for precision in ("none", "float16", "dynamic", "int8")}
