"""The oldest TensorFlow Lite runtime that has every operator of a file in the file's version of it. Pure Python.

A runtime refuses operator versions that are newer than itself: "Didn't find op for builtin opcode".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from keras_effnet.export.tflite_file.schema import code_name, enum_names

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT

# Operator -> the runtimes that introduced its versions 1, 2, 3, ...; the operators that exported networks consist of.
# Source: FindMinimumRuntimeVersionForOp, tflite/tools/versioning/runtime_version.cc in google-ai-edge/LiteRT (2025).
_SINCE = {
    "ADD": "1.5 1.14 2.4 2.6 2.13",
    "AVERAGE_POOL_2D": "1.5 1.14 2.3",
    "CONCATENATION": "1.5 1.14 2.3 2.14",
    "CONV_2D": "1.5 1.14 1.14 2.3 2.4 2.9 2.11 2.15",
    "DEPTHWISE_CONV_2D": "1.5 1.12 1.14 2.2 2.3 2.3 2.11",
    "DEQUANTIZE": "1.13.1 1.14 1.15 2.2 2.7 2.18",
    "FULLY_CONNECTED": "1.5 1.10 1.14 1.14 2.0 2.1 2.3 2.3 2.3 2.11 2.15 2.17 2.18",
    "GELU": "2.9 2.9",
    "HARD_SWISH": "1.15",
    "LOGISTIC": "1.14 1.14 2.3",
    "MAX_POOL_2D": "1.5 1.14 2.3",
    "MEAN": "1.6 1.14 2.4",
    "MUL": "1.5 1.14 1.15 2.3 2.6 2.11 2.13",
    "PAD": "1.5 1.14 2.4 2.6",
    "PADV2": "1.9 1.14 2.4 2.6",
    "QUANTIZE": "1.14 1.15 2.7",
    "REDUCE_MAX": "1.11 1.14 2.5",
    "RELU": "1.5 2.1 2.5",
    "RELU6": "1.5 1.14 2.5",
    "RESHAPE": "1.5",
    "SOFTMAX": "1.5 1.14 2.3",
    "SUB": "1.6 1.14 2.3 2.4 2.4",
    "TANH": "1.14 1.14 2.3",
    "TRANSPOSE": "1.6 1.14 1.15 2.3 2.4 2.12 2.14.4",
}


# Versions in which operators compute in int16. TensorFlow's quantizer of int16 activations leaves those of int8.
# Source: GetBuiltinOperatorVersion, tflite/tools/versioning/op_version.cc.
_INT16 = {
    "ADD": 3,
    "AVERAGE_POOL_2D": 3,
    "CONV_2D": 4,
    "DEPTHWISE_CONV_2D": 5,
    "DEQUANTIZE": 3,
    "FULLY_CONNECTED": 7,
    "LOGISTIC": 3,
    "MAX_POOL_2D": 3,
    "MEAN": 3,
    "MUL": 4,
    "PAD": 3,
    "SOFTMAX": 3,
    "SUB": 5,
    "TANH": 3,
    "TRANSPOSE": 5,
}


def _since(operator: str, version: int) -> tuple[int, ...] | None:
    """The first runtime with a version of an operator; None if the table lacks it."""
    versions = _SINCE.get(operator, "").split()
    if not 1 <= version <= len(versions):
        return None
    return (*map(int, versions[version - 1].split(".")), 0, 0)[:3]


def _required(model: ModelT) -> Iterator[tuple[int, ...] | None]:
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            name = code_name(code.customCode, code.builtinCode, code.deprecatedBuiltinCode)
            reads = {enum_names("TensorType")[graph.tensors[index].type] for index in operator.inputs if index >= 0}
            yield _since(name, max(code.version, _INT16.get(name, 1) if "INT16" in reads else 1))


def min_runtime_version(model: ModelT) -> str | None:
    """The oldest runtime that runs a file, such as `"2.17.0"`, from its operators' versions and int16 inputs.

    Returns:
        String, or None if the file contains an operator or a version that is not in the table.
    """
    required = list(_required(model))
    known = [version for version in required if version is not None]
    return ".".join(map(str, max(known))) if known and len(known) == len(required) else None
