"""Comparison of a `.tflite` file with its Keras model on the same images, by the measures of its task. TensorFlow."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import keras
import numpy as np

from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.datasets.labels.boxes import Boxes
from keras_effnet.datasets.splits import Split
from keras_effnet.detection.precision import Truth, check_installed
from keras_effnet.errors import UserError
from keras_effnet.evaluation.agreement import Drift
from keras_effnet.evaluation.by_task.boxes import input_truths
from keras_effnet.export.calibration import Images, load_images, occurring_in
from keras_effnet.export.conversion.plausibility import check_predictions
from keras_effnet.export.conversion.structure import plain
from keras_effnet.export.isolation.isolated import IsolatedModel
from keras_effnet.export.measure.verify_report import Evidence, VerifyReport
from keras_effnet.export.outputs import CLASSIFIER, Outputs, Tasks
from keras_effnet.export.tflite_file.interpreter import ImageModel, joined
from keras_effnet.preprocessing import ImageSpec, check_range
from keras_effnet.tasks import TASKS, Task

logger = logging.getLogger(__name__)

_BATCH_PIXELS = 10 * 224**2  # per batch: B7 at 600 pixels needs half a gigabyte per image
_HELD_BYTES = 2e9  # outputs of all images: those of a detector of 90 classes take 7 MB per image
_FEWEST = 20

# True classes, or 0 and 1 for each label, or the true boxes of each image in pixels of the network's input.
Labels: TypeAlias = np.ndarray | Sequence[Truth]


def true_labels(split: Split, spec: ImageSpec) -> Labels | None:
    """True labels of a split as the functions of tasks take them; None, with a warning, if boxes cannot be compared."""
    if not isinstance(split.labels, Boxes):
        return split.labels
    if not len(split.labels.boxes):
        logger.warning("The images to compare on have no box: files are compared without average precision.")
        return None
    try:
        check_installed()
    except UserError as error:
        logger.warning("%s Files are compared without it.", error)
        return None
    return input_truths(split.labels, spec.size, spec.fit)


def _as_array(labels: Labels | None) -> np.ndarray | None:
    """Labels in an array, so that they can be chosen with the images."""
    if labels is None or isinstance(labels, np.ndarray):
        return labels
    boxes = np.empty(len(labels), object)
    boxes[:] = labels
    return boxes


def compare(
    expected: np.ndarray,
    got: np.ndarray,
    labels: Labels | None = None,
    task: Task = TASKS["classification"],
) -> VerifyReport:
    """Compare two sets of outputs for the same images.

    Args:
        expected, got: Arrays of the same shape, `(N, ...)`.
        labels: Array of true labels or None: classes of shape `(N,)`, or 0 and 1 of shape `(N, labels)`; `Truth`s of
            a detector.
        task: `Task`.
    """
    count = len(expected)
    if not np.isfinite(got).all():
        return VerifyReport(0.0, -np.inf, np.inf, count, task=task.name)
    found = task.agreement(expected, got)
    (top1_keras, top5_keras), (top1_tflite, top5_tflite) = (
        task.accuracy(outputs, labels) if task.accuracy and labels is not None else (None, None)
        for outputs in (expected, got)
    )
    drift = task.drift(labels, expected, got) if task.drift and labels is not None else Drift({})
    return VerifyReport(
        samples=count,
        score=found.score,
        sqnr_db=task.sqnr_db(expected, got),
        max_abs_diff=float(np.abs(expected - got).max()),
        accuracy_keras=top1_keras,
        accuracy_tflite=top1_tflite,
        top5_keras=top5_keras,
        top5_tflite=top5_tflite,
        task=task.name,
        figures=found.figures | drift.figures,
        lost=drift.lost,
        surely_lost=drift.surely_lost,
        agreement_interval=found.interval,
        agreeing=found.agreeing,
    )


def compare_outputs(
    expected: np.ndarray, got: np.ndarray, outputs: Outputs, labels: Labels | None = None
) -> VerifyReport:
    """Compare joined outputs for the same images, each by the measure of its task, see `outputs.Outputs`.

    Args:
        expected, got: Arrays of the same shape, `(N, ...)`.
        outputs: `Outputs`.
        labels: Int array of shape `(N,)` or None, classes of a model with one output.
    """
    parts = zip(outputs.each, outputs.parts(expected), outputs.parts(got), strict=True)
    if len(outputs.each) == 1:
        ((output, wanted, found),) = parts
        return compare(wanted, found, labels, output.task)
    reports = {output.name: compare(wanted, found, task=output.task) for output, wanted, found in parts}
    worst = min(reports.values(), key=lambda report: report.score)
    return replace(worst, sqnr_db=min(report.sqnr_db for report in reports.values()), outputs=reports)


def _predicted(model: keras.Model, pixels: np.ndarray, batch: int) -> np.ndarray:
    """Predict as `Model.predict`, after which a copy of all images stays in memory, 0.4 GB for a hundred of B7."""
    batches = [pixels[start : start + batch] for start in range(0, len(pixels), batch)]
    parts = [keras.tree.flatten(model.predict_on_batch(images)) for images in batches]
    # Each device of a strategy predicts the whole batch, and their outputs stand one after the other.
    outputs = zip(*parts, strict=True)
    return joined([np.concatenate([part[: len(i)] for part, i in zip(each, batches, strict=True)]) for each in outputs])


@dataclass(frozen=True, eq=False)
class Reference:
    """Held-out images and the Keras model's predictions, with which all files of a model are compared.

    Args:
        images: Array of shape `(N, height, width, channels)`, values 0..255.
        answers: Array of shape `(N, ...)`, the Keras model's outputs, joined if there are several.
        labels: Int array of shape `(N,)`, array of `Truth`s of a detector, or None.
        evidence: Origin of the images, as in `VerifyReport`.
        outputs: `Outputs` of the model.
    """

    images: np.ndarray
    answers: np.ndarray
    labels: np.ndarray | None = None
    evidence: Evidence = "given"
    outputs: Outputs = CLASSIFIER

    @classmethod
    def of(
        cls,
        model: keras.Model,
        images: Images,
        image_spec: ImageSpec,
        labels: Labels | None = None,
        samples: int = 500,
        seed: int = 0,
        outputs: Outputs | None = None,
    ) -> Reference:
        """Load the images and predict with the model; the arguments are those of `verify`."""
        outputs = outputs or Outputs.of(model)
        tasks = [output.task for output in outputs.each]
        rated = len(tasks) == 1 and tasks[0].judged
        if labels is not None and not rated:
            told = " and ".join(task.name for task in tasks)
            raise UserError(f"labels are classes or decisions, and the model's task is {told}.")
        if isinstance(images, Split) and rated:
            labels = true_labels(images, image_spec)
        elif labels is not None and (not isinstance(images, np.ndarray) or len(labels) != len(images)):
            raise UserError("labels need an array of images of the same length.")
        pixels = load_images(images, image_spec, samples if labels is None else len(labels), seed)
        if len(pixels) > (most := max(_FEWEST, int(_HELD_BYTES // (4 * outputs.size)))):
            logger.info("Compared on %d of %d images: their outputs fill the memory.", most, len(pixels))
            pixels, labels = pixels[:most], None if labels is None else labels[:most]
        check_range(pixels)
        batch = max(1, min(32, _BATCH_PIXELS // pixels[0, :, :, 0].size))
        answers = _predicted(model, pixels, batch)
        check_predictions(model, pixels, answers)
        return cls(pixels, answers, _as_array(labels), outputs=outputs)

    @property
    def remark(self) -> str:
        """Remark on predictions that make an agreement meaningless; empty if there is nothing to say."""
        return "" if self.evidence == "synthetic" else self.outputs.remark(self.answers)

    def apart_from(self, calibration: np.ndarray) -> Reference:
        """Leave out the images that occur among the calibration images, unless all of them do."""
        seen = occurring_in(self.images, calibration)
        if seen.all():
            logger.warning("All images to compare on are calibration images: the agreement will be optimistic.")
            return replace(self, evidence="calibration")
        if seen.any():
            logger.warning("%d of %d images to compare on are calibration images; left out.", seen.sum(), len(seen))
        labels = None if self.labels is None else self.labels[~seen]
        return Reference(self.images[~seen], self.answers[~seen], labels, "held-out", self.outputs)

    def compare(self, file: ImageModel) -> VerifyReport:
        """Runs a file on the images and compares it with the model."""
        found = compare_outputs(self.answers, file.predict(self.images), self.outputs, self.labels)
        return replace(found, evidence=self.evidence)


def verify(
    tflite_path: str | Path | bytes,
    model: keras.Model,
    images: Images,
    *,
    labels: Labels | None = None,
    samples: int = 500,
    seed: int = 0,
    image_spec: ImageSpec | None = None,
    task: Tasks | None = None,
    detector: DetectorSpec | None = None,
) -> VerifyReport:
    """Compare a `.tflite` file with its Keras model on the same images.

    Args:
        tflite_path: Path of the file, or its bytes.
        model: Keras model that the file was made from.
        images: A folder, a `tf.data.Dataset` of batches, an array of shape `(N, height, width, 3)`, or a `Split`,
            whose labels are used; pixels in 0..255.
        labels: Int array of shape `(N,)` in the order of `images`, which must then be an array; classes, or 0 and 1 of
            a binary network, or of shape `(N, labels)` of one with several labels. Of the last two the report has the
            AUC drift: the AUC that the worst label loses in the file. Of a detector a sequence of `detection.Truth` in
            pixels of the input; the report then has the average precision of both.
        samples: Int, maximum number of images; with labels all are used.
        seed: Int, seed of the draw from a folder.
        image_spec: `ImageSpec`, how images are cropped; by default the whole central square.
        task: String, what the output means, one of `tasks.TASK_NAMES`; by default told by the model, see
            `tasks.task_of`. For several outputs a dict of output name to task.
        detector: `DetectorSpec` of a detector, for its anchors.

    Returns:
        A `VerifyReport`.

    Raises:
        UserError: The file cannot be run, or its input or output differs in shape from the model's.

    Example:

    >>> report = keras_effnet.export.verify("model_int8.tflite", model, "images/")
    >>> report.top1_agreement
    """
    file = IsolatedModel(tflite_path)
    model = plain(model)
    answers = keras.tree.flatten(model.output)  # in the file's order
    given, expected = [shape[1:] for shape in file.output_shapes], [tuple(each.shape[1:]) for each in answers]
    if given != expected:
        shapes = (" and ".join(map(str, each)) for each in (given, expected))
        raise UserError("The file gives outputs of {}, the model of {}.".format(*shapes))
    if tuple(model.input_shape[1:]) != file.input_shape[1:]:
        raise UserError(f"The file takes images of {file.input_shape[1:]}, the model of {model.input_shape[1:]}.")
    spec = image_spec or ImageSpec.raw(file.input_shape)
    outputs = Outputs.of(model, task, detector)
    return Reference.of(model, images, spec, labels, samples, seed, outputs).compare(file)
