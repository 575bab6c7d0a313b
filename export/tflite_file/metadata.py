"""TFLite metadata: what a file says about itself to MediaPipe and other clients. Read with every offset checked.

The description is a flatbuffer in the file's metadata entry `TFLITE_METADATA`; the class names are a text file in a
zip archive behind the model. Pure Python; the `flatbuffers` package only for writing.

Source: metadata schema 1.5.0 (file identifier M001), `metadata_schema.fbs` in google-ai-edge/mediapipe.
"""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from zlib import error as zlib_error

from keras_effnet.export.tflite_file.flatbuffer import MalformedError, Reader, Schema, schema

logger = logging.getLogger(__name__)

ENTRY = "TFLITE_METADATA"
RUNTIME_ENTRY = "min_runtime_version"
RUNTIME_BYTES = 16  # of the entry, padded with zeros
LABELS_FILE = "labels.txt"

_IDENTIFIER = b"M001"
_PARSER = "1.0.0"  # the oldest parser that knows all the fields that are written here
_LABELS_TYPE, _VALUE_LABELS_TYPE = 2, 3  # TENSOR_AXIS_LABELS, TENSOR_VALUE_LABELS
_DETECTOR = "DETECTOR_METADATA"
_IMAGE, _FEATURE, _BOXES = 2, 1, 3  # types of content
_BOUNDARIES = 1  # type of boxes: their edges, in shares of the image
_NORMALIZATION, _THRESHOLD = 1, 3  # types of process units
_COLOR_SPACES = ("UNKNOWN", "RGB", "GRAYSCALE")
_MOST_BYTES = 1 << 24  # of class names; a small archive may unfold to any size

_TABLES = schema(
    """
    ModelMetadata: name:string description:string version:string graphs:[SubGraphMetadata] author:string
        license:string - min_parser_version:string
    SubGraphMetadata: name:string description:string inputs:[TensorMetadata] outputs:[TensorMetadata] - - - - -
        custom:[CustomMetadata]
    CustomMetadata: name:string data:[u8]
    TensorMetadata: name:string description:string - content:Content units:[ProcessUnit] stats:Stats
        files:[AssociatedFile]
    AssociatedFile: name:string description:string type:i8 locale:string
    Content: kind:u8 properties:union range:ValueRange
    ValueRange: min:i32 max:i32
    BoundingBoxProperties: index:[u32] type:i8 coordinates:i8
    FeatureProperties:
    ImageProperties: color_space:i8
    ProcessUnit: kind:u8 options:union
    NormalizationOptions: mean:[f32] std:[f32]
    ScoreThresholdingOptions: threshold:f32
    Stats: max:[f32] min:[f32]
    """
)
_UNIONS = {
    ("Content", _FEATURE): "FeatureProperties",
    ("Content", _IMAGE): "ImageProperties",
    ("Content", _BOXES): "BoundingBoxProperties",
    ("ProcessUnit", _NORMALIZATION): "NormalizationOptions",
    ("ProcessUnit", _THRESHOLD): "ScoreThresholdingOptions",
}
_UNREADABLE = (zipfile.BadZipFile, zlib_error, KeyError, EOFError, OSError, ValueError, RuntimeError, OverflowError)


@dataclass(frozen=True)
class FileMetadata:
    """Metadata of a `.tflite` image classifier. Absent texts are empty.

    Args:
        name, description, version, author, license: Strings.
        input_name, input_description: Strings.
        color_space: `"RGB"`, `"GRAYSCALE"` or `"UNKNOWN"`; None if the input is not declared to be an image.
        mean, std: Tuples of one float or one per channel: clients compute `(pixel - mean) / std`. Empty if absent.
        pixel_range: Smallest and largest value of the input; None if absent.
        output_name, output_description: Strings.
        score_threshold: Float, clients drop classes with a lower score; None if absent.
        labels: Tuple of class names, from the file that belongs to the output.
        more_outputs: Tuple of `(name, description)` of further outputs.
        boxes: Int, number of the output that holds boxes; None if there is none.
        labelled: Int, number of the output that the labels belong to.
        names_values: Bool, whether labels name the values of that output instead of its last axis.
        detector_options: Bytes, the anchors of a detector for MediaPipe, see `tflite_file.detector_options`.
        min_parser_version: String.
    """

    name: str = ""
    description: str = ""
    version: str = ""
    author: str = ""
    license: str = ""
    input_name: str = ""
    input_description: str = ""
    color_space: str | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    pixel_range: tuple[float, float] | None = None
    output_name: str = ""
    output_description: str = ""
    score_threshold: float | None = None
    labels: tuple[str, ...] = ()
    more_outputs: tuple[tuple[str, str], ...] = ()
    boxes: int | None = None
    labelled: int = 0
    names_values: bool = False
    detector_options: bytes = b""
    min_parser_version: str = _PARSER


# ------------------------------------------------------------------ reading


