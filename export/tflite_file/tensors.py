"""Mapping of a file's tensors to Keras layers, and the values of intermediate tensors.

The converter names a tensor after the operations fused into it, each with the scope of its layer, starting with the
operation that outputs it: `net_1/stem_activation_1/Relu6;net_1/stem_bn_1/add_1;net_1/stem_conv_1/convolution`.

LiteRT and numpy; never TensorFlow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from keras_effnet.export.tflite_file.interpreter import open_interpreter
from keras_effnet.export.tflite_file.pieces import piece
from keras_effnet.export.tflite_file.schema import parse

_NUMBER = re.compile(r"_\d+$")  # the converter numbers a scope that is entered again


def layer_of(tensor_name: bytes | str, layers: Collection[str]) -> str | None:
    """Find the layer that outputs a tensor from the tensor's name; None if it contains no layer's name."""
    name = tensor_name.decode() if isinstance(tensor_name, bytes) else tensor_name
    found = None
    for scope in name.split(";")[0].split("/"):
        plain = scope if scope in layers else _NUMBER.sub("", scope)
        if plain in layers:
            found = plain
    return found


def output_tensors(content: bytes, layers: Collection[str]) -> dict[str, int]:
    """Find the tensors that hold the outputs of layers in a converted file.

    Args:
        content: The file's bytes.
        layers: Names of layers.

    Returns:
        Layer name -> tensor index in execution order, for the layers whose output is a separate tensor in the file. A
        convolution has none if the following activation is fused into the operator.
    """
    graph = parse(content).subgraphs[0]
    found: dict[str, int] = {}
    for operator in graph.operators:
        for index in operator.outputs:
            if name := layer_of(graph.tensors[index].name, layers):
                found.pop(name, None)  # the last tensor of a layer is its output and determines its position
                found[name] = int(index)
    return found


def taps(
    content: bytes, indices: Sequence[int], inputs: np.ndarray, held_bytes: float = 5e8
) -> Iterator[tuple[list[int], Iterator[Iterator[np.ndarray]]]]:
    """Run a file and read some of its intermediate tensors.

    The tensors are made outputs of the file, as many at a time as fit in `held_bytes`. LiteRT's own option keeps all
    tensors, gigabytes for B7, and none of those that XNNPACK computes.

    Args:
        content: The file's bytes.
        indices: Tensor indices.
        inputs: Array of shape `(N, height, width, channels)`, in the file's own type.
        held_bytes: Float, upper bound for the tensors that are read in one pass over the inputs.

    Yields:
        A part of the indices, and an iterator that gives for each input the dequantized values of these tensors, one
        after another: each is copied when it is reached, which must be before the next input.
    """
    model = parse(content)
    graph = model.subgraphs[0]
    makers = {int(index): place for place, operator in enumerate(graph.operators) for index in operator.outputs}
    for chunk in chunks(indices, [int(np.prod(graph.tensors[index].shape)) * 4 for index in indices], held_bytes):
        # The large tensors are in the first layers: a pass ends with the last operator that it needs.
        operators = graph.operators[: 1 + max(makers.get(index, -1) for index in chunk)]
        yield chunk, _runs(piece(model, operators, list(graph.inputs), chunk), inputs)


def _runs(content: bytes, inputs: np.ndarray) -> Iterator[Iterator[np.ndarray]]:
    """Yield an iterator over the dequantized outputs of a file for each input."""
    interpreter = open_interpreter(content, os.cpu_count())
    (entry,), exits = interpreter.get_input_details(), interpreter.get_output_details()
    for value in inputs:
        interpreter.set_tensor(entry["index"], value[None])
        interpreter.invoke()
        yield (_real(interpreter.get_tensor(leaving["index"])[0], *leaving["quantization"]) for leaving in exits)


def activations(content: bytes, indices: Sequence[int], inputs: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the index of each tensor with an array of its values, one row an input."""
    for chunk, runs in taps(content, indices, inputs, held_bytes=2.5e8 / len(inputs)):
        yield from zip(chunk, map(np.stack, zip(*map(list, runs), strict=True)), strict=True)


def _real(values: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    return values if values.dtype == np.float32 else (values.astype("float32") - zero_point) * np.float32(scale)


def chunks(indices: Sequence[int], sizes: Sequence[int], most: float) -> Iterator[list[int]]:
    """Split tensor indices, in order, so that the sizes of a part add up to `most`; a larger tensor is a part alone."""
    chunk: list[int] = []
    held = 0
    for index, size in zip(indices, sizes, strict=True):
        if chunk and held + size > most:
            yield chunk
            chunk, held = [], 0
        chunk.append(index)
        held += size
    if chunk:
        yield chunk
