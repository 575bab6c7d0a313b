"""CPU time of `.tflite` files and of their parts on one thread, which other work on the machine hardly changes.

In this process: for files that it has made. LiteRT and numpy; never TensorFlow.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from keras_effnet.export.tflite_file.interpreter import open_interpreter
from keras_effnet.export.tflite_file.pieces import needed_for, piece, read_by, split_constant, written_by
from keras_effnet.export.tflite_file.schema import operator_name, parse, stored_bytes
from keras_effnet.export.tflite_file.tensors import layer_of

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_litert.schema_py_generated import ModelT, OperatorT

_WARMUP, _RUNS = 2, 15


def time_ratios(contents: Sequence[bytes], runs: int = 20) -> list[float]:
    """CPU time of each file for one image over that of the first, the files being run in turn; medians of the ratios.

    Args:
        contents: The files.
        runs: Int, runs of each file.
    """
    interpreters = [_ready(content) for content in contents]
    rows = np.array([[_timed(each) for each in interpreters] for _ in range(_WARMUP + runs)])[_WARMUP:]
    return [float(ratio) for ratio in np.median(rows / rows[:, :1], axis=0)]


def _ready(content: bytes) -> Interpreter:
    """A file on one thread, with zeros as inputs."""
    interpreter = open_interpreter(content)
    for entry in interpreter.get_input_details():
        interpreter.set_tensor(entry["index"], np.zeros(entry["shape"], entry["dtype"]))
    return interpreter


def _timed(interpreter: Interpreter) -> float:
    started = time.thread_time()
    interpreter.invoke()
    return time.thread_time() - started


def part_times(content: bytes, parts: Mapping[str, Collection[str]], network: Collection[str]) -> dict[str, float]:
    """CPU time of each part for one image on one thread.

    The parts run in turn, as in the network, so that each reads its weights from memory again.

    Args:
        content: The file's bytes.
        parts: Name of a part -> names of its layers. No layer belongs to two parts.
        network: Names of all layers of the network.

    Returns:
        Name of a part -> seconds, 0 for a part without operators. A QUANTIZE belongs to the operator behind it, a
        DEQUANTIZE to the one before it.
    """
    model = parse(content)
    owner = {layer: part for part, layers in parts.items() for layer in layers}
    pieces = []
    for part, run in groupby(enumerate(_owners(model, owner, network)), key=lambda each: each[1]):
        places = [place for place, _ in run]
        if part is not None:
            piece_content = _piece(model, places[0], places[-1] + 1)
            pieces.append((part, piece_content, _ready(piece_content)))  # an interpreter reads from these bytes
    rows = np.array([[_timed(each) for _, _, each in pieces] for _ in range(_WARMUP + _RUNS)])[_WARMUP:]
    times = dict.fromkeys(parts, 0.0)
    for (part, _, _), seconds in zip(pieces, np.median(rows, axis=0), strict=True):
        times[part] += float(seconds)
    return times


def _owners(model: ModelT, owner: Mapping[str, str], network: Collection[str]) -> list[str | None]:
    """Part of each operator; None for those of no part and those that unpack weights."""
    graph = model.subgraphs[0]
    names = [layer_of(graph.tensors[operator.outputs[0]].name, network) for operator in graph.operators]
    found = [
        owner.get(name) if name and not _is_constant(model, operator) else None
        for name, operator in zip(names, graph.operators, strict=True)
    ]
    kinds = [operator_name(model, operator) for operator in graph.operators]
    for place, kind in reversed(list(enumerate(kinds[:-1]))):
        if kind == "QUANTIZE":
            found[place] = found[place + 1]
    for place, kind in enumerate(kinds[1:], 1):
        if kind == "DEQUANTIZE" and not _is_constant(model, graph.operators[place]):
            found[place] = found[place - 1]
    return found


def _piece(model: ModelT, start: int, end: int) -> bytes:
    """File of the operators `start` to `end - 1`. Weights that a DEQUANTIZE unpacks once stay constants."""
    graph = model.subgraphs[0]
    operators, later = graph.operators[start:end], graph.operators[end:]
    unpacking = needed_for(read_by(operators), split_constant(graph)[0])
    operators = unpacking + operators
    read = sorted(index for index in read_by(operators) - written_by(operators) if index >= 0)
    inputs = [index for index in read if stored_bytes(model, index) is None]
    leaving = (read_by(later) | set(map(int, graph.outputs))) - written_by(unpacking)
    return piece(model, operators, inputs, sorted(written_by(operators) & leaving))


def _is_constant(model: ModelT, operator: OperatorT) -> bool:
    """Whether an operator reads constants alone."""
    return all(stored_bytes(model, int(index)) is not None for index in operator.inputs)