def read_metadata(content: bytes, entries: Mapping[str, bytes], name: str = "The file") -> FileMetadata | None:
    """Read the metadata of a file.

    Args:
        content: The file's bytes.
        entries: The metadata entries of its flatbuffer, `Graph.metadata`.
        name: String, the file's name in the warning about damaged metadata.

    Returns:
        `FileMetadata`, or None if the file has none, or only damaged metadata.
    """
    if ENTRY not in entries:
        return None
    try:
        return _metadata(read_tables(entries[ENTRY]), content)
    except MalformedError as error:
        logger.warning("%s: its metadata is damaged and not used: %s.", name, error)
        return None


def read_tables(metadata: bytes) -> SimpleNamespace:
    """Read the tables of a metadata flatbuffer.

    Raises:
        MalformedError: It violates the format.
    """
    return Reader(metadata, _TABLES, lambda table, field, kind: _UNIONS.get((table, kind), "")).root("ModelMetadata")


def has_normalization(metadata: bytes | None) -> bool:
    """Return whether metadata holds NormalizationOptions for the first input."""
    try:
        image, _ = _ports(read_tables(metadata or b""))
    except MalformedError:
        return False
    return _unit(image, _NORMALIZATION) is not None


def _ports(tables: SimpleNamespace) -> tuple[SimpleNamespace | None, SimpleNamespace | None]:
    """The tables of the first input and of the first output."""
    graph = next(iter(tables.graphs), None)
    return next(iter(graph.inputs if graph else ()), None), next(iter(graph.outputs if graph else ()), None)


def _outputs(tables: SimpleNamespace) -> list[SimpleNamespace]:
    graph = next(iter(tables.graphs), None)
    return list(graph.outputs) if graph else []


def _custom(tables: SimpleNamespace) -> bytes:
    graph = next(iter(tables.graphs), None)
    found = (each for each in (graph.custom if graph else ()) if _text(each.name) == _DETECTOR)
    return next((bytes(each.data) for each in found), b"")


def _label_files(port: SimpleNamespace) -> list[SimpleNamespace]:
    return [file for file in port.files if file.type in (_LABELS_TYPE, _VALUE_LABELS_TYPE) and file.name]


def _unit(port: SimpleNamespace | None, kind: int) -> SimpleNamespace | None:
    units = port.units if port else ()
    return next((unit.options or SimpleNamespace() for unit in units if unit.kind == kind), None)


def _text(value: bytes | None) -> str:
    return value.decode(errors="replace") if value else ""


def _metadata(tables: SimpleNamespace, content: bytes) -> FileMetadata:
    image, scores = _ports(tables)
    shown = image.content if image else None
    color = getattr(shown.properties, "color_space", 0) if shown and shown.kind == _IMAGE else None
    options, threshold = _unit(image, _NORMALIZATION), _unit(scores, _THRESHOLD)
    outputs = _outputs(tables)
    holders = [number for number, port in enumerate(outputs) if _label_files(port)]
    corners = [number for number, port in enumerate(outputs) if port.content and port.content.kind == _BOXES]
    labelled = holders[0] if holders else 0
    stats = image.stats if image else None
    return FileMetadata(
        name=_text(tables.name),
        description=_text(tables.description),
        version=_text(tables.version),
        author=_text(tables.author),
        license=_text(tables.license),
        input_name=_text(image.name) if image else "",
        input_description=_text(image.description) if image else "",
        color_space=None if color is None else _COLOR_SPACES[color] if 0 <= color < len(_COLOR_SPACES) else "UNKNOWN",
        mean=tuple(map(float, getattr(options, "mean", ()))),
        std=tuple(map(float, getattr(options, "std", ()))),
        pixel_range=_range(stats),
        output_name=_text(scores.name) if scores else "",
        output_description=_text(scores.description) if scores else "",
        score_threshold=None if threshold is None else float(getattr(threshold, "threshold", 0.0)),
        labels=_labels(outputs[labelled], content) if holders else (),
        more_outputs=tuple((_text(port.name), _text(port.description)) for port in outputs[1:]),
        boxes=corners[0] if corners else None,
        labelled=labelled,
        names_values=bool(holders) and _label_files(outputs[labelled])[0].type == _VALUE_LABELS_TYPE,
        detector_options=_custom(tables),
        min_parser_version=_text(tables.min_parser_version),
    )


def _range(stats: SimpleNamespace | None) -> tuple[float, float] | None:
    if stats is None or not len(stats.min) or not len(stats.max):
        return None
    return float(min(stats.min)), float(max(stats.max))


def _labels(port: SimpleNamespace, content: bytes) -> tuple[str, ...]:
    """Class names from the archive behind the model; of several files the one without a locale."""
    chosen = min(_label_files(port), key=lambda file: bool(file.locale))
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(_text(chosen.name)) as file:
            text = file.read(_MOST_BYTES + 1)
    except _UNREADABLE:
        return ()
    if len(text) > _MOST_BYTES:
        return ()
    lines = text.decode(errors="replace").removesuffix("\n").split("\n")
    return tuple(line.removesuffix("\r") for line in lines)


# ------------------------------------------------------------------ writing


