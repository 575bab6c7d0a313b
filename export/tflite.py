"""Export to one verified `.tflite` file: check the arguments, convert, quantize, run, compare, write. TensorFlow."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import keras

from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.errors import UserError, VerificationError, check_path
from keras_effnet.export.calibration import (
    MIN_IMAGES,
    Images,
    check_images,
    load_images,
    synthetic_images,
)
from keras_effnet.export.candidate_trial import ExportResult, keep, labels_text, try_precision
from keras_effnet.export.choices import InputType, Int8Method, Quantization
from keras_effnet.export.conversion.float_graph import check_exportable
from keras_effnet.export.conversion.source import ExportSource
from keras_effnet.export.conversion.structure import plain
from keras_effnet.export.description import About, output_names
from keras_effnet.export.finetune.parent import FineTuning
from keras_effnet.export.int8.float_islands import check_parts
from keras_effnet.export.measure.verify_report import Evidence
from keras_effnet.export.outputs import Tasks, class_count
from keras_effnet.export.recipes import Settings, check_settings
from keras_effnet.export.verification import Reference
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.system.files import atomic_group, cannot_write

_LOOPS = (keras.layers.RNN, keras.layers.Bidirectional)

logger = logging.getLogger(__name__)


def prepare_inputs(
    model: keras.Model,
    calibration: Images | None,
    held_out: Images | None,
    image_spec: ImageSpec,
    samples: int,
    seed: int,
    training_samples: int = 0,
    task: Tasks | None = None,
    detector: DetectorSpec | None = None,
) -> tuple[ExportSource, Reference]:
    """Load the images of an export: the source with its calibration images, and the reference to compare with.

    Recipes that train use `training_samples` of the calibration images. The default of the held-out images are the
    calibration images, or else smooth synthetic images. Held-out images that are also calibration images are left out,
    unless all are; the reference records where its images come from.

    Raises:
        UserError: The calibration images are implausible.
    """
    pixels = None
    if calibration is not None:
        pixels = load_images(calibration, image_spec, max(samples, training_samples), seed)
        check_images(pixels)
        if len(pixels) < MIN_IMAGES:
            logger.warning(
                "Only %d calibration image%s; use %d or more.", len(pixels), "s" * (len(pixels) != 1), MIN_IMAGES
            )
    # Files are compared with the source's float32 copy, so that float16 noise of the model does not count.
    source = ExportSource(model, pixels, samples, task, detector)
    if held_out is None:
        shown = synthetic_images(model.input_shape[1:]) if pixels is None else pixels[:samples]
        evidence: Evidence = "synthetic" if pixels is None else "calibration"
        reference = Reference.of(source.model, shown, image_spec, samples=samples, outputs=source.outputs)
        return source, replace(reference, evidence=evidence)
    reference = Reference.of(source.model, held_out, image_spec, samples=samples, seed=seed, outputs=source.outputs)
    reference = replace(reference, evidence="held-out") if pixels is None else reference.apart_from(pixels)
    if reference.remark:
        logger.warning(reference.remark)
    return source, reference


def export_tflite(
    model: keras.Model,
    path: str | Path,
    quantization: Quantization = "none",
    *,
    calibration: Images | None = None,
    verification: Images | None = None,
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
    announce: Callable[[str], None] = lambda step: None,
) -> ExportResult:
    """Export a Keras model to a verified `.tflite` file.

    The file takes one image of fixed size with pixels in 0..255, returns float32 predictions and has builtin operators
    only. It is written only after LiteRT ran it and its predictions agreed with the model's.

    Args:
        model: Functional Keras model with one image input of fixed size. With several outputs, each is compared by its
            own task and keeps its name.
        path: Path that ends in `.tflite`.
        quantization: `"none"` (float32), `"float16"`, `"dynamic"` (int8 weights, activations quantized at run time),
            `"weight_only"` (int8 weights, arithmetic in float32), `"int8"` (weights and activations), `"int16x8"` (int8
            weights, int16 activations) or `"mixed"` (int8 with blocks that stay in float).
        calibration: Images for the ranges of integer precisions: a folder, a `tf.data.Dataset` of
            batches, an array of shape `(N, height, width, 3)` or a `Split`; pixels in 0..255. 20 to 500 images like
            the real ones.
        verification: Images to compare on, of the same kinds; a `Split` is used completely, and its labels give
            accuracies. Images that are also calibration images are left out. Default: the calibration images
            themselves, on which an integer file agrees better than on others, or else 16 smooth synthetic images, which
            suffice for float precisions; `result.report.evidence` says which.
        input_type: `"float32"`, or `"uint8"` (raw bytes) for int8 and mixed files.
        method: The only int8 method to try: `"corrected"`, `"minmax"`, `"percentile"`, `"fitted"`, `"equalized"`, or
            `"qat"`, which trains on the calibration images. By default the first five are tried, fastest files first,
            until one passes.
        float_blocks: Names of the blocks that a mixed file computes in float (`"stem"`, `"block1a"`, `"block2"`). By
            default, of a network with swish the convolutions and of others the blocks that remove most of the noise for
            their time, as many as `min_agreement` takes or `budget` allows.
        tuning: `FineTuning` for `method="qat"`.
        training_samples: Int, maximum number of images that `method="qat"` trains on.
        min_agreement: Float in [0, 1], minimum of the task's measure of agreement, such as the share of images with the
            model's class; replaces the precision's own bound. A file is refused if the 95% interval of its agreement
            lies below the bound; one whose interval includes the bound is written with a warning.
        budget: Float, most time for one image relative to the float32 file, such as `0.65`, for int8 and mixed files:
            of the files within it, by CPU time of one thread on this machine, the one closest to the float model on
            the calibration images is kept, if its agreement passes. By default the fastest that
            passes.
        task: String, what the output means and so what agreement is: `"classification"`, `"binary"`, `"multilabel"`,
            `"regression"`, `"embedding"` or `"segmentation"`; by default told by the model, see `tasks.task_of`.
            For several outputs a dict of output name to task.
        detector: `DetectorSpec` of a detector as it was trained, for its anchors.
        labels: Class names of the first output, written beside the file as `labels.txt` and into its metadata. Of a
            binary network: the negative and the positive class, or the positive one alone.
        about: `About`, the name, author and licence in the file's metadata, and what people call the classes.
        image_spec: `ImageSpec`, how images are cropped.
        image_size: Int, the size of the file's input in pixels, if the model takes images of any size.
        samples: Int, maximum number of calibration and of verification images.
        seed: Int, seed of the draw from a folder.
        overwrite: Bool, whether an existing file may be replaced.
        allow_degraded: Bool, whether to keep a file that disagrees with the model, with a warning; for research.
        announce: Called with a line of text before each long step.

    Returns:
        An `ExportResult`.

    Raises:
        UserError: Wrong arguments, missing or implausible calibration images, or an existing path.
        VerificationError: The file cannot run on phones, lacks its weights, or disagrees with the model; or no file
            within the budget agrees.

    Example:

    >>> result = keras_effnet.export.export_tflite(model, "flowers.tflite", "int8", calibration="flowers/train")
    >>> result.size_bytes, result.report.agreement
    """
    check_path("path", path)
    path, model = Path(path), plain(model, image_size)
    settings = Settings(input_type, method, tuple(float_blocks), tuning, budget, announce)
    check_arguments(model, path, quantization, calibration, settings, labels, overwrite)
    about = (about or About()).completed(model.name, class_count(model), labels)
    spec = image_spec or ImageSpec.of_model(model)
    trained_on = training_samples if method == "qat" else 0
    source, reference = prepare_inputs(
        model, calibration, verification, spec, samples, seed, trained_on, task, detector
    )
    with atomic_group(path.parent) as folder:  # opened first: fails before the work if the folder cannot be written
        trial = try_precision(source, reference, quantization, settings, min_agreement, about)
        if source.remark:
            logger.warning(source.remark)
        if not trial.passed:
            if not allow_degraded:
                raise VerificationError(trial.complaint + " Not written.")
            logger.warning("Kept nevertheless (allow_degraded): %s", trial.complaint)
        elif trial.doubt:
            logger.warning(trial.doubt)
        return keep(trial, path, folder, labels)


def _check_labels(labels: Sequence[str], classes: int) -> None:
    if isinstance(labels, str | os.PathLike):
        raise UserError(f"labels must be a list of names, got {labels!r}: read a file with read_text().splitlines().")
    if wrong := [each for each in labels if each is None or "\n" in str(each)]:
        raise UserError(f"Each label must be a name on one line, got {wrong[0]!r}.")
    if len(output_names(labels, classes)) != classes:
        raise UserError(f"{len(labels)} labels for a model of {classes} classes.")


def check_arguments(
    model: keras.Model,
    path: Path,
    quantization: str,
    calibration: Images | None,
    settings: Settings,
    labels: Sequence[str] | None,
    overwrite: bool,
) -> None:
    """Check the arguments of an export before the long conversion.

    Raises:
        UserError: An argument is invalid; the message gives cause and remedy.
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
    recurrent = [layer.name for layer in model.layers if isinstance(layer, _LOOPS)]
    if recurrent and quantization != "none":
        raise UserError(
            f"Layer {recurrent[0]!r} is recurrent, which is a loop in a file; only float32 files hold one: "
            "quantization='none', --quantize none."
        )
    if labels is not None:
        _check_labels(labels, class_count(model))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(f"to {path.parent}", error) from None
    if overwrite:
        return
    beside = path.with_name("labels.txt")
    other_labels = labels is not None and beside.exists() and beside.read_text(encoding="utf-8") != labels_text(labels)
    if path.exists() or other_labels:
        taken = path if path.exists() else f"{beside} of another model"
        raise UserError(f"{taken} exists; pass overwrite=True (--overwrite) to replace it.")
