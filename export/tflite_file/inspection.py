"""Contents of a `.tflite` file: operators, types, float islands, activation memory and expected runtime support.

Runs nothing; never TensorFlow.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from keras_effnet.errors import VerificationError
from keras_effnet.export.tflite_file.arena import plan
from keras_effnet.export.tflite_file.clients import Verdict, judge
from keras_effnet.export.tflite_file.graph import (
    CONVERSIONS,
    FLOATS,
    QUANTIZED,
    Graph,
    Operator,
    Signature,
    Tensor,
    content_of,
    name_of,
    read_graph,
)
from keras_effnet.export.tflite_file.metadata.reading import read_metadata
from keras_effnet.export.tflite_file.metadata.tables import RUNTIME_ENTRY, FileMetadata

# Resource variables need an initializer that mobile runtimes do not call; a CAST remains from mixed precision.
_REFUSED = {
    "VAR_HANDLE": "weights live in variables, outside the file",
    "READ_VARIABLE": "weights live in variables, outside the file",
    "CAST": "a dtype changes inside the network",
}


@dataclass(frozen=True)
class Island:
    """A connected group of operators that compute in float inside a quantized file.

    Args:
        place: `"input"` or `"output"` at the ends, like a float softmax; `"middle"` between integer operators.
        operators: Tuple of names, without the conversions from and to integers.
        tensors: Tuple of names, the float tensors that they read and write.
    """

    place: str
    operators: tuple[str, ...]
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """Contents of a `.tflite` file.

    Args:
        size_bytes: Int.
        precision: `"float32"`, `"float16"`, `"weight_only"` or `"dynamic"`, depending on the weights, if activations
            are float; else `"int8"` or `"int16x8"`.
        operators: Dict of operator name -> count.
        dtypes: Dict of dtype -> number of tensors.
        float_tensors: Tuple of names.
        islands: Tuple of `Island`s; empty if nothing computes in integers.
        dynamic: Tuple of names of tensors without a fixed shape.
        inputs, outputs: Tuples of `Tensor`s, with shape, dtype, scale and zero point.
        clients: Tuple of `Verdict`s: expectations, nothing is run.
        live_bytes: Int, peak size of the activations that are live at the same time.
        arena_bytes: Int, size of the arena that LiteRT plans for them without a delegate; no weights, no scratch space.
        signatures: Tuple of `Signature`s.
        min_runtime_version: String, the oldest TensorFlow Lite that runs the file, as the file states it; else None.
        metadata: `FileMetadata`, or None if the file has none.
    """

    size_bytes: int
    precision: str
    operators: dict[str, int]
    dtypes: dict[str, int]
    float_tensors: tuple[str, ...]
    islands: tuple[Island, ...]
    dynamic: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    clients: tuple[Verdict, ...]
    live_bytes: int
    arena_bytes: int
    signatures: tuple[Signature, ...] = ()
    min_runtime_version: str | None = None
    metadata: FileMetadata | None = None


def _connected(graph: Graph) -> list[list[Operator]]:
    """Steps that read or write float activations, grouped by shared tensors, ordered by first step."""
    groups: list[tuple[set[int], list[int]]] = []
    for number, step in enumerate(graph.steps):
        touched = set(graph.activations(step.inputs + step.outputs, FLOATS))
        if not touched:
            continue
        apart, members = [], [number]
        for tensors, numbers in groups:
            if tensors & touched:
                touched |= tensors
                members += numbers
            else:
                apart.append((tensors, numbers))
        groups = [*apart, (touched, members)]
    return [[graph.steps[number] for number in numbers] for numbers in sorted(sorted(members) for _, members in groups)]


def _place(graph: Graph, steps: list[Operator]) -> str:
    reads = {index for step in steps for index in step.inputs}
    writes = {index for step in steps for index in step.outputs}
    from_integers = bool(graph.activations(tuple(reads), QUANTIZED))
    to_integers = bool(graph.activations(tuple(writes), QUANTIZED))
    if not from_integers and to_integers:
        return "input"
    return "output" if from_integers and not to_integers else "middle"


def float_islands(graph: Graph) -> tuple[Island, ...]:
    """Find groups of operators that compute in float inside a file that otherwise computes in integers."""
    if not graph.integer_dtypes:
        return ()
    islands = []
    for steps in _connected(graph):
        place = _place(graph, steps)
        computing = tuple(step.name for step in steps if step.name not in CONVERSIONS)
        indices = {i: None for step in steps for i in graph.activations(step.inputs + step.outputs, FLOATS)}
        # A lone conversion is how floats enter and leave at the ends; in the middle it is an avoidable round trip.
        if computing or place == "middle":
            islands.append(Island(place, computing, tuple(graph.tensors[index].name for index in indices)))
    return tuple(islands)


def inspect(path: str | Path | bytes) -> Inspection:
    """Inspect a `.tflite` file without running it.

    Args:
        path: Path of the file, or its bytes.

    Returns:
        An `Inspection`.

    Raises:
        UserError: The file does not exist, is not a `.tflite` file, or is damaged.

    Example:

    >>> found = keras_effnet.export.inspect("model_int8.tflite")
    >>> [island for island in found.islands if island.place == "middle"]
    []
    """
    content = content_of(path)
    graph = read_graph(content, name_of(path))
    memory = plan(graph)
    return Inspection(
        size_bytes=len(content),
        precision=graph.precision,
        operators=dict(_histogram(graph)),
        dtypes=dict(Counter(tensor.dtype for tensor in graph.tensors).most_common()),
        float_tensors=tuple(tensor.name for tensor in graph.tensors if tensor.dtype in FLOATS),
        islands=float_islands(graph),
        dynamic=tuple(tensor.name for tensor in graph.tensors if -1 in tensor.signature),
        inputs=tuple(graph.tensors[index] for index in graph.inputs),
        outputs=tuple(graph.tensors[index] for index in graph.outputs),
        clients=judge(graph),
        live_bytes=memory.live_bytes,
        arena_bytes=memory.arena_bytes,
        signatures=graph.signatures,
        min_runtime_version=graph.metadata.get(RUNTIME_ENTRY, b"").rstrip(b"\0").decode(errors="replace") or None,
        metadata=read_metadata(content, graph.metadata, name_of(path)),
    )


def _histogram(graph: Graph) -> Counter[str]:
    return Counter(operator.name for operator in graph.operators + graph.called)


def operators(content: bytes) -> Counter[str]:
    """Count the operators of a `.tflite` file by name; custom operators by their own name.

    Args:
        content: The file's bytes.
    """
    return _histogram(read_graph(content))


def check_portable(content: bytes, min_bytes: int) -> None:
    """Refuse a file that was converted but cannot run on phones.

    Args:
        content: The file's bytes.
        min_bytes: Int, size below which the file cannot hold the weights.

    Raises:
        VerificationError: Flex or variable operators, a CAST, or a file without its weights.
    """
    if len(content) < min_bytes:
        raise VerificationError(
            f"The file has {len(content):,} bytes but its weights alone take {min_bytes:,}: the weights are missing."
        )
    for name in operators(content):
        if name.startswith("Flex"):
            raise VerificationError(f"The file needs {name}, a TensorFlow operator that phones do not have.")
        if name in _REFUSED:
            raise VerificationError(f"The file contains {name}: {_REFUSED[name]}.")
