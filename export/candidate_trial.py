"""Making, checking, running and comparing the file of one precision, and writing it if it is accepted. TensorFlow."""

from __future__ import annotations

import gzip
import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from keras_effnet.errors import VerificationError
from keras_effnet.export.acceptance import Attempt, ExportCandidate
from keras_effnet.export.calibration import fingerprint
from keras_effnet.export.conversion.float_graph import weight_count
from keras_effnet.export.conversion.source import ExportSource
from keras_effnet.export.description import About, describe
from keras_effnet.export.int8.layer_errors import LayerError, measure_layer_errors
from keras_effnet.export.int8.swish_profile import SwishProfile, profile_swishes
from keras_effnet.export.measure.cpu_time import time_ratios
from keras_effnet.export.measure.verify_report import VerifyReport
from keras_effnet.export.recipes import BUDGETED, Candidate, Precision, Settings, check_settings
from keras_effnet.export.tflite_file.inspection import check_portable
from keras_effnet.export.tflite_file.interpreter import CannotRunError, TFLiteModel
from keras_effnet.export.verification import Reference
from keras_effnet.system.documents import json_text
from keras_effnet.system.machine import environment
from keras_effnet.system.output import captured_output


@dataclass(frozen=True)
class ExportResult:
    """A written file and the evidence that it works.

    Everything except the log is also saved as JSON beside the file, under the same name.

    Args:
        path: Path of the `.tflite` file.
        size_bytes: Int.
        compressed_bytes: Int, size after gzip, about the size of a download.
        quantization: String.
        method: String, the method that passed: int8 tries `"corrected"`, `"minmax"`, `"percentile"`, `"fitted"` and
            `"equalized"` in turn; for mixed files what computes in int8 or in float.
        input_type: String.
        sha256: String.
        seconds: Float, conversion and verification together.
        report: `VerifyReport`.
        layers: Tuple of `LayerError`s in execution order.
        calibration: Dict with the number and the sha256 of the calibration images and the places of those left out, or
            None if none were used.
        log: Tuple of lines that the converter printed.
        attempts: Tuple of an `Attempt` for each method that was tried, fastest files first; empty if there was one.
        swishes: Tuple of a `SwishProfile` for each swish of an int8 or mixed file.
    """

    path: Path
    size_bytes: int
    compressed_bytes: int
    quantization: str
    method: str
    input_type: str
    sha256: str
    seconds: float
    report: VerifyReport
    layers: tuple[LayerError, ...] = ()
    calibration: dict[str, object] | None = None
    log: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    swishes: tuple[SwishProfile, ...] = ()


def try_precision(
    source: ExportSource,
    reference: Reference,
    quantization: str,
    settings: Settings,
    min_agreement: float | None = None,
    about: About | None = None,
) -> ExportCandidate:
    """Make the file of a precision, check that phones can run it, run it and compare it with the model.

    Args:
        source: `ExportSource`, whose conversions all precisions share.
        reference: `Reference`.
        quantization: String.
        settings: `Settings`.
        min_agreement: Float in [0, 1], replaces the recipe's bound.
        about: A completed `About`, for the file's metadata.

    Raises:
        VerificationError: The file cannot run on phones, or lacks its weights.
    """
    started = time.perf_counter()
    recipe = check_settings(quantization, settings).with_min_agreement(min_agreement)
    # Calibration images are unseen by a file that was not calibrated.
    uncalibrated = reference.evidence == "calibration" and not recipe.needs_calibration
    about = about or About(source.model.name)
    compared_on = replace(reference, evidence="held-out") if uncalibrated else reference
    tried: list[tuple[Candidate, VerifyReport]] = []
    log: list[str] = []
    candidates = recipe.candidates(source, settings)
    while settings.budget is not None or not (tried and recipe.meets(tried[-1][1])):
        try:
            with captured_output() as lines:
                candidate = next(candidates, None)
            log += lines
            if candidate is None:
                break
            settings.announce(f"Running the {quantization} file ({candidate.method})")
            # The file that is run is the one that is written.
            candidate = candidate._replace(content=describe(candidate.content, about, source.outputs))
            check_portable(candidate.content, int(weight_count(source.model) * recipe.weight_bytes))
            tried.append((candidate, compared_on.compare(TFLiteModel(candidate.content))))
        except CannotRunError as error:
            raise VerificationError(f"{error} Not written.") from None
    plain = source.graph(settings.input_type)
    attempts = _attempts(plain.content, tried) if len(tried) > 1 or settings.budget is not None else ()
    if settings.budget is None:
        candidate, report = max(tried, key=lambda each: _rank(recipe, each[1]))
    else:
        candidate, report = _best_within(settings.budget, tried, attempts)
    first, layers = tried[0][0], measure_layer_errors(candidate.content, candidate.graph, reference.images)
    swishes: tuple[SwishProfile, ...] = ()
    if quantization in BUDGETED:
        before = layers if first is candidate else measure_layer_errors(first.content, first.graph, reference.images)
        swishes = profile_swishes(source.calibrated(settings.input_type), before, layers)
    return ExportCandidate(
        quantization=quantization,
        recipe=recipe,
        settings=settings,
        candidate=candidate,
        report=report,
        layers=layers,
        calibration=_calibration(source) if recipe.needs_calibration else None,
        log=tuple(log),
        seconds=time.perf_counter() - started,
        attempts=attempts,
        swishes=swishes,
    )


