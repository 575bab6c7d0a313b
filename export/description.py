"""Describing a `.tflite` file to its clients: metadata, class names, a signature, and the runtime that it needs.

LiteRT's schema; never TensorFlow.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import keras_effnet
from keras_effnet.errors import UserError
from keras_effnet.export.outputs import Outputs, Port
from keras_effnet.export.tflite_file.graph import read_graph
from keras_effnet.export.tflite_file.metadata.detector_options import client_options
from keras_effnet.export.tflite_file.metadata.reading import read_metadata
from keras_effnet.export.tflite_file.metadata.tables import ENTRY, RUNTIME_BYTES, RUNTIME_ENTRY, FileMetadata
from keras_effnet.export.tflite_file.metadata.writing import metadata_bytes, with_labels
from keras_effnet.export.tflite_file.runtime_versions import min_runtime_version
from keras_effnet.export.tflite_file.schema import add_buffer, buffer, operator_name, pack, parse, tensor_dtype
from keras_effnet.imagenet import imagenet_classes, readable
from keras_effnet.system.documents import read_lines

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT

SIGNATURE, INPUT = "serving_default", "image"
_SCORES = {"SOFTMAX": "Probabilities of the classes, sum 1.", "LOGISTIC": "Probability of each class, 0 to 1."}
_COLOR_SPACES = {1: "GRAYSCALE", 3: "RGB"}


@dataclass(frozen=True)
class About:
    """Description of a network, written into the metadata of its files. Empty texts are left out.

    Args:
        name: String; by default the model's name.
        description: String; by default the number of classes and the size of the images.
        version: String; by default the version of this package.
        author, license: Strings.
        class_names: Sequence of strings, what people call the classes; by default the labels, with ImageNet's WordNet
            ids replaced by names.
    """

    name: str = ""
    description: str = ""
    version: str = ""
    author: str = ""
    license: str = ""
    class_names: Sequence[str] = ()

    def completed(self, name: str, classes: int, labels: Sequence[str] | None) -> About:
        """Fill in the name and the class names.

        Raises:
            UserError: The number of class names is not that of the classes.
        """
        names = output_names(self.class_names or readable(labels or ()), classes)
        if names and len(names) != classes:
            raise UserError(f"{len(names)} class names for a model of {classes} classes.")
        return replace(self, name=self.name or name, class_names=names)


def output_names(names: Sequence[str], outputs: int) -> Sequence[str]:
    """Names of the outputs: of two classes that one output tells apart, the second, whose score it is."""
    return names[1:] if outputs == 1 and len(names) == 2 else names


def read_class_names(path: str | Path, labels: Sequence[str] | None, classes: int) -> tuple[str, ...]:
    """Read class names from a file of one name a line, or from a CSV file of `label,name`.

    Args:
        path: Path of the file. A `.csv` may have a header and more classes than the network.
        labels: Class labels in the order of training, such as WordNet ids.
        classes: Int, number of classes.

    Raises:
        UserError: The file is missing, lacks a class or has an empty name, or the number of lines is wrong.
    """
    lines = read_lines(path)
    if Path(path).suffix.lower() != ".csv":
        if len(lines) != classes:
            raise UserError(f"{path} has {len(lines)} names, but the model has {classes} classes: one name a line.")
        names = [line.strip() for line in lines]
    else:
        try:
            table = {row[0].strip(): row[1].strip() for row in csv.reader(lines, strict=True) if len(row) > 1}
        except csv.Error as error:
            raise UserError(f"{path} is not a CSV file: {error}.") from None
        keys = _keys(labels, table)
        if missing := [key for key in keys if key not in table]:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UserError(f"{path} has no name for class {missing[0]!r}{more}; its lines must be label,name.")
        if not keys:
            raise UserError(f"{path} names classes by label, but the model's labels are unknown: give one name a line.")
        names = [table[key] for key in keys]
    if "" in names:
        raise UserError(f"{path} has an empty name for class {names.index('')}.")
    return tuple(names)


def _keys(labels: Sequence[str] | None, table: dict[str, str]) -> Sequence[str]:
    """Keys of the classes in a table: their labels, or the WordNet ids where the labels are ImageNet's names."""
    wnids = [wnid for wnid, _ in imagenet_classes()]
    published = tuple(labels or ()) == readable(wnids)
    return wnids if published and wnids[0] in table else labels or ()


def describe(content: bytes, about: About, outputs: Outputs) -> bytes:
    """Write metadata, a signature and the oldest runtime into a file. Equal arguments give equal bytes.

    Args:
        content: Bytes of a file with one image as input, pixels in 0..255.
        about: A completed `About`.
        outputs: `Outputs` of the network.
    """
    model = parse(content)
    return _with_metadata(model, _metadata(model, about, outputs), outputs.ports)


def described_again(content: bytes, original: bytes, ports: Sequence[Port]) -> bytes:
    """Describe a file that was made from another by the other's metadata, with outputs of its own.

    Args:
        content: Bytes of the file.
        original: Bytes of the file that it was made from.
        ports: What it returns: detections, see `detection.post_processing`.
    """
    model = parse(content)
    known = read_metadata(original, read_graph(original).metadata) or FileMetadata()
    return _with_metadata(model, replace(known, detector_options=b"", **_ports(ports)), ports)


