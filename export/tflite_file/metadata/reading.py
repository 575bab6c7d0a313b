"""Read the metadata of a `.tflite` file, with every offset checked."""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Mapping
from types import SimpleNamespace
from zlib import error as zlib_error

from keras_effnet.export.tflite_file.flatbuffer import MalformedError, Reader
from keras_effnet.export.tflite_file.metadata.tables import (
    COLOR_SPACES,
    DETECTOR,
    ENTRY,
    TABLES,
    UNIONS,
    Content,
    FileMetadata,
    Labels,
    Unit,
)

logger = logging.getLogger(__name__)

_MOST_BYTES = 1 << 24  # of class names; a small archive may unfold to any size
_UNREADABLE = (zipfile.BadZipFile, zlib_error, KeyError, EOFError, OSError, ValueError, RuntimeError, OverflowError)


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
    return Reader(metadata, TABLES, lambda table, field, kind: UNIONS.get((table, kind), "")).root("ModelMetadata")


def has_normalization(metadata: bytes | None) -> bool:
    """Return whether metadata holds NormalizationOptions for the first input."""
    try:
        image, _ = _ports(read_tables(metadata or b""))
    except MalformedError:
        return False
    return _unit(image, Unit.NORMALIZATION) is not None


def _ports(tables: SimpleNamespace) -> tuple[SimpleNamespace | None, SimpleNamespace | None]:
    """The tables of the first input and of the first output."""
    graph = next(iter(tables.graphs), None)
    return next(iter(graph.inputs if graph else ()), None), next(iter(graph.outputs if graph else ()), None)


def _outputs(tables: SimpleNamespace) -> list[SimpleNamespace]:
    graph = next(iter(tables.graphs), None)
    return list(graph.outputs) if graph else []


def _custom(tables: SimpleNamespace) -> bytes:
    graph = next(iter(tables.graphs), None)
    found = (each for each in (graph.custom if graph else ()) if _text(each.name) == DETECTOR)
    return next((bytes(each.data) for each in found), b"")


def _label_files(port: SimpleNamespace) -> list[SimpleNamespace]:
    return [file for file in port.files if file.type in (Labels.OF_AXIS, Labels.OF_VALUES) and file.name]


def _unit(port: SimpleNamespace | None, kind: int) -> SimpleNamespace | None:
    units = port.units if port else ()
    return next((unit.options or SimpleNamespace() for unit in units if unit.kind == kind), None)


def _text(value: bytes | None) -> str:
    return value.decode(errors="replace") if value else ""


def _metadata(tables: SimpleNamespace, content: bytes) -> FileMetadata:
    image, scores = _ports(tables)
    shown = image.content if image else None
    color = getattr(shown.properties, "color_space", 0) if shown and shown.kind == Content.IMAGE else None
    options, threshold = _unit(image, Unit.NORMALIZATION), _unit(scores, Unit.THRESHOLD)
    outputs = _outputs(tables)
    holders = [number for number, port in enumerate(outputs) if _label_files(port)]
    corners = [number for number, port in enumerate(outputs) if port.content and port.content.kind == Content.BOXES]
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
        color_space=None if color is None else COLOR_SPACES[color] if 0 <= color < len(COLOR_SPACES) else "UNKNOWN",
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
        names_values=bool(holders) and _label_files(outputs[labelled])[0].type == Labels.OF_VALUES,
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
