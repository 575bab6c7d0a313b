"""`export_tflite`: convert, check, run, compare, and only then give the file its name.

Imports `calibration`, `conversion`, `inspection`, `profile`, `quantization`, `verification` beside it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import keras

from keras_effnet.errors import UserError, VerificationError
from keras_effnet.export.calibration import (
    MIN_PICTURES,
    Pictures,
    check_pictures,
    fingerprint,
    load_pictures,
    synthetic_pictures,
)
from keras_effnet.export.conversion import Source, check_exportable, weight_count
from keras_effnet.export.inspection import check_portable
from keras_effnet.export.interpreter import CannotRunError, TFLiteModel
from keras_effnet.export.islands import check_parts
from keras_effnet.export.profile import LayerError, first_lost, layer_errors
from keras_effnet.export.quantization import Candidate, Recipe, Settings, check_settings
from keras_effnet.export.twin import FineTuning
from keras_effnet.export.verification import Reference, VerifyReport
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.quiet import captured_output
from keras_effnet.runs import atomic, environment, write_text

logger = logging.getLogger(__name__)


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
            turn, a mixed file says which blocks are float.
        input_type: String.
        sha256: String.
        seconds: Float, conversion and verification together.
        report: `VerifyReport`.
        layers: Tuple of `LayerError`s in the order of execution.
        calibration: Dict with the number and the sha256 of the calibration pictures, or None where none were used.
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
class Trial:
    """A file that was made and run, and has no name yet.

    Args:
        quantization: String.
        recipe: `Recipe`, with the bounds that the file is held against.
        settings: `Settings`.
        candidate: `Candidate`, of all that were tried the first that passed, or else the one that agrees most.
        report: `VerifyReport`.
        layers: Tuple of `LayerError`s.
        calibration: As in `ExportResult`.
        log: Tuple of lines that the converter printed.
        seconds: Float.
    """

    quantization: str
    recipe: Recipe
    settings: Settings
    candidate: Candidate
    report: VerifyReport
    layers: tuple[LayerError, ...]
    calibration: dict[str, object] | None
    log: tuple[str, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        return self.recipe.accepts(self.report)

    @property
    def complaint(self) -> str:
        """What is wrong with a file that did not pass, and what to do."""
        lost = first_lost(self.layers)
        where = f" The signal is first lost in {lost.layer} ({lost.sqnr_db:.1f} dB)." if lost else ""
        report, recipe = self.report, self.recipe
        return (
            f"The {self.quantization} file disagrees with the model: the same class on {report.top1_agreement:.1%} of "
            f"{report.samples} pictures (at least {recipe.min_agreement:.1%} wanted), SQNR {report.sqnr_db:.1f} dB (at "
            f"least {recipe.min_sqnr_db:g}).{where} Calibrate on pictures like those it will see, train longer if its "
            "answers are nearly tied, or take another precision (mixed keeps the worst blocks in float). ReLU6 nets "
            "like lite0 quantize best."
        )


def try_precision(
    source: Source, reference: Reference, quantization: str, settings: Settings, min_agreement: float | None = None
) -> Trial:
    """Makes the file of a precision, checks that phones can run it, runs it and compares it.

    Args:
        source: `Source`, whose conversions are shared by all precisions.
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
    return Trial(
        quantization=quantization,
        recipe=recipe,
        settings=settings,
        candidate=candidate,
        report=report,
        layers=layer_errors(candidate.content, candidate.graph, reference.pictures),
        calibration=fingerprint(source.pixels) if recipe.needs_calibration else None,
        log=tuple(log),
        seconds=time.perf_counter() - started,
    )