def metadata_bytes(metadata: FileMetadata) -> bytes:
    """The flatbuffer of a file's metadata. It names the file of class names, which `with_labels` appends."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(written(builder, "ModelMetadata", _values(metadata)), _IDENTIFIER)
    return bytes(builder.Output())


def with_labels(content: bytes, labels: tuple[str, ...]) -> bytes:
    """Append class names to a model as an archive without compression or dates: equal names give equal bytes."""
    entry = zipfile.ZipInfo(LABELS_FILE)  # dated 1980-01-01
    entry.create_system, entry.external_attr = 3, 0o644 << 16
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(entry, "".join(f"{name}\n" for name in labels).encode(errors="backslashreplace"))
    return buffer.getvalue()


def _values(metadata: FileMetadata) -> dict[str, Any]:
    image: dict[str, Any] = {
        "name": metadata.input_name,
        "description": metadata.input_description,
        "content": _content(metadata.color_space),
        "units": [{"kind": _NORMALIZATION, "options": {"mean": metadata.mean, "std": metadata.std}}],
    }
    if metadata.pixel_range:
        low, high = metadata.pixel_range
        image["stats"] = {"min": [low], "max": [high]}
    graph: dict[str, Any] = {"inputs": [image], "outputs": _written_outputs(metadata)}
    if metadata.detector_options:
        graph["custom"] = [{"name": _DETECTOR, "data": metadata.detector_options}]
    return {
        "name": metadata.name,
        "description": metadata.description,
        "version": metadata.version,
        "author": metadata.author,
        "license": metadata.license,
        "graphs": [graph],
        "min_parser_version": metadata.min_parser_version,
    }


def _written_outputs(metadata: FileMetadata) -> list[dict[str, Any]]:
    named = ((metadata.output_name, metadata.output_description), *metadata.more_outputs)
    outputs: list[dict[str, Any]] = [
        {"name": name, "description": description, "content": _content(None)} for name, description in named
    ]
    if metadata.score_threshold is not None:
        outputs[0]["units"] = [{"kind": _THRESHOLD, "options": {"threshold": metadata.score_threshold}}]
    if metadata.boxes is not None:
        # The order of the elements left, top, right, bottom: the tensor has top, left, bottom, right.
        properties = {"index": (1, 0, 3, 2), "type": _BOUNDARIES}
        outputs[metadata.boxes]["content"] = {"kind": _BOXES, "properties": properties}
    if metadata.names_values:  # of each detection; the last output is their number
        for output in outputs[:-1]:
            output["content"]["range"] = {"min": 2, "max": 2}
    if metadata.labels:
        kind = _VALUE_LABELS_TYPE if metadata.names_values else _LABELS_TYPE
        label_file = {"name": LABELS_FILE, "description": "Class names, one a line.", "type": kind}
        outputs[metadata.labelled]["files"] = [label_file]
    return outputs


def _content(color_space: str | None) -> dict[str, Any]:
    if color_space is None:
        return {"kind": _FEATURE, "properties": {}}
    return {"kind": _IMAGE, "properties": {"color_space": _COLOR_SPACES.index(color_space)}}


def written(builder: Any, table: str, values: Mapping[str, Any], tables: Schema = _TABLES) -> int:
    """Write a table and all that it refers to; empty texts are left out. Returns its offset."""
    slots, offsets = [], {}
    for slot, field in enumerate(tables[table]):
        value: Any = values.get(field.name, "") if field else ""
        if field is None or value == "":
            continue
        slots.append((slot, field, value))
        if field.vector:
            offsets[slot] = _vector(builder, field.kind, value, tables)
        elif field.kind == "string":
            offsets[slot] = builder.CreateString(value.encode(errors="backslashreplace"))
        elif field.default is None:
            kind = _UNIONS[table, values["kind"]] if field.kind == "union" else field.kind
            offsets[slot] = written(builder, kind, value, tables)
    prepend = {
        "u8": builder.PrependUint8Slot,
        "i8": builder.PrependInt8Slot,
        "i32": builder.PrependInt32Slot,
        "bool": builder.PrependBoolSlot,
        "f32": builder.PrependFloat32Slot,
    }
    builder.StartObject(len(tables[table]))
    for slot, field, value in slots:
        if slot in offsets:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[slot], 0)
        else:
            prepend[field.kind](slot, value, 0)
    return builder.EndObject()


def _vector(builder: Any, kind: str, values: Any, tables: Schema) -> int:
    if kind == "u8":  # a flatbuffer of its own
        builder.StartVector(1, len(values), 16)
        builder.head -= len(values)
        builder.Bytes[builder.head : builder.head + len(values)] = values
        return builder.EndVector()
    number = {"f32": builder.PrependFloat32, "u32": builder.PrependUint32}.get(kind)
    items = values if number else [written(builder, kind, item, tables) for item in values]
    builder.StartVector(4, len(items), 4)
    for item in reversed(items):
        (number or builder.PrependUOffsetTRelative)(item)
    return builder.EndVector()
