"""Comparison of a `.tflite` file with its Keras model on the same images, by the measures of its task. TensorFlow."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

import keras
import numpy as np

from keras_effnet.datasets.loading import Split
from keras_effnet.errors import UserError
from keras_effnet.evaluation.intervals import wilson_interval
from keras_effnet.export.calibration import Images, load_images, occurring_in
from keras_effnet.export.conversion.plausibility import check_predictions
from keras_effnet.export.conversion.structure import plain
from keras_effnet.export.isolation.isolated import IsolatedModel
from keras_effnet.export.tflite_file.interpreter import ImageModel
from keras_effnet.preprocessing import ImageSpec, check_range
from keras_effnet.tasks import TASKS, Task, TaskName, task_of

logger = logging.getLogger(__name__)

_BATCH_PIXELS = 10 * 224**2  # per batch: B7 at 600 pixels needs half a gigabyte per image

# Origin of the compared images: passed to `verify`; not used in calibration; used in calibration; made by
# `synthetic_images`.
Evidence: TypeAlias = Literal["given", "held-out", "calibration", "synthetic"]
_KIND: dict[str, str] = {"calibration": "calibration images", "synthetic": "synthetic images"}


@dataclass(frozen=True)
class VerifyReport:
    """Comparison of a `.tflite` file with its Keras model on the same images.

    Args:
        score: Float, at most 1, agreement by the measure of the task, see `tasks.TASKS`: share of images with the same
            most probable class or the same decision, R², mean cosine similarity, or mean IoU.
        sqnr_db: Float, power of the Keras model's signal over the power of the difference, in decibels. The signal of
            classes is the logits, centred per image, since softmax ignores their mean, and the ratio is the median over
            images: in a ratio of sums a single image with exploding logits would dominate. The signal of other outputs
            is what differs between images.
        max_abs_diff: Float, largest difference of an output.
        samples: Int, images compared.
        accuracy_keras, accuracy_tflite: Floats in [0, 1], or None without labels.
        top5_keras, top5_tflite: Floats in [0, 1], share of images whose class is among the five most probable; None
            without labels or with five classes or fewer.
        evidence: Origin of the images: `"given"` (passed to `verify`), `"held-out"` (not used in calibration),
            `"calibration"` (used in calibration, which makes the agreement optimistic) or `"synthetic"`.
        task: Name of the task.
        figures: Dict of the task's further figures, by name.
        agreement_interval: `(low, high)`, 95% interval of the score; by default Wilson's of a share of the images.
        agreeing: Int, number of images that agree; None if the score is not a share of the images.
        top1_agreement: Float in [0, 1], the score of a classifier; None for other tasks.
    """

    score: float
    sqnr_db: float
    max_abs_diff: float
    samples: int
    accuracy_keras: float | None = None
    accuracy_tflite: float | None = None
    top5_keras: float | None = None
    top5_tflite: float | None = None
    evidence: Evidence = "given"
    task: TaskName = "classification"
    figures: dict[str, float] = field(default_factory=dict)
    agreement_interval: tuple[float, float] = ()  # type: ignore[assignment]  # never empty after `__post_init__`
    agreeing: int | None = None
    top1_agreement: float | None = field(init=False)

    def __post_init__(self) -> None:
        if not self.agreement_interval:
            agreeing = round(self.score * self.samples)
            object.__setattr__(self, "agreeing", agreeing)
            object.__setattr__(self, "agreement_interval", wilson_interval(agreeing, self.samples))
        object.__setattr__(self, "top1_agreement", self.score if self.task == "classification" else None)

    @property
    def unseen(self) -> bool:
        """Whether the images are real and were not used in calibration."""
        return self.evidence in ("given", "held-out")

    @property
    def kind(self) -> str:
        """Kind of the images: `"images"`, `"calibration images"` or `"synthetic images"`."""
        return _KIND.get(self.evidence, "images")

    @property
    def agreement(self) -> str:
        """Agreement with its count, kind of images and interval, as text for a sentence."""
        low, high = self.agreement_interval
        return TASKS[self.task].sentence.format(
            agreeing=self.agreeing, samples=self.samples, kind=self.kind, score=self.score, low=low, high=high
        )


def compare(
    expected: np.ndarray,
    got: np.ndarray,
    labels: np.ndarray | None = None,
    task: Task = TASKS["classification"],
) -> VerifyReport:
    """Compare two sets of outputs for the same images.

    Args:
        expected, got: Arrays of the same shape, `(N, ...)`.
        labels: Array of true labels or None: classes of shape `(N,)`, or 0 and 1 of shape `(N, labels)`.
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
    drift = task.drift(labels, expected, got) if task.drift and labels is not None else {}
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
        figures=found.figures | drift,
        agreement_interval=found.interval,
        agreeing=found.agreeing,
    )


