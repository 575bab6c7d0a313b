"""Write the metadata of a `.tflite` file, by the `flatbuffers` package."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

from keras_effnet.export.tflite_file.flatbuffer import Schema
from keras_effnet.export.tflite_file.metadata.tables import (
    BOUNDARIES,
    COLOR_SPACES,
    DETECTOR,
    IDENTIFIER,
    LABELS_FILE,
    TABLES,
    UNIONS,
    Content,
    FileMetadata,
    Labels,
    Unit,
)


def metadata_bytes(metadata: FileMetadata) -> bytes:
    """The flatbuffer of a file's metadata. It names the file of class names, which `with_labels` appends."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(written(builder, "ModelMetadata", _values(metadata)), IDENTIFIER)
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
        "units": [{"kind": Unit.NORMALIZATION, "options": {"mean": metadata.mean, "std": metadata.std}}],
    }
    if metadata.pixel_range:
        low, high = metadata.pixel_range
        image["stats"] = {"min": [low], "max": [high]}
    graph: dict[str, Any] = {"inputs": [image], "outputs": _written_outputs(metadata)}
    if metadata.detector_options:
        graph["custom"] = [{"name": DETECTOR, "data": metadata.detector_options}]
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
        outputs[0]["units"] = [{"kind": Unit.THRESHOLD, "options": {"threshold": metadata.score_threshold}}]
    if metadata.boxes is not None:
        # The order of the elements left, top, right, bottom: the tensor has top, left, bottom, right.
        properties = {"index": (1, 0, 3, 2), "type": BOUNDARIES}
        outputs[metadata.boxes]["content"] = {"kind": Content.BOXES, "properties": properties}
    if metadata.names_values:  # of each detection; the last output is their number
        for output in outputs[:-1]:
            output["content"]["range"] = {"min": 2, "max": 2}
    if metadata.labels:
        kind = Labels.OF_VALUES if metadata.names_values else Labels.OF_AXIS
        label_file = {"name": LABELS_FILE, "description": "Class names, one a line.", "type": kind}
        outputs[metadata.labelled]["files"] = [label_file]
    return outputs


def _content(color_space: str | None) -> dict[str, Any]:
    if color_space is None:
        return {"kind": Content.FEATURE, "properties": {}}
    return {"kind": Content.IMAGE, "properties": {"color_space": COLOR_SPACES.index(color_space)}}


def written(builder: Any, table: str, values: Mapping[str, Any], tables: Schema = TABLES) -> int:
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
            kind = UNIONS[table, values["kind"]] if field.kind == "union" else field.kind
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
