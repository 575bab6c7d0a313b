"""One file of one precision: made, checked, run, compared with the network, and only then written under its name.

Imports `calibration`, `conversion`, `inspection`, `interpreter`, `profile`, `quantization`, `verification` beside it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from keras_effnet.errors import UserError, VerificationError
from keras_effnet.export.calibration import fingerprint
from keras_effnet.export.conversion import ExportSource, weight_count
from keras_effnet.export.int8.layer_errors import LayerError, first_lost, measure_layer_errors
from keras_effnet.export.recipes import Candidate, Precision, Settings, check_settings
from keras_effnet.export.tflite_file.inspection import check_portable
from keras_effnet.export.tflite_file.interpreter import CannotRunError, TFLiteModel
from keras_effnet.export.verification import Reference, VerifyReport
from keras_effnet.system.files import atomic
from keras_effnet.system.machine import environment
from keras_effnet.system.output import captured_output


@dataclass(frozen=True)
class ExportResult:
    """A file that was written, and the evidence that it works.

    All of this but the log also lies beside the file, as JSON under the same name.

    Args:
        path: Path of the `.tflite` file.
        size_bytes: Int.
        compressed_bytes: Int, after gzip: about what a download takes.
        quantization: String.
        method: String, the way that passed: int8 tries `"corrected"`, `"minmax"`, `"percentile"` and `"equalized"` in
            turn, a mixed file says which blocks are float and whether the others are corrected.
        input_type: String.
        sha256: String.
        seconds: Float, conversion and verification together.
        report: `VerifyReport`.
        layers: Tuple of `LayerError`s in the order of execution.
        calibration: Dict with the number and the sha256 of the calibration images, or None where none were used.
        log: Tuple of lines that the converter printed.
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


@dataclass(frozen=True, eq=False)
class ExportCandidate:
    """A file that was made and run, and has no name yet.

    Args:
        quantization: String.
        recipe: `Precision`, with the bounds that the file is held against.
        settings: `Settings`.
        candidate: `Candidate`, of all that were tried the first that passed, or else the one that agrees most.
        report: `VerifyReport`.
        layers: Tuple of `LayerError`s.
        calibration: As in `ExportResult`.
        log: Tuple of lines that the converter printed.
        seconds: Float.
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

    @property
    def passed(self) -> bool:
        """Whether the report meets the bounds of the precision."""
        return self.recipe.accepts(self.report)

    @property
    def complaint(self) -> str:
        """What is wrong with a file that did not pass, and what to do."""
        lost = first_lost(self.layers)
        where = f" The signal is first lost in {lost.layer} ({lost.sqnr_db:.1f} dB)." if lost else ""
        report, recipe = self.report, self.recipe
        return (
            f"The {self.quantization} file disagrees with the model: the same class on {report.top1_agreement:.1%} of "
            f"{report.samples} images (at least {recipe.min_agreement:.1%} wanted), SQNR {report.sqnr_db:.1f} dB (at "
            f"least {recipe.min_sqnr_db:g}).{where} Calibrate on images like those it will see, train longer if its "
            "answers are nearly tied, or take another precision (mixed keeps the worst blocks in float). ReLU6 nets "
            "like lite0 quantize best."
        )


def try_precision(
    source: ExportSource,
    reference: Reference,
    quantization: str,
    settings: Settings,
    min_agreement: float | None = None,
) -> ExportCandidate:
    """Makes the file of a precision, checks that phones can run it, runs it and compares it.

    Args:
        source: `ExportSource`, whose conversions are shared by all precisions.
        reference: `Reference`.
        quantization: String.
        settings: `Settings`.
        min_agreement: Float in [0, 1], in place of the recipe's bound.

    Raises:
        VerificationError: A file that phones cannot run, or that lacks its weights.
    """
    started = time.perf_counter()
    recipe = check_settings(quantization, settings)
    if min_agreement is not None:
        recipe = replace(recipe, min_agreement=min_agreement)
    tried: list[tuple[Candidate, VerifyReport]] = []
    log: list[str] = []
    candidates = recipe.candidates(source, settings)
    while not (tried and recipe.accepts(tried[-1][1])):
        try:
            with captured_output() as lines:
                candidate = next(candidates, None)
            log += lines
            if candidate is None:
                break
            settings.announce(f"Running the {quantization} file ({candidate.method})")
            check_portable(candidate.content, int(weight_count(source.model) * recipe.weight_bytes))
            tried.append((candidate, reference.compare(TFLiteModel(candidate.content))))
        except CannotRunError as error:
            raise VerificationError(f"{error} Not written.") from None
    candidate, report = max(tried, key=lambda each: (recipe.accepts(each[1]), each[1].top1_agreement, each[1].sqnr_db))
    return ExportCandidate(
        quantization=quantization,
        recipe=recipe,
        settings=settings,
        candidate=candidate,
        report=report,
        layers=measure_layer_errors(candidate.content, candidate.graph, reference.images),
        calibration=fingerprint(source.pixels) if recipe.needs_calibration else None,
        log=tuple(log),
        seconds=time.perf_counter() - started,
    )


def keep(trial: ExportCandidate, path: Path, labels: Sequence[str] | None = None) -> ExportResult:
    """Writes the file of a trial, its record as JSON and the class names: all of them, or none.

    Raises:
        UserError: They cannot be written.
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
    )
    record = {key: value for key, value in asdict(result).items() if key != "log"}
    bounds = {"min_agreement": trial.recipe.min_agreement, "min_sqnr_db": trial.recipe.min_sqnr_db}
    record |= {"path": path.name, "bounds": bounds, "environment": environment()}
    contents = {path: content, record_path(path): (json.dumps(record, indent=2, default=str) + "\n").encode()}
    if labels is not None:
        contents[path.with_name("labels.txt")] = labels_text(labels).encode()
    try:
        with ExitStack() as stack:  # none gets its name before all are written, and the file last
            for beside, what in contents.items():
                stack.enter_context(atomic(beside)).write_bytes(what)
    except OSError as error:
        raise UserError(f"Cannot write to {path.parent}: {error.strerror}.") from None
    return result


def record_path(path: Path) -> Path:
    """Where the record of a file lies: `flowers_int8.json` beside `flowers_int8.tflite`."""
    return path.with_suffix(".json")


def compressed_size(content: bytes) -> int:
    """Bytes of a file after gzip, about what a download of it takes."""
    return len(gzip.compress(content, mtime=0))


def labels_text(labels: Sequence[str]) -> str:
    """What `labels.txt` holds: a line for each class."""
    return "".join(f"{name}\n" for name in labels)