@dataclass(frozen=True, eq=False)
class Reference:
    """Held-out images and the Keras model's predictions, with which all files of a model are compared.

    Args:
        images: Array of shape `(N, height, width, channels)`, values 0..255.
        answers: Array of shape `(N, ...)`, the Keras model's outputs.
        labels: Int array of shape `(N,)`, or None.
        evidence: Origin of the images, as in `VerifyReport`.
        task: `Task` of the model.
    """

    images: np.ndarray
    answers: np.ndarray
    labels: np.ndarray | None = None
    evidence: Evidence = "given"
    task: Task = TASKS["classification"]

    @classmethod
    def of(
        cls,
        model: keras.Model,
        images: Images,
        image_spec: ImageSpec,
        labels: np.ndarray | None = None,
        samples: int = 500,
        seed: int = 0,
        task: TaskName | None = None,
    ) -> Reference:
        """Load the images and predict with the model; the arguments are those of `verify`."""
        found = task_of(model, task)
        if labels is not None and not found.judged:
            raise UserError(f"labels are classes or decisions, and the model's task is {found.name}.")
        if isinstance(images, Split) and found.judged:
            labels = images.labels
        elif labels is not None and (not isinstance(images, np.ndarray) or len(labels) != len(images)):
            raise UserError("labels need an array of images of the same length.")
        pixels = load_images(images, image_spec, samples if labels is None else len(labels), seed)
        check_range(pixels)
        batch = max(1, min(32, _BATCH_PIXELS // pixels[0, :, :, 0].size))
        answers = np.asarray(model.predict(pixels, batch_size=batch, verbose=0))
        check_predictions(model, pixels, answers)
        return cls(pixels, answers, labels, task=found)

    @property
    def remark(self) -> str:
        """Remark on predictions that make an agreement meaningless; empty if there is nothing to say."""
        outcomes = self.task.outcomes(self.answers)
        if (outcomes != outcomes[0]).any() or len(outcomes) < 2 or self.evidence == "synthetic":
            return ""
        return (
            f"The model {self.task.alike.format(outcomes[0])} for all {len(outcomes)} images, so the agreement proves "
            "little. Is it trained?"
        )

    def apart_from(self, calibration: np.ndarray) -> Reference:
        """Leave out the images that occur among the calibration images, unless all of them do."""
        seen = occurring_in(self.images, calibration)
        if seen.all():
            logger.warning("All images to compare on are calibration images: the agreement will be optimistic.")
            return replace(self, evidence="calibration")
        if seen.any():
            logger.warning("%d of %d images to compare on are calibration images; left out.", seen.sum(), len(seen))
        labels = None if self.labels is None else self.labels[~seen]
        return Reference(self.images[~seen], self.answers[~seen], labels, "held-out", self.task)

    def compare(self, file: ImageModel) -> VerifyReport:
        """Runs a file on the images and compares it with the model."""
        found = compare(self.answers, file.predict(self.images), self.labels, self.task)
        return replace(found, evidence=self.evidence)


def verify(
    tflite_path: str | Path | bytes,
    model: keras.Model,
    images: Images,
    *,
    labels: np.ndarray | None = None,
    samples: int = 500,
    seed: int = 0,
    image_spec: ImageSpec | None = None,
    task: TaskName | None = None,
) -> VerifyReport:
    """Compare a `.tflite` file with its Keras model on the same images.

    Args:
        tflite_path: Path of the file, or its bytes.
        model: Keras model that the file was made from.
        images: A folder, a `tf.data.Dataset` of batches, an array of shape `(N, height, width, 3)`, or a `Split`,
            whose labels are used; pixels in 0..255.
        labels: Int array of shape `(N,)` in the order of `images`, which must then be an array; classes, or 0 and 1 of
            a binary network, or of shape `(N, labels)` of one with several labels. Of the last two the report has the
            AUC drift: the AUC that the worst label loses in the file.
        samples: Int, maximum number of images; with labels all are used.
        seed: Int, seed of the draw from a folder.
        image_spec: `ImageSpec`, how images are cropped; by default the whole central square.
        task: String, what the output means, one of `tasks.TASK_NAMES`; by default told by the model, see
            `tasks.task_of`.

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
    if tuple(model.output_shape[1:]) != file.output_shape[1:]:
        raise UserError(f"The file gives outputs of {file.output_shape[1:]}, the model of {model.output_shape[1:]}.")
    if tuple(model.input_shape[1:]) != file.input_shape[1:]:
        raise UserError(f"The file takes images of {file.input_shape[1:]}, the model of {model.input_shape[1:]}.")
    spec = image_spec or ImageSpec.raw(file.input_shape)
    return Reference.of(model, images, spec, labels, samples, seed, task).compare(file)
