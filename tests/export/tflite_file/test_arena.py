"""Arena plans: equal to LiteRT's byte for byte, and to sums worked out by hand."""

from __future__ import annotations

import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tiny_files import tiny_file

from keras_effnet.export.tflite_file.arena import plan
from keras_effnet.export.tflite_file.graph import read_graph


def bytes_in_use(content: bytes) -> int:
    """The span of addresses that LiteRT, without a delegate, gives to what depends on the input."""
    interpreter = Interpreter(
        model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    interpreter.allocate_tensors()
    graph = read_graph(content)
    varying = [interpreter.tensor(i)() for i in range(len(graph.tensors)) if i not in graph.constants]
    starts = [view.ctypes.data for view in varying]
    return max(start + view.nbytes for start, view in zip(starts, varying, strict=True)) - min(starts)


def swish_block(image):
    """Branches that are read late, products and sums in place, and shapes renamed."""
    x = tf.nn.conv2d(image, tf.ones((1, 1, 3, 8)), 1, "SAME")  # larger kernels take scratch space for their patches
    x = x * tf.sigmoid(x)
    gate = tf.sigmoid(tf.nn.conv2d(tf.reduce_mean(x, axis=(1, 2), keepdims=True), tf.ones((1, 1, 8, 8)), 1, "SAME"))
    y = tf.nn.conv2d(x * gate, tf.ones((1, 1, 8, 8)), 1, "SAME")
    return tf.reshape(tf.nn.max_pool2d(x + y * tf.sigmoid(y), 2, 2, "SAME"), (1, -1)) - 1.0


@pytest.mark.parametrize("precision", ["none", "float16", "int8"])
def test_the_plan_is_what_litert_allocates(exported, precision):
    content = exported[precision].path.read_bytes()
    assert plan(read_graph(content)).arena_bytes == bytes_in_use(content)


def test_the_plan_is_what_litert_allocates_where_operators_work_in_place():
    function = tf.function(swish_block, input_signature=[tf.TensorSpec((1, 24, 24, 3), tf.float32)])
    content = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()]).convert()
    assert plan(read_graph(content)).arena_bytes == bytes_in_use(content)


def test_what_is_alive_is_what_was_written_and_will_be_read():
    # Pooling halves the sides: 4096, 1024 and 256 bytes. The input is kept, the middle read by the last step.
    chain = tiny_file(
        {"a": ("float32", (1, 16, 16, 4)), "b": ("float32", (1, 8, 8, 4)), "c": ("float32", (1, 4, 4, 4))},
        [("MAX_POOL_2D", "a", "b"), ("MAX_POOL_2D", "b", "c")],
        "a",
        "c",
    )
    assert plan(read_graph(chain)) == (4096 + 1024 + 256, 4096 + 1024 + 256)


def test_memory_is_used_again_once_its_tensor_was_read():
    sides = dict.fromkeys("abcde", ("int8", (1, 32, 32, 1)))
    steps = [("LOGISTIC", before, after) for before, after in zip("abcd", "bcde", strict=True)]
    assert plan(read_graph(tiny_file(sides, steps, "a", "e"))).arena_bytes == 3 * 1024  # input, one read, one written


def test_an_arena_can_be_larger_than_what_is_alive():
    # The largest are placed first, from the bottom: x at 0, a at 64, b at 192, d at 64 again. c, alive with b and then
    # with d, finds room above both alone. Alive are never more than x, a and b, or x, c, d and y.
    tensors = {"x": 64, "a": 128, "b": 128, "c": 64, "d": 128, "y": 64}
    steps = [("TILE", "x", "a"), ("TILE", "a", "b"), ("TILE", "b", "c"), ("TILE", "c", "d"), ("TILE", "c d", "y")]
    content = tiny_file({name: ("int8", (size,)) for name, size in tensors.items()}, steps, "x", "y")
    assert plan(read_graph(content)) == (320, 384)


def test_weights_are_no_working_memory():
    with_weights = tiny_file(
        {"a": ("float32", (1, 16)), "w": ("float32", (16, 16)), "b": ("float32", (1, 16))},
        [("FULLY_CONNECTED", "a w", "b")],
        "a",
        "b",
        stored="w",
    )
    assert plan(read_graph(with_weights)).arena_bytes == 64 + 64