def keep(trial: Trial, path: Path, labels: Sequence[str] | None = None) -> ExportResult:
    """Writes the file of a trial, its record as JSON and the class names; each is whole or absent.

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
    try:
        with atomic(path) as temporary:
            temporary.write_bytes(content)
        write_text(record_path(path), json.dumps(record, indent=2, default=str) + "\n")
        if labels is not None:
            write_text(path.with_name("labels.txt"), _labels_text(labels))
    except OSError as error:
        raise UserError(f"Cannot write to {path.parent}: {error.strerror}.") from None
    return result


def record_path(path: Path) -> Path:
    """Where the record of a file lies: `flowers_int8.json` beside `flowers_int8.tflite`."""
    return path.with_suffix(".json")


def compressed_size(content: bytes) -> int:
    """Bytes of a file after gzip, about what a download of it takes."""
    return len(gzip.compress(content, mtime=0))


def sources(
    model: keras.Model,
    calibration: Pictures | None,
    held_out: Pictures | None,
    image_spec: ImageSpec,
    samples: int,
    seed: int,
    training_samples: int = 0,
) -> tuple[Source, Reference]:
    """The network with its calibration pictures, and the pictures to compare on, with the network's own answers.

    Where a recipe trains, it trains on `training_samples` of them. Without held-out pictures those of the calibration
    serve, and without either smooth synthetic ones.

    Raises:
        UserError: Calibration pictures that cannot be right.
    """
    pixels = None
    if calibration is not None:
        pixels = load_pictures(calibration, image_spec, max(samples, training_samples), seed)
        check_pictures(pixels)
        if len(pixels) < MIN_PICTURES:
            logger.warning("Only %d calibration pictures; %d or more are safer.", len(pixels), MIN_PICTURES)
    source = Source(
        model, pixels, samples
    )  # its float32 copy is what files are compared with: float16 noise is not their fault
    if held_out is None:
        held_out = synthetic_pictures(model.input_shape[1:]) if pixels is None else pixels[:samples]
    return source, Reference.of(source.model, held_out, image_spec, samples=samples, seed=seed)


def export_tflite(
    model: keras.Model,
    path: str | Path,
    quantization: str = "none",
    *,
    calibration: Pictures | None = None,
    verification: Pictures | None = None,
    input_type: str = "float32",
    method: str | None = None,
    float_blocks: Sequence[str] = (),
    tuning: FineTuning | None = None,
    training_samples: int = 1000,
    min_agreement: float | None = None,
    labels: Sequence[str] | None = None,
    image_spec: ImageSpec | None = None,
    samples: int = 100,
    seed: int = 0,
    overwrite: bool = False,
    allow_degraded: bool = False,
    announce: Callable[[str], None] = lambda step: None,
) -> ExportResult:
    """Writes a `.tflite` file for phones, after running it beside the model.

    The file takes one picture of fixed size with pixels in 0..255 and gives float32 predictions. It holds builtin
    operators only. It gets its name after it was run by LiteRT and agreed with the model; otherwise nothing is written.

    Args:
        model: Functional Keras model with one image input of fixed size and one output.
        path: Path that ends in `.tflite`.
        quantization: `"none"` (float32), `"float16"`, `"dynamic"` (int8 weights), `"int8"` (weights and activations),
            `"int16x8"` (int8 weights, int16 activations) or `"mixed"` (int8 with blocks that stay in float).
        calibration: Pictures that the integer precisions take their ranges from: a folder, a `tf.data.Dataset` of
            batches, an array of shape `(N, height, width, 3)` or a `Split`; pixels in 0..255. 20 to 500 pictures like
            the real ones.
        verification: Pictures to compare on, of the same kinds; of a `Split` all are used, and its labels give
            accuracies. By default the calibration pictures; without either, smooth synthetic pictures stand in, which
            serve for float arithmetic.
        input_type: `"float32"`, or `"uint8"` for int8 and mixed files that take raw bytes.
        method: The one way to take to an int8 file: `"corrected"`, `"minmax"`, `"percentile"`, `"equalized"`, or
            `"qat"`, which trains on the calibration pictures. By default the first four are tried in turn until a file
            passes.
        float_blocks: Names of the blocks that a mixed file computes in float (`"stem"`, `"block1a"`, `"block2"`). By
            default they are found by measuring what each block costs, until `min_agreement` is met.
        tuning: `FineTuning` for `method="qat"`.
        training_samples: Int, pictures that `method="qat"` trains on at most.
        min_agreement: Float in [0, 1], least share of pictures with the model's class, in place of the precision's own
            bound.
        labels: Class names, written beside the file as `labels.txt`.
        image_spec: `ImageSpec`, how pictures are cropped.
        samples: Int, calibration and verification pictures at most.
        seed: Int, of the draw from a folder.
        overwrite: Bool, whether an existing file may be replaced.
        allow_degraded: Bool, whether to keep a file that disagrees with the model, with a warning; for research.
        announce: Called with a line of text as the work goes on.

    Returns:
        An `ExportResult`.

    Raises:
        UserError: Wrong arguments, no calibration pictures, pictures that cannot be right, or a path in use.
        VerificationError: The file needs what phones do not have, lacks its weights, or disagrees with the model.

    Example:

    >>> result = keras_effnet.export.export_tflite(model, "flowers.tflite", "int8", calibration="flowers/train")
    >>> result.size_bytes, result.report.top1_agreement
    """
    path = Path(path)
    settings = Settings(input_type, method, tuple(float_blocks), tuning, announce)
    check_arguments(model, path, quantization, calibration, settings, labels, overwrite)
    spec = image_spec or ImageSpec.of_model(model)
    trained_on = training_samples if method == "qat" else 0
    source, reference = sources(model, calibration, verification, spec, samples, seed, trained_on)
    trial = try_precision(source, reference, quantization, settings, min_agreement)
    if not trial.passed:
        if not allow_degraded:
            raise VerificationError(trial.complaint + " Not written.")
        logger.warning("Kept all the same: %s", trial.complaint)
    return keep(trial, path, labels)


def _labels_text(labels: Sequence[str]) -> str:
    return "".join(f"{name}\n" for name in labels)


def check_arguments(
    model: keras.Model,
    path: Path,
    quantization: str,
    calibration: Pictures | None,
    settings: Settings,
    labels: Sequence[str] | None,
    overwrite: bool,
) -> None:
    """Finds what is wrong with a request before the minutes of converting.

    Raises:
        UserError: With the cause and the cure.
    """
    check_exportable(model)
    if not ImageSpec.of_model(model).in_network:
        raise UserError(
            f"{model.name} was built with include_preprocessing=False, but a file takes pixels in 0..255: build it "
            "with preprocessing and copy the weights, new.set_weights(old.get_weights())."
        )
    recipe = check_settings(quantization, settings)
    check_parts(model, settings.float_blocks)
    if path.suffix != ".tflite":
        raise UserError(f"The path must end in .tflite, got {path}.")
    if recipe.needs_calibration and calibration is None:
        raise UserError(
            f"{quantization} needs pictures to calibrate on: calibration=FOLDER (--calibration FOLDER), "
            f"{MIN_PICTURES} to 500 like those the network will see."
        )
    if labels is not None and len(labels) != model.output_shape[-1]:
        raise UserError(f"{len(labels)} labels for a model of {model.output_shape[-1]} classes.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write to {path.parent}: {error.strerror}.") from None
    if overwrite:
        return
    beside = path.with_name("labels.txt")
    other_labels = labels is not None and beside.exists() and beside.read_text() != _labels_text(labels)
    if path.exists() or other_labels:
        taken = path if path.exists() else f"{beside} of another model"
        raise UserError(f"{taken} exists; pass overwrite=True (--overwrite) to replace it.")
