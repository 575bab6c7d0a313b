"""A test that changes its process fails, and later ones find the process as it was."""

import os

import keras
import pytest
import tensorflow as tf
from leaks import process_state, unchanged_process

CHANGES = {
    "$TF_USE_LEGACY_KERAS was None and is '1'": lambda: os.environ.update(TF_USE_LEGACY_KERAS="1"),
    "$PATH was .* and is None": lambda: os.environ.pop("PATH"),
    "working directory was .* and is '/'": lambda: os.chdir("/"),
    "dtype policy was 'float32' and is 'mixed_float16'": lambda: keras.config.set_dtype_policy("mixed_float16"),
    "image data format was": lambda: keras.config.set_image_data_format("channels_first"),
    "functions run eagerly was False and is True": lambda: tf.config.run_functions_eagerly(True),
}


@pytest.mark.parametrize("message", CHANGES)
def test_a_change_of_the_process_is_named_and_put_back(message):
    before = process_state()
    with pytest.raises(AssertionError, match=message.replace("$", r"\$")), unchanged_process():
        CHANGES[message]()
    assert process_state() == before