def _calibration(source: ExportSource) -> dict[str, object]:
    return {**fingerprint(source.images), "left_out": sorted(source.left_out)}


def _best_within(
    budget: float, tried: Sequence[tuple[Candidate, VerifyReport]], attempts: Sequence[Attempt]
) -> tuple[Candidate, VerifyReport]:
    """The file within a budget of time with the highest SQNR on the calibration images; the fastest if none is within.

    The images to compare on do not choose: their agreement stays unbiased.
    """
    timed = list(zip(tried, attempts, strict=True))
    within = [each for each, attempt in timed if attempt.time_ratio <= budget]
    if not within:
        return min(timed, key=lambda pair: pair[1].time_ratio)[0]
    graph = within[0][0].graph
    answers = TFLiteModel(graph.content).predict(graph.inputs(graph.calibration))

    def fidelity(each: tuple[Candidate, VerifyReport]) -> float:
        return graph.outputs.sqnr_db(answers, TFLiteModel(each[0].content).predict(graph.calibration))

    return max(within, key=fidelity)


def _attempts(float32: bytes, tried: Sequence[tuple[Candidate, VerifyReport]]) -> tuple[Attempt, ...]:
    """Time all files that were tried, in turn with the float32 file."""
    _, *ratios = time_ratios([float32, *(candidate.content for candidate, _ in tried)])
    return tuple(
        Attempt(candidate.method, report.agreement, report.sqnr_db, ratio)
        for (candidate, report), ratio in zip(tried, ratios, strict=True)
    )


def _rank(recipe: Precision, report: VerifyReport) -> tuple[float, ...]:
    return recipe.meets(report), recipe.accepts(report), report.score, report.sqnr_db


def keep(trial: ExportCandidate, path: Path, folder: Path, labels: Sequence[str] | None = None) -> ExportResult:
    """Write the file of a trial, its JSON record and the class names.

    Args:
        trial: `ExportCandidate`.
        path: Final path of the file.
        folder: Folder to write to, from which `files.atomic_group` moves all files.
        labels: Class names.
    """
    content = trial.candidate.content
    result = ExportResult(
        path=path,
        size_bytes=len(content),
        compressed_bytes=compressed_size(content),
        quantization=trial.quantization,
        method=trial.candidate.method,
        input_type=trial.settings.input_type,
        sha256=hashlib.sha256(content).hexdigest(),
        seconds=trial.seconds,
        report=trial.report,
        layers=trial.layers,
        calibration=trial.calibration,
        log=trial.log,
        attempts=trial.attempts,
        swishes=trial.swishes,
    )
    record = {key: value for key, value in asdict(result).items() if key != "log"}
    least = trial.recipe.min_agreement(trial.report.task)
    bounds = {"min_agreement": least, "min_sqnr_db": trial.recipe.bounds.sqnr_db}
    if trial.report.lost is not None:
        bounds["max_ap_loss"] = trial.recipe.bounds.ap
    record |= {"path": path.name, "bounds": bounds, "environment": environment()}
    (folder / path.name).write_bytes(content)
    (folder / record_path(path).name).write_bytes((json_text(record) + "\n").encode())
    if labels is not None:
        (folder / "labels.txt").write_bytes(labels_text(labels).encode())
    return result


def record_path(path: Path) -> Path:
    """Path of a file's record: `flowers_int8.json` for `flowers_int8.tflite`."""
    return path.with_suffix(".json")


def compressed_size(content: bytes) -> int:
    """Size of a file in bytes after gzip, about the size of a download."""
    return len(gzip.compress(content, mtime=0))


def labels_text(labels: Sequence[str]) -> str:
    """Content of `labels.txt`: one class name a line."""
    return "".join(f"{name}\n" for name in labels)
