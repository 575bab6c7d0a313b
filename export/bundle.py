"""Export of several precisions into one folder, with labels and a report that recommends a file. TensorFlow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import keras
import numpy as np

from keras_effnet.architecture.detector_files import DETECTOR_JSON, save_detector
from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.errors import UserError, VerificationError
from keras_effnet.export.acceptance import ExportCandidate
from keras_effnet.export.app_bundle.answers import Shown, shown
from keras_effnet.export.app_bundle.model_json import of_rows
from keras_effnet.export.app_bundle.sample_image import choose, png, read_sample
from keras_effnet.export.app_bundle.writing import BUNDLE, check_absent, fill
from keras_effnet.export.calibration import Images
from keras_effnet.export.candidate_trial import keep, try_precision
from keras_effnet.export.choices import DEFAULT_QUANTIZATIONS, InputType, Int8Method, Quantization
from keras_effnet.export.conversion.structure import plain
from keras_effnet.export.description import About
from keras_effnet.export.finetune.parent import FineTuning
from keras_effnet.export.measure.latency import benchmark_in_turn
from keras_effnet.export.measure.memory import peak_memory
from keras_effnet.export.outputs import Outputs, Tasks, class_count
from keras_effnet.export.recipes import BUDGETED, PRECISIONS, Settings
from keras_effnet.export.report import recommend_precision, recommended_file, write_export_report
from keras_effnet.export.report_rows import ReportRow
from keras_effnet.export.tflite import check_arguments, prepare_inputs
from keras_effnet.export.tflite_file.inspection import inspect
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.system.documents import json_text
from keras_effnet.system.files import atomic_group
from keras_effnet.tasks.recognition import is_detector
from keras_effnet.tasks.thresholds import THRESHOLDS, write_thresholds

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bundle:
    """Result of `write_bundle`.

    Args:
        folder: Path.
        rows: Tuple of `ReportRow`s, one per precision.
        recommendation: String, one sentence.
        recommended: String, name of the recommended file, or None.
    """

    folder: Path
    rows: tuple[ReportRow, ...]
    recommendation: str
    recommended: str | None = None

    @property
    def refused(self) -> tuple[ReportRow, ...]:
        """Rows of the precisions that were not written."""
        return tuple(row for row in self.rows if row.refused)

    def raise_if_refused(self) -> None:
        """Raise `VerificationError` with all reasons if a precision was refused; the other files are kept."""
        if self.refused:
            raise VerificationError(" ".join(dict.fromkeys(row.refused for row in self.refused)))

    def to_json(self) -> str:
        """The whole bundle as indented JSON; a value that is not finite is null."""
        return json_text(asdict(self))


def _row(
    trial: ExportCandidate, path: Path, staged: Path, labels: Sequence[str] | None, allow_degraded: bool
) -> ReportRow:
    """Write the file of a trial to a temporary folder, or record why it is refused."""
    row = ReportRow(trial.quantization, trial.report, trial.layers, attempts=trial.attempts, swishes=trial.swishes)
    if not (trial.passed or allow_degraded):
        refused = trial.complaint + " Not written."
        return replace(row, refused=refused)
    warning = "" if trial.passed else trial.complaint
    return replace(row, export=keep(trial, path, staged, labels), warning=warning, doubt=trial.doubt)


def _measured(rows: Sequence[ReportRow], staged: Path) -> list[ReportRow]:
    """Add latency, memory and inspection to the rows; files are timed in alternation under equal load."""
    kept = {row.quantization: staged / row.export.path.name for row in rows if row.export}
    latencies = dict(zip(kept, benchmark_in_turn(list(kept.values())), strict=True))
    return [
        replace(row, latency=latencies[row.quantization], memory_mb=_memory(path), inspection=inspect(path))
        if (path := kept.get(row.quantization))
        else row
        for row in rows
    ]


def _memory(path: Path) -> float | None:
    try:
        return peak_memory(path)
    except UserError:  # the system does not report memory
        return None


def write_bundle(
    model: keras.Model,
    folder: str | Path,
    quantizations: Sequence[Quantization] = DEFAULT_QUANTIZATIONS,
    *,
    held_out: Images | None,
    calibration: Images | None = None,
    name: str = "model",
    input_type: InputType = "float32",
    method: Int8Method | None = None,
    float_blocks: Sequence[str] = (),
    tuning: FineTuning | None = None,
    training_samples: int = 1000,
    min_agreement: float | None = None,
    budget: float | None = None,
    task: Tasks | None = None,
    detector: DetectorSpec | None = None,
    labels: Sequence[str] | None = None,
    about: About | None = None,
    image_spec: ImageSpec | None = None,
    image_size: int | None = None,
    samples: int = 100,
    seed: int = 0,
    overwrite: bool = False,
    allow_degraded: bool = False,
    notes: Sequence[str] = (),
    app_bundle: bool = False,
    test_images: Images | None = None,
    thresholds: Sequence[float] | None = None,
    announce: Callable[[str], None] = lambda step: None,
) -> Bundle:
    """Export several precisions, compare each with the model on held-out images, measure them, and write a report.

    All precisions share one float conversion, and the integer ones one calibration. A refused precision does not stop
    the others; its row gives the reason. All files of the folder appear together at the end, or none.

    Args:
        model: Functional Keras model.
        folder: Folder for `NAME_PRECISION.tflite`, a `.json` record of each, `labels.txt`, `image_spec.json`,
            `report.html`, `report.md`, `report.json`, `precisions.png`, `layers.png` and `converter.log`.
        quantizations: Names of precisions.
        held_out: Images to compare on, like `verification` of `export_tflite`.
        calibration: Images for the integer precisions.
        name: String, prefix of the file names.
        input_type: `"float32"` or `"uint8"`, for the precisions that support bytes.
        method: The only int8 method to try, as in `export_tflite`.
        float_blocks: Float blocks of the mixed file, as in `export_tflite`.
        tuning, training_samples, min_agreement, budget, task, detector, labels, about, image_spec, image_size, samples,
            seed, overwrite: As in `export_tflite`. A detector's spec is also written, to `detector.json`.
        allow_degraded: Bool, as in `export_tflite`.
        notes: Sentences for the report, such as how the model was changed before export.
        app_bundle: Bool, whether to write the folder `bundle` too, which an app can be built from: the files, class
            names, `model.json`, a model card, a test image, an Android project and example code.
        test_images: Path of the bundle's test image, or images to choose one from that the network is sure of; by
            default the bundle has none. The image travels in the bundle, as a PNG without metadata.
        thresholds: Floats in [0, 1], probability from which on each label is present, for apps and pages, written to
            `thresholds.csv`; 0.5 by default.
        announce: Called with a line of text before each step.

    Returns:
        A `Bundle`.

    Raises:
        UserError: Wrong arguments, implausible images, or a folder that cannot be written.
    """
    folder, model = Path(folder), plain(model, image_size)
    paths = {quantization: folder / f"{name}_{quantization}.tflite" for quantization in quantizations}
    settings = {
        quantization: Settings(
            input_type=input_type if PRECISIONS[quantization].takes_bytes else "float32",
            method=method if quantization == "int8" else None,
            float_blocks=tuple(float_blocks) if quantization == "mixed" else (),
            tuning=tuning,
            budget=budget if quantization in BUDGETED else None,
            announce=announce,
        )
        for quantization in quantizations
    }
    _check_used(
        "input_type", input_type, input_type == "float32", any(PRECISIONS[q].takes_bytes for q in quantizations)
    )
    _check_used("method", method, method is None, "int8" in quantizations)
    _check_used("budget", budget, budget is None, any(q in BUDGETED for q in quantizations))
    _check_used("float_blocks", tuple(float_blocks), not float_blocks, "mixed" in quantizations)
    for quantization, path in paths.items():
        check_arguments(model, path, quantization, calibration, settings[quantization], labels, overwrite)
    spec = image_spec or ImageSpec.of_model(model)
    if spec.fit == "crop" and is_detector(model):
        spec = replace(spec, fit="stretch")  # boxes belong to whole images
    meaning = shown(Outputs.of(model, task, detector).only.task.name, name) if app_bundle else None
    if thresholds is not None and len(thresholds) != len(labels or ()):
        raise UserError(f"{len(thresholds)} thresholds for {len(labels or ())} labels: name each label once.")
    sample = _check_app_bundle(folder, spec, test_images, overwrite) if app_bundle else None
    about = (about or About()).completed(name, class_count(model), labels)
    announce("Reading images")
    trained_on = training_samples if method == "qat" else 0
    source, reference = prepare_inputs(model, calibration, held_out, spec, samples, seed, trained_on, task, detector)
    rows: list[ReportRow] = []
    log: list[str] = []
    with atomic_group(folder) as staged:
        for quantization, path in paths.items():
            announce(f"Exporting {quantization}")
            try:
                trial = try_precision(source, reference, quantization, settings[quantization], min_agreement, about)
            except VerificationError as error:
                rows.append(ReportRow(quantization, refused=str(error)))
                continue
            log += [f"[{quantization}] {line}" for line in trial.log]
            rows.append(_row(trial, path, staged, labels, allow_degraded))

        if source.remark:
            logger.warning(source.remark)
        announce("Measuring time and memory")
        rows = _measured(rows, staged)
        best = recommended_file(rows)
        bundle = Bundle(folder, tuple(rows), recommend_precision(rows), best.export.path.name if best else None)
        spec.save(staged / "image_spec.json")
        if detector is not None:
            save_detector(detector, staged / DETECTOR_JSON)
        (staged / "converter.log").write_text("".join(f"{line}\n" for line in log), encoding="utf-8")
        remarks = [*notes, *filter(None, [reference.remark, source.remark])]
        write_export_report(staged, name, rows, bundle.recommendation, remarks)
        (staged / "report.json").write_text(bundle.to_json() + "\n", encoding="utf-8")
        if thresholds is not None:
            write_thresholds(staged / THRESHOLDS, labels or (), thresholds)
        if meaning and any(row.export for row in rows):
            announce("Writing the app bundle")
            document = of_rows(rows, spec, name=name, recommended=bundle.recommended, thresholds=thresholds)
            sample = sample or _chosen_image(source.model, test_images, spec, seed, meaning)
            fill(staged / BUNDLE, document, staged, sample)
    return bundle


def _check_app_bundle(folder: Path, spec: ImageSpec, test_images: Images | None, overwrite: bool) -> bytes | None:
    """Check what would prevent a bundle before the long conversion; returns the test image if it is a file."""
    check_absent(folder / BUNDLE, overwrite)
    if spec.channels != 3:
        raise UserError(
            f"A bundle is for RGB images, but the network takes {spec.channels} channels: export without it."
        )
    if isinstance(test_images, (str, Path)) and not Path(test_images).is_dir():
        return png(read_sample(test_images), spec.size)
    return None


def _chosen_image(model: keras.Model, source: Images | None, spec: ImageSpec, seed: int, rule: Shown) -> bytes | None:
    """PNG of an image that the network is sure of; None without images, or if it is right about none."""
    if source is None:
        return None

    def predict(pixels: np.ndarray) -> np.ndarray:
        found = model.predict(pixels, batch_size=8, verbose=0)
        return found["scores"] if is_detector(model) else found

    chosen = choose(predict, source, spec, seed, rule)
    return None if chosen is None else png(chosen, spec.size)


def _check_used(argument: str, value: object, is_default: bool, useful: bool) -> None:
    if not (is_default or useful):
        raise UserError(f"{argument}={value!r} applies to none of the requested precisions.")