def _with_metadata(model: ModelT, metadata: FileMetadata, ports: Sequence[Port]) -> bytes:
    model.signatureDefs = [_signature(model, [port.name for port in ports])]
    runtime = min_runtime_version(model)
    _set_entry(model, RUNTIME_ENTRY, runtime.encode().ljust(RUNTIME_BYTES, b"\0") if runtime else None)
    _set_entry(model, ENTRY, metadata_bytes(metadata))
    packed = pack(model)
    return with_labels(packed, metadata.labels) if metadata.labels else packed


def _signature(model: ModelT, outputs: Sequence[str]):
    from ai_edge_litert import schema_py_generated as schema

    def port(name: str, index: int):
        made = schema.TensorMapT()
        made.name, made.tensorIndex = name.encode(), int(index)
        return made

    graph, signature = model.subgraphs[0], schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = SIGNATURE.encode(), 0
    signature.inputs, signature.outputs = [port(INPUT, graph.inputs[0])], list(map(port, outputs, graph.outputs))
    return signature


def _set_entry(model: ModelT, name: str, value: bytes | None) -> None:
    """Set a metadata entry of a file; None removes it."""
    from ai_edge_litert import schema_py_generated as schema

    entries = {entry.name: entry for entry in model.metadata or ()}
    entry = entries.pop(name.encode(), None)
    if value is not None:
        values = np.frombuffer(value, "uint8")
        if entry is None:
            entry = schema.MetadataT()
            entry.name, entry.buffer = name.encode(), add_buffer(model, values)
        else:
            model.buffers[entry.buffer] = buffer(values)
        entries[name.encode()] = entry
    model.metadata = list(entries.values())


def _metadata(model: ModelT, about: About, outputs: Outputs) -> FileMetadata:
    graph = model.subgraphs[0]
    _, height, width, channels = map(int, graph.tensors[graph.inputs[0]].shape)
    ports = [
        replace(port, description=_SCORES.get(_maker(model, int(index)), port.description))
        for port, index in zip(outputs.ports, graph.outputs, strict=True)
    ]
    kind = _maker(model, int(graph.outputs[0]))
    detector = outputs.each[0].detector
    scale, zero_point = _pixel_scale(model)
    size = f"{width}x{height} pixels"
    return FileMetadata(
        name=about.name,
        description=about.description or f"{_subject(model, outputs)} for images of {size}.",
        version=about.version or f"keras_effnet {keras_effnet.__version__}",
        author=about.author,
        license=about.license,
        input_name=INPUT,
        input_description=f"Image of {size}, values 0 to 255.",
        color_space=_COLOR_SPACES.get(channels, "UNKNOWN"),
        mean=(zero_point,),
        std=(1 / scale,),
        pixel_range=(0.0, 255.0),
        score_threshold=0.0 if kind in _SCORES else None,  # logits may be negative
        labels=tuple(about.class_names),
        detector_options=client_options(detector, (height, width)) if detector else b"",
        **_ports(ports),
    )


def _ports(ports: Sequence[Port]) -> dict[str, Any]:
    """The arguments of `FileMetadata` about a file's outputs."""
    first, *others = [(port.known_as or port.name, port.description) for port in ports]
    kinds = [port.kind for port in ports]
    return {
        "output_name": first[0],
        "output_description": first[1],
        "more_outputs": tuple(others),
        "boxes": kinds.index("corners") if "corners" in kinds else None,
        "labelled": next((place for place, kind in enumerate(kinds) if kind in ("axis", "values")), 0),
        "names_values": "values" in kinds,
    }


def _subject(model: ModelT, outputs: Outputs) -> str:
    """What a file is, in words; the last tensor of an output has its classes."""
    graph, subjects, end = model.subgraphs[0], [], 0
    for output in outputs.each:
        end += len(output.ports)
        classes = int(graph.tensors[graph.outputs[end - 1]].shape[-1])
        subjects.append(output.task.subject.format(classes=f"{classes:,}"))
    return " and ".join(subjects)


def _pixel_scale(model: ModelT) -> tuple[float, float]:
    """Scale and zero point with which a file turns raw bytes into its input values; 1 and 0 for float input.

    An input of bytes may express the network's normalization in this way: no operator then computes it.
    """
    index = model.subgraphs[0].inputs[0]
    quantization = model.subgraphs[0].tensors[index].quantization
    if tensor_dtype(model, index) != "uint8" or quantization is None or quantization.scale is None:
        return 1.0, 0.0
    return float(quantization.scale[0]), float(quantization.zeroPoint[0])


def _maker(model: ModelT, index: int) -> str:
    """Name of the operator that computes a tensor, not counting a conversion to float."""
    graph = model.subgraphs[0]
    makers = {int(index): operator for operator in graph.operators for index in operator.outputs}
    while index in makers:
        name = operator_name(model, makers[index])
        if name not in ("DEQUANTIZE", "QUANTIZE"):
            return name
        index = int(makers[index].inputs[0])
    return ""
