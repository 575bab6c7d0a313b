"""Flatbuffer access: operator names, constants and buffers of files with known content."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as generated
from tiny_files import tiny_file

from keras_effnet.export.tflite_file import schema


@pytest.fixture
def model() -> generated.ModelT:
    tensors = {"image": ("float32", (1, 4)), "kernel": ("float32", (2, 8)), "scores": ("float32", (1, 2))}
    steps = [("FULLY_CONNECTED", "image kernel", "scores"), ("FlexRelu", "scores", "scores")]
    return schema.parse(tiny_file(tensors, steps, "image", "scores", stored="kernel"))


def names(model: generated.ModelT) -> list[str]:
    return [schema.operator_name(model, operator) for operator in model.subgraphs[0].operators]


def test_operators_have_their_builtin_or_custom_name(model):
    assert names(model) == ["FULLY_CONNECTED", "FlexRelu"]


def test_the_code_that_is_set_names_the_operator_in_old_and_in_new_files(model):
    code = model.operatorCodes[0]
    code.builtinCode, code.deprecatedBuiltinCode = 0, generated.BuiltinOperator.CONV_2D  # written before 2020
    assert names(model)[0] == "CONV_2D"
    code.builtinCode, code.deprecatedBuiltinCode = generated.BuiltinOperator.GELU, 127  # codes above the old field's
    assert names(model)[0] == "GELU"


def test_a_constant_has_its_dtype_and_shape_and_an_activation_none(model):
    kernel = schema.constant(model, 1)
    assert kernel is not None and kernel.dtype == np.float32 and kernel.shape == (2, 8)
    assert schema.constant(model, 0) is None and schema.stored_bytes(model, 2) is None


def test_an_omitted_input_is_no_constant(model):
    model.subgraphs[0].tensors.reverse()  # the last tensor, which -1 would index, is not stored; make one that is
    model.subgraphs[0].tensors.append(model.subgraphs[0].tensors[1])
    assert schema.constant(model, 3) is not None and schema.constant(model, -1) is None


def test_a_buffer_of_no_bytes_is_no_constant(model):
    model.buffers[model.subgraphs[0].tensors[1].buffer].data = np.zeros(0, "uint8")
    assert schema.constant(model, 1) is None


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "int32"])
def test_values_survive_storing_packing_and_parsing(model, dtype):
    values = np.arange(16).reshape(8, 2).T.astype(dtype)  # not contiguous
    tensor = model.subgraphs[0].tensors[1]
    shared, tensor.buffer = tensor.buffer, schema.add_buffer(model, values)
    tensor.type = getattr(generated.TensorType, dtype.upper())
    back = schema.parse(schema.pack(model))
    assert schema.tensor_dtype(back, 1) == dtype
    np.testing.assert_array_equal(schema.constant(back, 1), values, strict=True)
    assert not np.any(back.buffers[shared].data)  # the old buffer may belong to other tensors


def test_packing_holds_the_file_twice_at_most(model):
    kernel = np.ones(1 << 16, "float32")
    for _ in range(65):
        schema.add_buffer(model, kernel)
    tracemalloc.start()
    size = len(schema.pack(model))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.3 * size  # a builder that grows by doubling and is copied twice: 3.9


def test_packing_writes_the_file_identifier(model):
    assert schema.pack(model)[4:8] == schema.MAGIC
