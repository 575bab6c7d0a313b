"""`model.json`: what an app must know to run the `.tflite` files of an export, as one JSON document.

Made from the rows of an export (`of_rows`), or from files and what lies beside them (`of_files`), which needs nothing
but the files: figures are null where no record beside a file has its sha256. `document.ModelDocument` is the document,
field by field. LiteRT's schema; never TensorFlow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_effnet.errors import UserError
from keras_effnet.export.app_bundle.answers import shown
from keras_effnet.export.app_bundle.boxes import box_rule
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
from keras_effnet.export.app_bundle.records import mapping, record_of
from keras_effnet.export.tflite_file.graph import Tensor, content_of
from keras_effnet.export.tflite_file.inspection import Inspection, inspect
from keras_effnet.export.tflite_file.metadata.detector_options import has_post_processing, refuse_post_processing
from keras_effnet.imagenet import readable
from keras_effnet.preprocessing import PIXELS, ImageSpec
from keras_effnet.system.documents import read_lines
from keras_effnet.system.machine import environment
from keras_effnet.system.typed_values import conform
from keras_effnet.tasks import task_of_output
from keras_effnet.tasks.thresholds import THRESHOLDS, read_thresholds

if TYPE_CHECKING:
    from keras_effnet.export.report_rows import ReportRow

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
        record = record_of(path, digest)
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


def files_of(folder: Path) -> list[Path]:
    """The `.tflite` files of an export that apps decode, without those that end in detections."""
    return sorted(path for path in folder.glob("*.tflite") if path.is_file() and not has_post_processing(path))


def class_names(path: str | Path, inspection: Inspection | None = None) -> tuple[str, ...]:
    """Names of a file's classes: those in the file, else those of `labels.txt` beside it, else numbers.

    Args:
        path: Path of a `.tflite` file.
        inspection: Its `Inspection`, if it is at hand.
    """
    found = inspection or inspect(path)
    classes = found.outputs[-1].shape[-1]  # of a detector, the scores
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
    refuse_post_processing(path)
    if len(found.inputs) != 1 or [len(shape) for shape in shapes] != [4, *shown(task, path).ranks]:
        raise UserError(f"{path} is not {kind}: it maps {list(shapes[:1])} to {list(shapes[1:])}.")
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
    classes = files[0].outputs[-1].shape[-1] if files else 0
    boxes = box_rule(files[0].file, found[0]) if task == "detection" else None
    if boxes and len({each.metadata.detector_options if each.metadata else b"" for each in found}) > 1:
        raise UserError(f"The files of {name} have other anchors than {files[0].file}: they are of several networks.")
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
            _resize(spec, task),
        ),
        files=tuple(files),
        recommended=recommended,
        task=task,
        thresholds=tuple(thresholds or [0.5] * classes) if decides else None,
        boxes=boxes,
    )


def _resize(spec: ImageSpec, task: str) -> Resize:
    if task != "detection":
        return Resize(Crop(spec.crop), spec.interpolation)
    letterboxed = spec.fit == "letterbox"
    padding = spec.padding if letterboxed else None
    return Resize(None, spec.interpolation, fit="letterbox" if letterboxed else "stretch", padding=padding)


def _file(name: str, sha256: str, found: Inspection, record: Mapping[str, Any]) -> ModelFile:
    """A file from its contents and the record of its export, which is empty if there is none."""
    metadata = found.metadata
    report, latency = (mapping(record.get(part)) for part in ("report", "latency"))
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
        calibration_images=mapping(record.get("calibration")).get("images"),
        clients=found.clients,
    )


def _port(tensor: Tensor) -> Port:
    return Port(tensor.name, tensor.shape, tensor.dtype, tensor.scale, tensor.zero_point)


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
    more = _fields(report, {"figures": dict[str, float]}) or {"figures": {}}
    return Agreement(found["score"], found["samples"], found["agreement_interval"], found["evidence"], more["figures"])


def _accuracy(report: Mapping[str, Any]) -> Accuracy | None:
    found = _fields(report, _ACCURACY)
    if found is None:
        return None
    five = _fields(report, {"top5_tflite": float}) or {"top5_tflite": None}
    return Accuracy(found["accuracy_tflite"], five["top5_tflite"], found["samples"], found["accuracy_keras"])


def _image_spec(path: Path, found: Inspection) -> ImageSpec:
    """How images are cropped, from `image_spec.json` beside a file if it fits the file, else the whole square."""
    saved, shape = path.with_name("image_spec.json"), found.inputs[0].shape
    if saved.is_file():
        spec = ImageSpec.load(saved)
        if (1, spec.size, spec.size, spec.channels) == tuple(shape):
            return spec
    return ImageSpec.raw(shape)
