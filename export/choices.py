"""Valid values of export options, in a module that `--help` can read without TensorFlow. Pure Python."""

from __future__ import annotations

from typing import Literal, get_args

Quantization = Literal["none", "float16", "dynamic", "weight_only", "int8", "int16x8", "mixed"]
InputType = Literal["float32", "uint8"]
Int8Method = Literal["corrected", "minmax", "percentile", "fitted", "equalized", "qat"]
Format = Literal["savedmodel", "onnx"]

QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)
INPUT_TYPES: tuple[InputType, ...] = get_args(InputType)
INT8_METHODS: tuple[Int8Method, ...] = get_args(Int8Method)
FORMATS: tuple[Format, ...] = get_args(Format)  # beside .tflite

# What most applications ship.
DEFAULT_QUANTIZATIONS: tuple[Quantization, ...] = ("none", "float16", "dynamic", "weight_only", "int8")
