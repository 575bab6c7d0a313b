"""`export_tflite`: convert, check, run, compare, and only then give the file its name.

Imports `calibration`, `conversion`, `inspection`, `quantization`, `verification` beside it.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_effnet.errors import UserError, VerificationError, one_of
from keras_effnet.export.calibration import MIN_PICTURES, Pictures, check_pictures, load_pictures
from keras_effnet.export.conversion import check_exportable, float32_copy, weight_count
from keras_effnet.export.inspection import check_portable
from keras_effnet.export.interpreter import TFLiteModel
from keras_effnet.export.quantization import INPUT_TYPES, RECIPES, Recipe
from keras_effnet.export.verification import VerifyReport, verify
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.quiet import captured_output
from keras_effnet.runs import atomic, write_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportResult:
    """A file that was written, and the evidence that it works.

    Args:
        path: Path of the `.tflite` file.
        size_bytes: Int.
        quantization: String.
        method: String, the way that passed; int8 tries `"minmax"`, `"percentile"` and `"equalized"` in turn.
        input_type: String.
        sha256: String.
        seconds: Float, conversion and verification together.
        report: `VerifyReport`.
        log: Tuple of lines that the converter printed.
    """

    path: Path
    size_bytes: int
    quantization: str
    method: str
    input_type: str
    sha256: str
    seconds: float
    report: VerifyReport
    log: tuple[str, ...] = ()


class _Attempt(NamedTuple):
    method: str
    content: bytes
    report: VerifyReport
    log: tuple[str, ...]


def _synthetic_pictures(shape: tuple[int, int, int], count: int = 16) -> np.ndarray:
    """Smooth colour gradients: enough to compare float arithmetic on where no picture was given."""
    rng = np.random.default_rng(0)
    height, width, channels = shape
    rows, columns = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    waves = [
        np.sin(rows * rng.uniform(1, 9, channels) + columns * rng.uniform(1, 9, channels) + rng.uniform(0, 6, channels))
        for _ in range(count)
    ]
    return ((np.stack(waves) + 1) * 127.5).astype("float32")


def _disagreement(report: VerifyReport, quantization: str, recipe: Recipe) -> str:
    return (
        f"The {quantization} file disagrees with the model: the same class on {report.top1_agreement:.1%} of "
        f"{report.samples} pictures (at least {recipe.min_agreement:.1%} wanted), SQNR {report.sqnr_db:.1f} dB "
        f"(at least {recipe.min_sqnr_db:g}). Calibrate on pictures like those it will see, train longer if its answers "
        "are nearly tied, or take another precision; ReLU6 networks (lite0) quantize best."
    )


def export_tflite(
    model: keras.Model,
    path: str | Path,
    quantization: str = "none",
    *,
    calibration: Pictures | None = None,
    verification: Pictures | None = None,
    input_type: str = "float32",
    labels: Sequence[str] | None = None,
    image_spec: ImageSpec | None = None,
    samples: int = 100,
    seed: int = 0,
    overwrite: bool = False,
    allow_degraded: bool = False,
) -> ExportResult:
    """Writes a `.tflite` file for phones, after running it beside the model.

    The file takes one picture of fixed size with pixels in 0..255 and gives float32 predictions. It holds builtin
    operators only. It gets its name after it was run by LiteRT and agreed with the model; otherwise nothing is written.

    Args:
        model: Functional Keras model with one image input of fixed size and one output.
        path: Path that ends in `.tflite`.
        quantization: `"none"` (float32), `"float16"`, `"dynamic"` (int8 weights) or `"int8"` (weights and activations).
        calibration: Pictures that int8 takes its ranges from: a folder, a `tf.data.Dataset` of batches, an array of
            shape `(N, height, width, 3)` or a `Split`; pixels in 0..255. 20 to 500 pictures like the real ones.
        verification: Pictures to compare on, of the same kinds; of a `Split` all are used, and its labels give
            accuracies. By default the calibration pictures; without either, smooth synthetic pictures stand in, which
            serve for float arithmetic.
        input_type: `"float32"`, or `"uint8"` for int8 models that take raw bytes.
        labels: Class names, written beside the file as `labels.txt`.
        image_spec: `ImageSpec`, how pictures are cropped.
        samples: Int, calibration and verification pictures at most.
        seed: Int, of the draw from a folder.
        overwrite: Bool, whether an existing file may be replaced.
        allow_degraded: Bool, whether to keep a file that disagrees with the model, with a warning; for research.

    Returns:
        An `ExportResult`.

    Raises:
        UserError: Wrong arguments, no calibration pictures, pictures that cannot be right, or a path in use.
        VerificationError: The file needs what phones do not have, lacks its weights, or disagrees with the model.

    Example:

    >>> result = keras_effnet.export.export_tflite(model, "flowers.tflite", "int8", calibration="flowers/train")
    >>> result.size_bytes, result.report.top1_agreement
    """
    started = time.perf_counter()
    path = Path(path)
    check_arguments(model, path, quantization, calibration, input_type, labels, overwrite)
    recipe = RECIPES[quantization]
    spec = image_spec or ImageSpec.of_model(model)
    model = float32_copy(model)  # also what the file is compared with: float16 noise is not the file's fault

    pictures = None
    if calibration is not None:
        pictures = load_pictures(calibration, spec, samples, seed)
        if recipe.needs_calibration:
            check_pictures(pictures)
            if len(pictures) < MIN_PICTURES:
                logger.warning("Only %d calibration pictures; %d or more are safer.", len(pictures), MIN_PICTURES)

    if verification is None:
        verification = _synthetic_pictures(model.input_shape[1:]) if pictures is None else pictures
    attempts = []
    for method, convert in recipe.methods.items():
        with captured_output() as log:
            content = convert(model, pictures, input_type)
        check_portable(content, int(weight_count(model) * recipe.weight_bytes))
        try:
            TFLiteModel(content)
        except UserError as error:
            raise VerificationError(f"{error} Not written.") from None
        report = verify(content, model, verification, samples=samples, seed=seed, image_spec=spec)
        attempts.append(_Attempt(method, content, report, tuple(log)))
        if recipe.accepts(report):
            break
    best = max(attempts, key=lambda attempt: (recipe.accepts(attempt.report), attempt.report.top1_agreement))
    if not recipe.accepts(best.report):
        if not allow_degraded:
            raise VerificationError(_disagreement(best.report, quantization, recipe) + " Not written.")
        logger.warning("Kept all the same: %s", _disagreement(best.report, quantization, recipe))

    try:
        with atomic(path) as temporary:
            temporary.write_bytes(best.content)
        if labels is not None:
            write_text(path.with_name("labels.txt"), _labels_text(labels))
    except OSError as error:
        raise UserError(f"Cannot write to {path.parent}: {error.strerror}.") from None
    return ExportResult(
        path=path,
        size_bytes=len(best.content),
        quantization=quantization,
        method=best.method,
        input_type=input_type,
        sha256=hashlib.sha256(best.content).hexdigest(),
        seconds=time.perf_counter() - started,
        report=best.report,
        log=best.log,
    )


def _labels_text(labels: Sequence[str]) -> str:
    return "".join(f"{name}\n" for name in labels)


def check_arguments(
    model: keras.Model,
    path: Path,
    quantization: str,
    calibration: Pictures | None,
    input_type: str,
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
    recipe = RECIPES[one_of("quantization", quantization, RECIPES)]
    one_of("input type", input_type, INPUT_TYPES)
    if path.suffix != ".tflite":
        raise UserError(f"The path must end in .tflite, got {path}.")
    if recipe.needs_calibration and calibration is None:
        raise UserError(
            f"{quantization} needs pictures to calibrate on: calibration=FOLDER (--calibration FOLDER), "
            f"{MIN_PICTURES} to 500 like those the network will see."
        )
    if input_type != "float32" and not recipe.needs_calibration:
        raise UserError(f"input_type={input_type!r} needs quantization='int8'; a {quantization} file takes float32.")
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
