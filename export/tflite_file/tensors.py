"""Which layer a tensor of a converted file belongs to, and what flows through it.

The converter names a tensor after the operations that were fused into it, each under the scope of its layer, and first
the one whose output it is: `net_1/stem_activation_1/Relu6;net_1/stem_bn_1/add_1;net_1/stem_conv_1/convolution`.

LiteRT, its flatbuffer schema and numpy.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from keras_effnet.export.tflite_file.interpreter import open_interpreter
from keras_effnet.export.tflite_file.schema import pack, parse

_NUMBER = re.compile(r"_\d+$")  # a scope that was entered twice is numbered


def layer_of(tensor_name: bytes | str, layers: Collection[str]) -> str | None:
    """The layer whose output a tensor is, by its name; None where no layer's name is in it."""
    name = tensor_name.decode() if isinstance(tensor_name, bytes) else tensor_name
    found = None
    for scope in name.split(";")[0].split("/"):
        plain = scope if scope in layers else _NUMBER.sub("", scope)
        if plain in layers:
            found = plain
    return found


def output_tensors(content: bytes, layers: Collection[str]) -> dict[str, int]:
    """Where the outputs of layers are found in a converted model.

    Args:
        content: The file's bytes.
        layers: Names of layers.

    Returns:
        Layer name -> tensor index, in the order of execution, for the layers whose output is a tensor of its own in the
        file: a convolution has none if the activation after it is fused into the operator.
    """
    graph = parse(content).subgraphs[0]
    found: dict[str, int] = {}
    for operator in graph.operators:
        for index in operator.outputs:
            if name := layer_of(graph.tensors[index].name, layers):
                found.pop(name, None)  # the last tensor of a layer is its output, and stands where that is computed
                found[name] = int(index)
    return found


def taps(
    content: bytes, indices: Sequence[int], inputs: np.ndarray, held_bytes: float = 5e8
) -> Iterator[tuple[list[int], Iterator[list[np.ndarray]]]]:
    """Runs a file and looks at some of its tensors.

    They are made outputs of the file, as many at a time as fit into some memory: LiteRT would otherwise keep either
    none or all, which for B7 are gigabytes, and could keep none of what XNNPACK computes.

    Args:
        content: The file's bytes.
        indices: Of the tensors.
        inputs: Array of shape `(N, height, width, channels)`, in the file's own type.
        held_bytes: Float, of the tensors that are looked at in one pass over the inputs.

    Yields:
        Some of the indices, and an iterator over the inputs to the values of these tensors, in real numbers.
    """
    model = parse(content)
    graph = model.subgraphs[0]
    for chunk in _chunks(indices, [int(np.prod(graph.tensors[index].shape)) * 4 for index in indices], held_bytes):
        graph.outputs = list(chunk)
        yield chunk, _runs(pack(model), chunk, inputs)


def _runs(content: bytes, indices: Sequence[int], inputs: np.ndarray) -> Iterator[list[np.ndarray]]:
    interpreter = open_interpreter(content, os.cpu_count())
    (entry,) = interpreter.get_input_details()
    scales = {detail["index"]: detail["quantization"] for detail in interpreter.get_output_details()}
    for value in inputs:
        interpreter.set_tensor(entry["index"], value[None])
        interpreter.invoke()
        yield [_real(interpreter.get_tensor(index)[0], *scales[index]) for index in indices]


def activations(content: bytes, indices: Sequence[int], inputs: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """What some tensors hold for each of a few inputs: tensor index and an array with a row for each input."""
    for chunk, runs in taps(content, indices, inputs, held_bytes=2.5e8 / len(inputs)):
        yield from zip(chunk, map(np.stack, zip(*runs, strict=True)), strict=True)


def _real(values: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    return values if values.dtype == np.float32 else (values.astype("float32") - zero_point) * np.float32(scale)


def _chunks(indices: Sequence[int], sizes: Sequence[int], most: float) -> Iterator[list[int]]:
    chunk, held = [], 0
    for index, size in zip(indices, sizes, strict=True):
        if chunk and held + size > most:
            yield chunk
            chunk, held = [], 0
        chunk.append(index)
        held += size
    if chunk:
        yield chunk
