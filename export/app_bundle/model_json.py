"""`model.json`: what an app must know to run the `.tflite` files of an export, as one JSON document.

Made from the rows of an export (`of_rows`), or from files and what lies beside them (`of_files`), which needs nothing
but the files: figures are null where no record beside a file has its sha256. `document.ModelDocument` is the document,
field by field. LiteRT's schema; never TensorFlow.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_effnet.errors import UserError
from keras_effnet.export.app_bundle.answers import shown
from keras_effnet.export.app_bundle.document import (
    LABELS,
    Accuracy,
    Agreement,
    Crop,
    ImageRule,
    ModelDocument,
    ModelFile,
    Normalization,
    Port,
    Resize,
)
from keras_effnet.export.tflite_file.graph import Tensor, content_of
from keras_effnet.export.tflite_file.inspection import Inspection, inspect
from keras_effnet.imagenet import readable
from keras_effnet.preprocessing import PIXELS, ImageSpec
from keras_effnet.system.documents import read_json, read_lines
from keras_effnet.system.machine import environment
from keras_effnet.system.typed_values import conform
from keras_effnet.tasks import task_of_output
from keras_effnet.tasks.thresholds import THRESHOLDS, read_thresholds

if TYPE_CHECKING:
    from keras_effnet.export.report import ReportRow

logger = logging.getLogger(__name__)

_COLORS = {1: "GRAYSCALE", 3: "RGB"}
_MAKERS = {"keras_effnet": "keras-effnet", "keras": "keras", "tensorflow": "tensorflow", "litert": "ai-edge-litert"}
_REPORT = {"samples": int, "score": float, "agreement_interval": tuple[float, float], "evidence": str}
_ACCURACY = {"accuracy_tflite": float, "accuracy_keras": float, "samples": int}


def of_rows(
    rows: Sequence[ReportRow],
    image_spec: ImageSpec,
    *,
    name: str,
    recommended: str | None = None,
    thresholds: Sequence[float] | None = None,
) -> ModelDocument:
    """Describe the files of an export that were kept.

    Args:
        rows: `ReportRow`s of an export; those of refused precisions are left out.
        image_spec: `ImageSpec`.
        name: String.
        recommended: String, name of the recommended file.
        thresholds: Floats, score from which on each label is present; 0.5 by default.
    """
    kept = [file for row in rows if (file := row.kept)]
    files = [
        _file(
            file.export.path.name,
            file.export.sha256,
            file.inspection,
            asdict(file.export) | {"report": asdict(file.report), "latency": asdict(file.latency)},
        )
        for file in kept
    ]
    found = [file.inspection for file in kept]
    return _document(files, found, image_spec, name, recommended, environment(), thresholds)


def of_files(paths: Sequence[str | Path], *, name: str | None = None) -> ModelDocument:
    """Describe `.tflite` files and what lies beside them: `report.json`, records, `image_spec.json`.

    Args:
        paths: Paths of files of one network in one folder; nothing is run.
        name: String, by default the name in the first file's metadata, or else the file's.

    Raises:
        UserError: A file is missing, damaged, or of a task that has nothing to show; there are no files.
    """
    files, found, made_by = [], [], None
    if not paths:
        raise UserError("There are no .tflite files to describe.")
    recommended = None
    for path in map(Path, paths):
        content = content_of(path)
        digest = hashlib.sha256(content).hexdigest()
        inspection = inspect(path)
        _check_shapes(path, inspection)
        record = _record(path, digest)
        files.append(_file(path.name, digest, inspection, record))
        found.append(inspection)
        made_by = made_by or record.get("environment")
        if record.get("recommended") == path.name:
            recommended = path.name
    metadata = found[0].metadata
    name = name or (metadata.name if metadata else "") or files[0].file.removesuffix(".tflite")
    first = Path(paths[0])
    names = class_names(first, found[0]) if (listed := first.with_name(THRESHOLDS)).is_file() else ()
    thresholds = read_thresholds(listed, names) if names else None
    return _document(files, found, _image_spec(first, found[0]), name, recommended, made_by, thresholds)


def class_names(path: str | Path, inspection: Inspection | None = None) -> tuple[str, ...]:
    """Names of a file's classes: those in the file, else those of `labels.txt` beside it, else numbers.

    Args:
        path: Path of a `.tflite` file.
        inspection: Its `Inspection`, if it is at hand.
    """
    found = inspection or inspect(path)
    classes = found.outputs[0].shape[-1]
    labels = Path(path).with_name(LABELS)
    known = [found.metadata.labels] if found.metadata else []
    known += [readable(read_lines(labels))] if labels.is_file() else []
    if classes == 1:  # of two names, the last one is that of the positive class
        known = [names[-1:] for names in known if len(names) <= 2]
    return next((names for names in known if len(names) == classes), tuple(f"class {n}" for n in range(classes)))


def task_of_file(found: Inspection) -> str:
    """Task of a file, from its metadata; classification without."""
    return task_of_output(found.metadata.output_name) if found.metadata else "classification"


def _check_shapes(path: Path, found: Inspection) -> None:
    shapes = [port.signature for port in (*found.inputs, *found.outputs)]
    task = task_of_file(found)
    kind = "an image classifier" if task == "classification" else f"a network for {task} of images"
    ranks = [4, shown(task, path).rank]
    if (len(found.inputs), len(found.outputs)) != (1, 1) or [len(shape) for shape in shapes] != ranks:
        raise UserError(f"{path} is not {kind}: it maps {list(shapes[:-1])} to {list(shapes[-1:])}.")
    if -1 in shapes[0][1:]:
        raise UserError(
            f"{path} takes images of no fixed size, {list(shapes[0])}; convert it with a fixed input shape."
        )


def _document(
    files: Sequence[ModelFile],
    found: Sequence[Inspection],
    spec: ImageSpec,
    name: str,
    recommended: str | None,
    made_by: Any,
    thresholds: Sequence[float] | None = None,
) -> ModelDocument:
    metadata = found[0].metadata if found else None
    task = task_of_file(found[0]) if found else "classification"
    classes = files[0].outputs[0].shape[-1] if files else 0
    decides = shown(task, name).decides
    versions = made_by.get("packages", {}) if isinstance(made_by, Mapping) else {}
    return ModelDocument(
        name=name,
        description=metadata.description if metadata else "",
        license=metadata.license if metadata else "",
        author=metadata.author if metadata else "",
        created_with={name: versions.get(package) for name, package in _MAKERS.items()},
        classes=classes,
        image=ImageRule(
            spec.size,
            spec.size,
            _COLORS.get(spec.channels, "UNKNOWN"),
            PIXELS,
            Resize(Crop(spec.crop), spec.interpolation),
        ),
        files=tuple(files),
        recommended=recommended,
        task=task,
        thresholds=tuple(thresholds or [0.5] * classes) if decides else None,
    )


def _file(name: str, sha256: str, found: Inspection, record: Mapping[str, Any]) -> ModelFile:
    """A file from its contents and the record of its export, which is empty if there is none."""
    metadata = found.metadata
    report, latency = (_mapping(record.get(part)) for part in ("report", "latency"))
    measured = latency.get("median_ms")
    known = isinstance(measured, float)
    return ModelFile(
        file=name,
        precision="mixed" if record.get("quantization") == "mixed" else found.precision,
        bytes=found.size_bytes,
        sha256=sha256,
        inputs=tuple(map(_port, found.inputs)),
        outputs=tuple(map(_port, found.outputs)),
        signature=found.signatures[0].key if found.signatures else None,
        normalization=Normalization(metadata.mean, metadata.std) if metadata and metadata.std else None,
        agreement=_agreement(report),
        accuracy=_accuracy(report),
        latency_ms=measured if known else None,
        latency_cpu=str(latency.get("cpu")) if known else None,
        min_runtime_version=found.min_runtime_version,
        calibration_images=_mapping(record.get("calibration")).get("images"),
        clients=found.clients,
    )


def _port(tensor: Tensor) -> Port:
    return Port(tensor.name, tensor.shape, tensor.dtype, tensor.scale, tensor.zero_point)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _fields(report: Mapping[str, Any], hints: Mapping[str, Any]) -> dict[str, Any] | None:
    """The fields of a report that have the expected types; None if one has not, as in a damaged record."""
    try:
        return {name: conform(report.get(name), hint, name) for name, hint in hints.items()}
    except UserError:
        return None


def _agreement(report: Mapping[str, Any]) -> Agreement | None:
    found = _fields(report, _REPORT)
    if found is None:
        return None
    return Agreement(found["score"], found["samples"], found["agreement_interval"], found["evidence"])


def _accuracy(report: Mapping[str, Any]) -> Accuracy | None:
    found = _fields(report, _ACCURACY)
    if found is None:
        return None
    five = _fields(report, {"top5_tflite": float}) or {"top5_tflite": None}
    return Accuracy(found["accuracy_tflite"], five["top5_tflite"], found["samples"], found["accuracy_keras"])


def _record(path: Path, sha256: str) -> dict[str, Any]:
    """What the export recorded of a file: its row of `report.json`, completed from its own record; {} if nothing.

    A record of another sha256 is that of another file, such as one that was replaced by hand.
    """
    merged: dict[str, Any] = {}
    own = _read(path.with_suffix(".json"))
    if own.get("sha256") == sha256:
        merged |= own
    report = _read(path.with_name("report.json"))
    for row in _rows(report):
        if _mapping(row.get("export")).get("sha256") == sha256:
            merged |= {key: row[key] for key in ("quantization", "report", "latency") if key in row}
            merged["recommended"] = report.get("recommended")
    return merged


def _rows(report: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    rows = report.get("rows")
    return (row for row in (rows if isinstance(rows, list) else []) if isinstance(row, Mapping))


def _read(path: Path) -> Mapping[str, Any]:
    """A JSON object beside a file; empty if there is none, with a warning if it is damaged."""
    if not path.is_file():
        return {}
    try:
        return _mapping(read_json(path))
    except UserError as error:
        logger.warning("Not used: %s", error)
        return {}


def _image_spec(path: Path, found: Inspection) -> ImageSpec:
    """How images are cropped, from `image_spec.json` beside a file if it fits the file, else the whole square."""
    saved, shape = path.with_name("image_spec.json"), found.inputs[0].shape
    if saved.is_file():
        spec = ImageSpec.load(saved)
        if (1, spec.size, spec.size, spec.channels) == tuple(shape):
            return spec
    return ImageSpec.raw(shape)
