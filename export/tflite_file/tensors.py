"""Mapping of a file's tensors to Keras layers, and the values of intermediate tensors.

The converter names a tensor after the operations fused into it, each with the scope of its layer, starting with the
operation that outputs it: `net_1/stem_activation_1/Relu6;net_1/stem_bn_1/add_1;net_1/stem_conv_1/convolution`.

LiteRT and numpy; never TensorFlow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from keras_effnet.export.tflite_file.interpreter import open_interpreter
from keras_effnet.export.tflite_file.mapped_images import ImageArray
from keras_effnet.export.tflite_file.pieces import needed_for, piece, read_by, split_constant, written_by
from keras_effnet.export.tflite_file.schema import parse

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import OperatorT, SubGraphT

Rows: TypeAlias = ImageArray | list[np.ndarray]  # values of a tensor, one for each run

_RESUMED_BYTES = 1e8  # of the values at which a pass over all inputs starts
_NUMBER = re.compile(r"_\d+$")  # the converter numbers a scope that is entered again, as Keras does that of each layer


def layer_of(tensor_name: bytes | str, layers: Collection[str]) -> str | None:
    """Find the layer that outputs a tensor from the tensor's name; None if it contains no layer's name.

    Args:
        tensor_name: Name in the file.
        layers: Names of all layers of the network: among some of them `act_1` would be taken for the `act` left out.
    """
    name = tensor_name.decode() if isinstance(tensor_name, bytes) else tensor_name
    found = None
    for scope in name.split(";")[0].split("/"):
        # A number is the scope's before it is the layer's: `act_1/mul` is of the layer `act`, `act_1_2/mul` of `act_1`.
        found = next((each for each in (_NUMBER.sub("", scope), scope) if each in layers), found)
    return found


def output_tensors(content: bytes, layers: Collection[str]) -> dict[str, int]:
    """Find the tensors that hold the outputs of layers in a converted file.

    Args:
        content: The file's bytes.
        layers: Names of all layers of the network.

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
    content: bytes, parts: Iterable[list[int]], inputs: ImageArray
) -> Iterator[tuple[list[int], Iterator[Iterator[np.ndarray]]]]:
    """Run a file and read some of its intermediate tensors.

    The tensors are made outputs of the file, those of one part at a time. LiteRT's own option keeps all
    tensors, gigabytes for B7, and none of those that XNNPACK computes. Each pass over the inputs ends with the last
    operator that it needs. It starts where few values were enough to keep in the pass before, `_RESUMED_BYTES` for all
    inputs: large tensors are in the first layers, most of the arithmetic is in the others. Each pass unpacks the
    weights that it reads: XNNPACK hands no constant on.

    Args:
        content: The file's bytes.
        parts: For each pass over the inputs the indices of the tensors that it reads, see `in_passes`.
        inputs: Array of shape `(N, height, width, channels)`, in the file's own type.

    Yields:
        A part, and an iterator that gives for each input the dequantized values of these tensors, one
        after another: each is copied when it is reached, which must be before the next input.
    """
    model = parse(content)
    graph = model.subgraphs[0]
    constant, operators = split_constant(graph)
    makers = dict.fromkeys(written_by(constant), 0)
    makers |= {int(index): place for place, operator in enumerate(operators) for index in operator.outputs}
    whole: dict[int, Rows] = {int(graph.inputs[0]): inputs}
    start, held = 0, whole
    for part in parts:
        places = [makers[index] for index in part]
        if min(places) < start:
            start, held = 0, whole
        end = 1 + max(places)
        fits = (
            place
            for place in range(end, start, -1)
            if _crossing_bytes(graph, operators, place) * len(inputs) <= _RESUMED_BYTES
        )
        resumed = next(fits, start)
        later = read_by(operators[resumed:])
        kept: dict[int, list[np.ndarray]] = {index: [] for index in later & written_by(operators[start:resumed])}
        given = sorted(held.keys() & read_by(operators[start:end]))
        outputs = list(dict.fromkeys([*part, *kept]))
        unpacked = needed_for(read_by(operators[start:end]) | set(part), constant)
        section = piece(model, [*unpacked, *operators[start:end]], given, outputs)
        yield part, _runs(section, [held[index] for index in given], outputs, len(part), kept)
        if all(len(values) == len(inputs) for values in kept.values()):  # the caller took all runs
            start, held = resumed, {index: values for index, values in held.items() if index in later} | kept


def _crossing_bytes(graph: SubGraphT, operators: Sequence[OperatorT], place: int) -> int:
    """Bytes of the tensors that operators from `place` on read, of those computed before and of the input."""
    before = written_by(operators[:place]) | set(map(int, graph.inputs))
    crossing = before & read_by(operators[place:])
    return sum(4 * int(np.prod(graph.tensors[index].shape)) for index in crossing)


def _runs(
    content: bytes,
    inputs: Sequence[Rows],
    outputs: Sequence[int],
    count: int,
    kept: dict[int, list[np.ndarray]],
) -> Iterator[Iterator[np.ndarray]]:
    """Yield an iterator over the first `count` outputs of a file for each run, dequantized; append others to `kept`.

    Args:
        content: The file's bytes.
        inputs: For each input of the file, its values in all runs.
        outputs: Name of each output: the tensor's index in the file that this is a piece of.
        count: Int.
        kept: Name of an output -> list of its values, in the file's own type.
    """
    interpreter = open_interpreter(content, os.cpu_count())
    entries, exits = interpreter.get_input_details(), interpreter.get_output_details()
    for row in zip(*inputs, strict=True):
        for entry, value in zip(entries, row, strict=True):
            interpreter.set_tensor(entry["index"], value.reshape(entry["shape"]))  # an image has no batch axis
        interpreter.invoke()
        for name, leaving in zip(outputs, exits, strict=True):
            if name in kept:
                kept[name].append(interpreter.get_tensor(leaving["index"]))
        yield (
            _real(interpreter.get_tensor(leaving["index"])[0], *leaving["quantization"]) for leaving in exits[:count]
        )


def activations(content: bytes, indices: Sequence[int], inputs: ImageArray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the index of each tensor with an array of its values, one row an input."""
    parts = in_passes(parse(content).subgraphs[0], indices, 1e8 / len(inputs))
    for part, runs in taps(content, parts, inputs):
        yield from zip(part, map(np.stack, zip(*map(list, runs), strict=True)), strict=True)


def _real(values: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    return values if values.dtype == np.float32 else (values.astype("float32") - zero_point) * np.float32(scale)


def in_passes(graph: SubGraphT, indices: Sequence[int], held_bytes: float = 5e8) -> Iterator[list[int]]:
    """Split tensor indices, in order, so that a run of the file holds at most `held_bytes` of them."""
    return chunks(indices, [4 * int(np.prod(graph.tensors[index].shape)) for index in indices], held_bytes)


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
