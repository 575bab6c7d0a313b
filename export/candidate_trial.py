"""Making, checking, running and comparing the file of one precision, and writing it if it is accepted. TensorFlow."""

from __future__ import annotations

import gzip
import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from keras_effnet.errors import VerificationError
from keras_effnet.export.calibration import fingerprint
from keras_effnet.export.conversion.float_graph import weight_count
from keras_effnet.export.conversion.source import ExportSource
from keras_effnet.export.description import About, describe
from keras_effnet.export.int8.layer_errors import LayerError, first_lost, measure_layer_errors
from keras_effnet.export.int8.swish_profile import SwishProfile, profile_swishes
from keras_effnet.export.measure.cpu_time import time_ratios
from keras_effnet.export.recipes import BUDGETED, Candidate, Precision, Settings, check_settings
from keras_effnet.export.tflite_file.inspection import check_portable
from keras_effnet.export.tflite_file.interpreter import CannotRunError, TFLiteModel
from keras_effnet.export.verification import Reference, VerifyReport
from keras_effnet.system.documents import json_text
from keras_effnet.system.machine import environment
from keras_effnet.system.output import captured_output
from keras_effnet.tasks import TASKS


@dataclass(frozen=True)
class Attempt:
    """A file that was made by one method, compared and timed.

    Args:
        method: String.
        agreement: String, agreement with its count and interval.
        sqnr_db: Float.
        time_ratio: Float, CPU time for one image relative to the float32 file, run in turn on one thread.
    """

    method: str
    agreement: str
    sqnr_db: float
    time_ratio: float

    def __str__(self) -> str:
        return f"{self.method}: {self.agreement}, {self.sqnr_db:.1f} dB, {self.time_ratio:.2f} of float32's time"


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


@dataclass(frozen=True, eq=False)
class ExportCandidate:
    """A file that was made and run but not yet written.

    Args:
        quantization: String.
        recipe: `Precision`, with the bounds that the file must meet.
        settings: `Settings`.
        candidate: `Candidate`, the first that passed, or the one with the highest agreement if none did. With a budget,
            the one within it that is closest to the float file on the calibration images.
        report: `VerifyReport`.
        layers: Tuple of `LayerError`s.
        calibration: As in `ExportResult`.
        log: Tuple of lines that the converter printed.
        seconds: Float.
        attempts, swishes: Tuples of `Attempt`s and `SwishProfile`s, as in `ExportResult`.
    """

    quantization: str
    recipe: Precision
    settings: Settings
    candidate: Candidate
    report: VerifyReport
    layers: tuple[LayerError, ...]
    calibration: dict[str, object] | None
    log: tuple[str, ...]
    seconds: float
    attempts: tuple[Attempt, ...] = ()
    swishes: tuple[SwishProfile, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the report is consistent with the bounds of the precision, and the time with the budget."""
        return self.recipe.accepts(self.report) and not self._too_slow

    @property
    def _too_slow(self) -> bool:
        """Whether no file that was tried is within the budget."""
        budget = self.settings.budget
        return budget is not None and all(attempt.time_ratio > budget for attempt in self.attempts)

    @property
    def doubt(self) -> str:
        """Remark on a file that passed although its measured agreement is below the bound; empty for all others."""
        if not self.passed or self.recipe.meets(self.report):
            return ""
        return (
            f"Whether the {self.quantization} file reaches the agreement of {self._required} is undecided: "
            f"{self.report.agreement}{self._loss}. Compare on more images."
        )

    @property
    def _required(self) -> str:
        names = dict.fromkeys(each.task for each in self.report.each)
        return " and ".join(TASKS[name].shown(self.recipe.min_agreement(name)) for name in names)

    @property
    def _loss(self) -> str:
        """Loss of average precision beside its bound, as the end of a clause; empty if it was not measured."""
        if self.report.lost is None:
            return ""
        return f"; {100 * self.report.lost:.1f} points of AP lost, at most {100 * self.recipe.bounds.ap:g} allowed"

    @property
    def complaint(self) -> str:
        """Error message of a file that did not pass: cause and remedies."""
        if self.settings.budget is not None:
            return (
                f"No {self.quantization} file within {self.settings.budget:g} of float32's time agrees with the model, "
                f"at least {self._required} and {self.recipe.bounds.sqnr_db:g} dB required{self._loss}; reached: "
                f"{'; '.join(map(str, self.attempts))}. Raise the budget (--budget), or use another precision."
            )
        lost = first_lost(self.layers)
        where = f" The signal is first lost in {lost.layer} ({lost.sqnr_db:.1f} dB)." if lost else ""
        report, recipe = self.report, self.recipe
        return (
            f"The {self.quantization} file disagrees with the model: {report.agreement}, at least {self._required} "
            f"required; SQNR {report.sqnr_db:.1f} dB, at least {recipe.bounds.sqnr_db:g} required{self._loss}.{where} "
            "Calibrate on images like those it will see, train longer if its top classes are nearly tied, or use "
            "another precision (mixed keeps in float what int8 hurts most). ReLU6 networks like lite0 quantize best."
        )


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
