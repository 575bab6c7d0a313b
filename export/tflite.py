"""`export_tflite`: what is asked for is checked, then a file is made and tried, and kept if it agrees.

Imports `calibration`, `conversion`, `islands`, `quantization`, `trial`, `verification` beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import keras

from keras_effnet.errors import UserError, VerificationError
from keras_effnet.export.calibration import (
    MIN_IMAGES,
    Images,
    check_images,
    load_images,
    synthetic_images,
)
from keras_effnet.export.candidate_trial import ExportResult, keep, labels_text, try_precision
from keras_effnet.export.conversion import ExportSource, check_exportable
from keras_effnet.export.finetune.parent import FineTuning
from keras_effnet.export.int8.float_islands import check_parts
from keras_effnet.export.recipes import Settings, check_settings
from keras_effnet.export.verification import Reference
from keras_effnet.preprocessing import ImageSpec

logger = logging.getLogger(__name__)


def prepare_inputs(
    model: keras.Model,
    calibration: Images | None,
    held_out: Images | None,
    image_spec: ImageSpec,
    samples: int,
    seed: int,
    training_samples: int = 0,
) -> tuple[ExportSource, Reference]:
    """The network with its calibration images, and the images to compare on, with the network's own answers.

    Where a recipe trains, it trains on `training_samples` of them. Without held-out images those of the calibration
    serve, and without either smooth synthetic ones.

    Raises:
        UserError: Calibration images that cannot be right.
    """
    pixels = None
    if calibration is not None:
        pixels = load_images(calibration, image_spec, max(samples, training_samples), seed)
        check_images(pixels)
        if len(pixels) < MIN_IMAGES:
            logger.warning("Only %d calibration images; %d or more are safer.", len(pixels), MIN_IMAGES)
    # Files are compared with the source's float32 copy: float16 noise is not their fault.
    source = ExportSource(model, pixels, samples)
    if held_out is None:
        held_out = synthetic_images(model.input_shape[1:]) if pixels is None else pixels[:samples]
    return source, Reference.of(source.model, held_out, image_spec, samples=samples, seed=seed)


def export_tflite(
    model: keras.Model,
    path: str | Path,
    quantization: str = "none",
    *,
    calibration: Images | None = None,
    verification: Images | None = None,
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

    The file takes one image of fixed size with pixels in 0..255 and gives float32 predictions. It holds builtin
    operators only. It gets its name after it was run by LiteRT and agreed with the model; otherwise nothing is written.

    Args:
        model: Functional Keras model with one image input of fixed size and one output.
        path: Path that ends in `.tflite`.
        quantization: `"none"` (float32), `"float16"`, `"dynamic"` (int8 weights), `"int8"` (weights and activations),
            `"int16x8"` (int8 weights, int16 activations) or `"mixed"` (int8 with blocks that stay in float).
        calibration: Images that the integer precisions take their ranges from: a folder, a `tf.data.Dataset` of
            batches, an array of shape `(N, height, width, 3)` or a `Split`; pixels in 0..255. 20 to 500 images like
            the real ones.
        verification: Images to compare on, of the same kinds; of a `Split` all are used, and its labels give
            accuracies. By default the calibration images; without either, smooth synthetic images stand in, which
            serve for float arithmetic.
        input_type: `"float32"`, or `"uint8"` for int8 and mixed files that take raw bytes.
        method: The one way to take to an int8 file: `"corrected"`, `"minmax"`, `"percentile"`, `"equalized"`, or
            `"qat"`, which trains on the calibration images. By default the first four are tried in turn until a file
            passes.
        float_blocks: Names of the blocks that a mixed file computes in float (`"stem"`, `"block1a"`, `"block2"`). By
            default they are found by measuring what each block costs, until `min_agreement` is met.
        tuning: `FineTuning` for `method="qat"`.
        training_samples: Int, images that `method="qat"` trains on at most.
        min_agreement: Float in [0, 1], least share of images with the model's class, in place of the precision's own
            bound.
        labels: Class names, written beside the file as `labels.txt`.
        image_spec: `ImageSpec`, how images are cropped.
        samples: Int, calibration and verification images at most.
        seed: Int, of the draw from a folder.
        overwrite: Bool, whether an existing file may be replaced.
        allow_degraded: Bool, whether to keep a file that disagrees with the model, with a warning; for research.
        announce: Called with a line of text as the work goes on.

    Returns:
        An `ExportResult`.

    Raises:
        UserError: Wrong arguments, no calibration images, images that cannot be right, or a path in use.
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
    source, reference = prepare_inputs(model, calibration, verification, spec, samples, seed, trained_on)
    trial = try_precision(source, reference, quantization, settings, min_agreement)
    if not trial.passed:
        if not allow_degraded:
            raise VerificationError(trial.complaint + " Not written.")
        logger.warning("Kept all the same: %s", trial.complaint)
    return keep(trial, path, labels)


def check_arguments(
    model: keras.Model,
    path: Path,
    quantization: str,
    calibration: Images | None,
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
            f"{quantization} needs images to calibrate on: calibration=FOLDER (--calibration FOLDER), "
            f"{MIN_IMAGES} to 500 like those the network will see."
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
    other_labels = labels is not None and beside.exists() and beside.read_text(encoding="utf-8") != labels_text(labels)
    if path.exists() or other_labels:
        taken = path if path.exists() else f"{beside} of another model"
        raise UserError(f"{taken} exists; pass overwrite=True (--overwrite) to replace it.")
