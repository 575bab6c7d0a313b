"""The oldest runtime of a file, compared with what TensorFlow's converter states in its own files."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from tiny_files import tiny_file

from keras_effnet.export.tflite_file import runtime_versions
from keras_effnet.export.tflite_file.graph import read_graph
from keras_effnet.export.tflite_file.runtime_versions import min_runtime_version
from keras_effnet.export.tflite_file.schema import parse

IMAGE = tf.TensorSpec((1, 8, 8, 16), tf.float32)


@tf.function(input_signature=[IMAGE])
def network(image):
    kernel = tf.constant(np.linspace(-1, 1, 9 * 16 * 32).reshape(3, 3, 16, 32), tf.float32)
    image = tf.nn.conv2d(image, kernel, 1, "SAME")
    image = image * tf.sigmoid(image)
    image = tf.nn.depthwise_conv2d(image, kernel[:, :, 0, :, None], (1, 1, 1, 1), "SAME")
    matrix = tf.constant(np.linspace(-1, 1, 32 * 64).reshape(32, 64), tf.float32)
    return tf.nn.softmax(tf.linalg.matmul(tf.reduce_mean(image, (1, 2)), matrix))


def converted(kind: str) -> bytes:
    converter = tf.lite.TFLiteConverter.from_concrete_functions([network.get_concrete_function()])
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind in ("int8", "int16x8"):
        converter.representative_dataset = lambda: ([np.full((1, 8, 8, 16), v, "float32")] for v in (-1, 0, 1))
    if kind == "int16x8":
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        ]
    return converter.convert()


@pytest.mark.parametrize("kind", ["float32", "float16", "dynamic", "int8"])
def test_the_oldest_runtime_is_the_one_that_the_converter_states(kind):
    content = converted(kind)
    stated = read_graph(content).metadata["min_runtime_version"].rstrip(b"\0").decode()
    assert min_runtime_version(parse(content)) == stated


def test_activations_in_int16_need_the_runtimes_that_compute_in_them():
    """The converter states 1.14.0, as its quantizer leaves the versions of int8 operators."""
    assert min_runtime_version(parse(converted("int16x8"))) == "2.4.0"  # MEAN


def with_version(kind: str, version: int):
    tensors = {"image": ("float32", (1, 4)), "scores": ("float32", (1, 4))}
    model = parse(tiny_file(tensors, [(kind, "image", "scores")], "image", "scores"))
    model.operatorCodes[0].version = version
    return model


def test_int8_weights_of_a_dense_layer_need_2_17():
    assert min_runtime_version(with_version("FULLY_CONNECTED", 12)) == "2.17.0"
    assert min_runtime_version(with_version("CONV_2D", 5)) == "2.4.0"
    assert min_runtime_version(with_version("DEQUANTIZE", 1)) == "1.13.1"


@pytest.mark.parametrize(("kind", "version"), [("FULLY_CONNECTED", 14), ("CONV_2D", 9), ("CUMSUM", 1), ("Own", 1)])
def test_nothing_is_claimed_of_unknown_operators_and_versions(kind, version):
    assert min_runtime_version(with_version(kind, version)) is None


def test_the_table_holds_names_of_the_schema_and_growing_versions():
    assert set(runtime_versions._SINCE) <= set(vars(schema.BuiltinOperator))
    for versions in runtime_versions._SINCE.values():
        numbers = [tuple(map(int, version.split("."))) for version in versions.split()]
        assert numbers == sorted(numbers)
