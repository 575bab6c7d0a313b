"""Inspection: operators, float islands, and files that phones cannot run."""

from __future__ import annotations

import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from tiny_files import tiny_file

from keras_effnet.errors import UserError, VerificationError
from keras_effnet.export.tflite_file.inspection import Island, check_portable, inspect, operators
from keras_effnet.export.tflite_file.interpreter import TFLiteModel

IMAGE = tf.TensorSpec((1, 8, 8, 3), tf.float32)


def convert(function, flex: bool = False) -> bytes:
    concrete = tf.function(function, input_signature=[IMAGE]).get_concrete_function()
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

        @tf.function(input_signature=[IMAGE])
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
    with pytest.raises(VerificationError, match="its weights alone take 2,000,000: the weights are missing"):
        check_portable(content, min_bytes=2_000_000)


# --- inspect


def test_a_float_file_is_described(exported):
    found = inspect(exported["none"].path)
    content = exported["none"].path.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    types = [tensor.type for tensor in model.subgraphs[0].tensors]
    assert (found.size_bytes, found.precision) == (len(content), "float32")
    assert found.operators == operators(content) and sum(found.operators.values()) == len(model.subgraphs[0].operators)
    assert found.dtypes["float32"] == types.count(schema.TensorType.FLOAT32) == len(found.float_tensors)
    assert sum(found.dtypes.values()) == len(types)
    assert found.islands == () and found.dynamic == ()
    assert [(port.dtype, port.shape, port.scale) for port in found.inputs] == [("float32", (1, 32, 32, 3), None)]
    assert [(port.dtype, port.shape) for port in found.outputs] == [("float32", (1, 10))]


@pytest.mark.parametrize(
    ("precision", "name"),
    [("none", "float32"), ("float16", "float16"), ("dynamic", "dynamic"), ("weight_only", "weight_only")],
)
def test_the_precision_is_read_off_the_file(exported, precision, name):
    found = inspect(exported[precision].path)
    assert (found.precision, found.islands) == (name, ())


def test_an_int8_file_computes_in_float_at_its_output_alone(exported):
    found = inspect(exported["int8"].path)
    assert found.precision == "int8"
    assert [(island.place, island.operators) for island in found.islands] == [("output", ("SOFTMAX",))]
    (port,) = found.inputs
    details = TFLiteModel(exported["int8"].path).input
    assert (port.dtype, port.scale, port.zero_point) == ("uint8", *details["quantization"])


def test_bytes_are_inspected_as_a_path_is(exported):
    assert inspect(exported["int8"].path.read_bytes()) == inspect(str(exported["int8"].path))


INT8, FLOAT = ("int8", (1, 4, 4, 2)), ("float32", (1, 4, 4, 2))


def quantized(tensors: dict, steps: list, inputs: str = "image", outputs: str = "scores") -> bytes:
    """A file with an integer operator, so that float ones stand out."""
    tensors = {"image": INT8, "first": INT8, "scores": INT8} | tensors
    return tiny_file(tensors, [("RELU", "image", "first"), *steps], inputs, outputs)


def test_what_computes_in_float_between_integers_is_an_island():
    steps = [("DEQUANTIZE", "first", "a"), ("LOGISTIC", "a", "b"), ("MUL", "a b", "c"), ("QUANTIZE", "c", "second")]
    content = quantized({"a": FLOAT, "b": FLOAT, "c": FLOAT, "second": INT8}, [*steps, ("RELU", "second", "scores")])
    assert inspect(content).islands == (Island("middle", ("LOGISTIC", "MUL"), ("a", "b", "c")),)


def test_islands_apart_are_two():
    tensors = {"a": FLOAT, "b": FLOAT, "second": INT8, "c": FLOAT, "d": FLOAT}
    steps = [("DEQUANTIZE", "first", "a"), ("LOGISTIC", "a", "b"), ("QUANTIZE", "b", "second")]
    steps += [("DEQUANTIZE", "second", "c"), ("TANH", "c", "d"), ("QUANTIZE", "d", "scores")]
    assert [island.operators for island in inspect(quantized(tensors, steps)).islands] == [("LOGISTIC",), ("TANH",)]


