"""What is inside a file, and which files no phone can run."""

from __future__ import annotations

import pytest
import tensorflow as tf

from keras_effnet.errors import VerificationError
from keras_effnet.export.inspection import check_portable, operators

PICTURE = tf.TensorSpec((1, 8, 8, 3), tf.float32)


def convert(function, flex: bool = False) -> bytes:
    concrete = tf.function(function, input_signature=[PICTURE]).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if flex:
        converter.target_spec.supported_ops.append(tf.lite.OpsSet.SELECT_TF_OPS)
    return converter.convert()


def with_variable() -> bytes:
    class Counter(tf.Module):
        def __init__(self):
            super().__init__()
            self.total = tf.Variable(tf.zeros(3))

        @tf.function(input_signature=[PICTURE])
        def call(self, image):
            self.total.assign_add(tf.reduce_mean(image, axis=(0, 1, 2)))
            return image + self.total

    module = Counter()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.call.get_concrete_function()], module)
    converter.experimental_enable_resource_variables = True
    return converter.convert()


def test_operators_are_counted_by_name():
    content = convert(lambda image: tf.nn.max_pool2d(tf.nn.max_pool2d(tf.sin(image), 2, 2, "SAME"), 2, 2, "SAME"))
    assert operators(content) == {"SIN": 1, "MAX_POOL_2D": 2}


def test_a_file_of_builtin_operators_passes():
    content = convert(tf.nn.relu)
    check_portable(content, min_bytes=len(content))


def test_a_file_that_needs_tensorflow_operators_is_refused_by_their_name():
    content = convert(lambda image: tf.linalg.inv(image[..., 0]), flex=True)
    with pytest.raises(VerificationError, match=r"needs Flex\w+, a TensorFlow operator that phones do not have"):
        check_portable(content, min_bytes=0)


def test_a_file_with_variables_is_refused():
    with pytest.raises(VerificationError, match=r"contains \w*VAR\w*: weights live in variables"):
        check_portable(with_variable(), min_bytes=0)


def test_a_file_that_casts_is_refused():
    content = convert(lambda image: tf.cast(tf.cast(image, tf.int32), tf.float32))
    with pytest.raises(VerificationError, match="contains CAST: a dtype changes inside the network"):
        check_portable(content, min_bytes=0)


def test_a_file_too_small_for_its_weights_is_refused():
    content = convert(tf.nn.relu)
    with pytest.raises(VerificationError, match="its weights alone take 2,000,000: they are not in it"):
        check_portable(content, min_bytes=2_000_000)