def test_branches_that_meet_later_are_one_island():
    tensors = {"a": FLOAT, "b": FLOAT, "c": FLOAT, "d": FLOAT, "e": FLOAT}
    steps = [("DEQUANTIZE", "first", "a"), ("DEQUANTIZE", "first", "b"), ("TANH", "a", "c"), ("LOGISTIC", "b", "d")]
    steps += [("ADD", "c d", "e"), ("QUANTIZE", "e", "scores")]
    (island,) = inspect(quantized(tensors, steps)).islands
    assert island.operators == ("TANH", "LOGISTIC", "ADD")


def test_two_readers_of_a_float_tensor_are_one_island():
    tensors = {"a": FLOAT, "b": FLOAT, "c": FLOAT, "d": FLOAT, "other": INT8}
    steps = [("DEQUANTIZE", "first", "a"), ("TANH", "a", "b"), ("ABS", "b", "c"), ("LOGISTIC", "a", "d")]
    steps += [("QUANTIZE", "c", "scores"), ("QUANTIZE", "d", "other")]
    assert [island.operators for island in inspect(quantized(tensors, steps)).islands] == [("TANH", "ABS", "LOGISTIC")]


def test_what_is_computed_from_weights_alone_is_no_island():
    tensors = {"half": ("float16", (2,)), "w": ("float32", (2,)), "x": ("float32", (2,)), "v": ("int8", (2,))}
    steps = [("DEQUANTIZE", "half", "w"), ("MUL", "w w", "x"), ("QUANTIZE", "x", "v"), ("ADD", "first v", "scores")]
    content = tiny_file(
        {"image": INT8, "first": INT8, "scores": INT8} | tensors,
        [("RELU", "image", "first"), *steps],
        "image",
        "scores",
        stored="half",
    )
    assert inspect(content).islands == ()


def test_a_detour_through_float_is_an_island_without_operators():
    steps = [("DEQUANTIZE", "first", "a"), ("QUANTIZE", "a", "scores")]
    assert inspect(quantized({"a": FLOAT}, steps)).islands == (Island("middle", (), ("a",)),)


def test_conversions_at_the_ends_are_no_islands():
    content = tiny_file(
        {"image": FLOAT, "a": INT8, "b": INT8, "scores": FLOAT},
        [("QUANTIZE", "image", "a"), ("RELU", "a", "b"), ("DEQUANTIZE", "b", "scores")],
        "image",
        "scores",
    )
    assert inspect(content).islands == ()


def test_a_float_stem_is_an_island_at_the_input():
    content = tiny_file(
        {"image": FLOAT, "x": FLOAT, "a": INT8, "scores": INT8},
        [("MUL", "image image", "x"), ("QUANTIZE", "x", "a"), ("RELU", "a", "scores")],
        "image",
        "scores",
    )
    assert [(island.place, island.operators) for island in inspect(content).islands] == [("input", ("MUL",))]


def test_a_float_path_beside_the_integers_is_in_the_middle():
    content = tiny_file(
        {"image": FLOAT, "x": FLOAT, "a": INT8, "b": INT8, "y": FLOAT, "scores": FLOAT},
        [("QUANTIZE", "image", "a"), ("RELU", "a", "b"), ("DEQUANTIZE", "b", "y"), ("ADD", "image y", "scores")],
        "image",
        "scores",
    )
    assert [(island.place, island.operators) for island in inspect(content).islands] == [("middle", ("ADD",))]


def test_tensors_without_a_fixed_shape_are_named():
    content = tiny_file({"a": ("float32", (-1, 4)), "b": ("float32", (1, 4))}, [("RELU", "a", "b")], "a", "b")
    found = inspect(content)
    assert found.dynamic == ("a",)
    assert (found.inputs[0].signature, found.inputs[0].shape) == ((-1, 4), (1, 4))


def test_what_cannot_be_inspected_is_named(tmp_path, exported):
    with pytest.raises(UserError, match=r"gone\.tflite does not exist"):
        inspect(tmp_path / "gone.tflite")
    (tmp_path / "text.tflite").write_text("nothing of the kind")
    with pytest.raises(UserError, match=r"text\.tflite is not a \.tflite file"):
        inspect(tmp_path / "text.tflite")
    with pytest.raises(UserError, match="damaged"):
        inspect(exported["int8"].path.read_bytes()[:2000])
