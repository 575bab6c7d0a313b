"""Comparison of a `.tflite` file with its Keras model on the same images: agreement, SQNR, accuracy. TensorFlow."""

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
from keras_effnet.export.conversion.float_graph import plain
from keras_effnet.export.conversion.plausibility import check_predictions
from keras_effnet.export.isolation.isolated import IsolatedModel
from keras_effnet.export.tflite_file.interpreter import ImageClassifier
from keras_effnet.preprocessing import ImageSpec, check_range

logger = logging.getLogger(__name__)

_BATCH_PIXELS = 10 * 224**2  # per batch: B7 at 600 pixels needs half a gigabyte per image
_TINY = np.finfo("float32").tiny

# Origin of the compared images: passed to `verify`; not used in calibration; used in calibration; made by
# `synthetic_images`.
Evidence: TypeAlias = Literal["given", "held-out", "calibration", "synthetic"]
_KIND: dict[str, str] = {"calibration": "calibration images", "synthetic": "synthetic images"}


@dataclass(frozen=True)
class VerifyReport:
    """Comparison of a `.tflite` file with its Keras model on the same images.

    Args:
        top1_agreement: Float in [0, 1], share of images with the same most probable class.
        sqnr_db: Float, power of the Keras model's logits over the power of the difference, in decibels, median over
            images: in a ratio of sums a single image with exploding logits would dominate. Logits are centred per
            image, since softmax ignores their mean.
        max_abs_diff: Float, largest difference of a probability.
        samples: Int, images compared.
        accuracy_keras, accuracy_tflite: Floats in [0, 1], or None without labels.
        top5_keras, top5_tflite: Floats in [0, 1], share of images whose class is among the five most probable; None
            without labels or with five classes or fewer.
        evidence: Origin of the images: `"given"` (passed to `verify`), `"held-out"` (not used in calibration),
            `"calibration"` (used in calibration, which makes the agreement optimistic) or `"synthetic"`.
        agreeing: Int, number of images with the same most probable class.
        agreement_interval: `(low, high)`, 95% Wilson interval of `top1_agreement`.
    """

    top1_agreement: float
    sqnr_db: float
    max_abs_diff: float
    samples: int
    accuracy_keras: float | None = None
    accuracy_tflite: float | None = None
    top5_keras: float | None = None
    top5_tflite: float | None = None
    evidence: Evidence = "given"
    agreeing: int = field(init=False)
    agreement_interval: tuple[float, float] = field(init=False)

    def __post_init__(self) -> None:
        agreeing = round(self.top1_agreement * self.samples)
        object.__setattr__(self, "agreeing", agreeing)
        object.__setattr__(self, "agreement_interval", wilson_interval(agreeing, self.samples))

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
        return (
            f"{self.agreeing} of {self.samples} {self.kind} ({self.top1_agreement:.1%}, 95% interval {low:.1%} to "
            f"{high:.1%})"
        )


def centred_logits(outputs: np.ndarray) -> np.ndarray:
    """Compute logits with mean 0 per image, from probabilities or from logits."""
    probabilities = outputs.min() >= 0 and np.allclose(outputs.sum(axis=1), 1, atol=1e-2)
    logits = np.log(np.maximum(outputs, _TINY)) if probabilities else outputs
    return logits - logits.mean(axis=1, keepdims=True)


def sqnr_db(expected: np.ndarray, got: np.ndarray, per: Literal["image", "tensor"] = "image") -> float:
    """Signal-to-quantization-noise ratio in decibels.

    Args:
        expected, got: Arrays of the same shape: predictions of shape `(N, classes)` for `per="image"`, activations of
            any shape for `per="tensor"`.
        per: `"image"`: median over images of the ratio of centred logits, as in `VerifyReport`. `"tensor"`: variance of
            `expected` over the mean squared difference, all elements together.
    """
    expected, got = expected.astype("float64"), got.astype("float64")
    if per == "image":
        axis, signal = 1, centred_logits(expected)
        noise = centred_logits(got) - signal
    else:
        axis, signal, noise = None, expected - expected.mean(), got - expected
    power, noise_power = (np.maximum(np.mean(part**2, axis=axis), 1e-30) for part in (signal, noise))
    return float(np.median(10 * np.log10(power / noise_power)))


def _hits(outputs: np.ndarray, labels: np.ndarray | None, best: int) -> float | None:
    """Top-k accuracy with k = `best`; None without labels or with k classes or fewer."""
    if labels is None or outputs.shape[1] <= best:
        return None
    top = np.argpartition(-outputs, range(best), axis=1)[:, :best]
    return float(np.mean((top == labels[:, None]).any(axis=1)))


def compare(expected: np.ndarray, got: np.ndarray, labels: np.ndarray | None = None) -> VerifyReport:
    """Compare two sets of predictions of shape `(N, classes)`."""
    if not np.isfinite(got).all():
        return VerifyReport(0.0, -np.inf, np.inf, len(expected))
    best_expected, best_got = expected.argmax(axis=1), got.argmax(axis=1)
    return VerifyReport(
        samples=len(expected),
        top1_agreement=float(np.mean(best_expected == best_got)),
        sqnr_db=sqnr_db(expected, got),
        max_abs_diff=float(np.abs(expected - got).max()),
        accuracy_keras=None if labels is None else float(np.mean(best_expected == labels)),
        accuracy_tflite=None if labels is None else float(np.mean(best_got == labels)),
        top5_keras=_hits(expected, labels, 5),
        top5_tflite=_hits(got, labels, 5),
    )


@dataclass(frozen=True, eq=False)
class Reference:
    """Held-out images and the Keras model's predictions, with which all files of a model are compared.

    Args:
        images: Array of shape `(N, height, width, channels)`, values 0..255.
        answers: Array of shape `(N, classes)`, the Keras model's predictions.
        labels: Int array of shape `(N,)`, or None.
        evidence: Origin of the images, as in `VerifyReport`.
    """

    images: np.ndarray
    answers: np.ndarray
    labels: np.ndarray | None = None
    evidence: Evidence = "given"

    @classmethod
    def of(
        cls,
        model: keras.Model,
        images: Images,
        image_spec: ImageSpec,
        labels: np.ndarray | None = None,
        samples: int = 500,
        seed: int = 0,
    ) -> Reference:
        """Load the images and predict with the model; the arguments are those of `verify`."""
        if isinstance(images, Split):
            labels = images.labels
        elif labels is not None and (not isinstance(images, np.ndarray) or len(labels) != len(images)):
            raise UserError("labels need an array of images of the same length.")
        pixels = load_images(images, image_spec, samples if labels is None else len(labels), seed)
        check_range(pixels)
        batch = max(1, min(32, _BATCH_PIXELS // pixels[0, :, :, 0].size))
        answers = np.asarray(model.predict(pixels, batch_size=batch, verbose=0))
        check_predictions(model, pixels, answers)
        return cls(pixels, answers, labels)

    @property
    def remark(self) -> str:
        """Remark on predictions that make an agreement meaningless; empty if there is nothing to say."""
        best = np.unique(self.answers.argmax(axis=1))
        if len(best) > 1 or len(self.answers) < 2 or self.evidence == "synthetic":
            return ""
        return (
            f"The model predicts class {best[0]} for all {len(self.answers)} images, so the agreement proves little. "
            "Is it trained?"
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
        return Reference(self.images[~seen], self.answers[~seen], labels, "held-out")

    def compare(self, file: ImageClassifier) -> VerifyReport:
        """Runs a file on the images and compares it with the model."""
        return replace(compare(self.answers, file.predict(self.images), self.labels), evidence=self.evidence)


def verify(
    tflite_path: str | Path | bytes,
    model: keras.Model,
    images: Images,
    *,
    labels: np.ndarray | None = None,
    samples: int = 500,
    seed: int = 0,
    image_spec: ImageSpec | None = None,
) -> VerifyReport:
    """Compare a `.tflite` file with its Keras model on the same images.

    Args:
        tflite_path: Path of the file, or its bytes.
        model: Keras model that the file was made from.
        images: A folder, a `tf.data.Dataset` of batches, an array of shape `(N, height, width, 3)`, or a `Split`,
            whose labels are used; pixels in 0..255.
        labels: Int array of shape `(N,)` in the order of `images`, which must then be an array.
        samples: Int, maximum number of images; with labels all are used.
        seed: Int, seed of the draw from a folder.
        image_spec: `ImageSpec`, how images are cropped; by default the whole central square.

    Returns:
        A `VerifyReport`.

    Raises:
        UserError: The file cannot be run, or its input size or classes differ from the model's.

    Example:

    >>> report = keras_effnet.export.verify("model_int8.tflite", model, "images/")
    >>> report.top1_agreement
    """
    file = IsolatedModel(tflite_path)
    model = plain(model)
    if file.classes != model.output_shape[-1]:
        raise UserError(f"The file gives {file.classes} classes, the model {model.output_shape[-1]}.")
    if tuple(model.input_shape[1:]) != file.input_shape[1:]:
        raise UserError(f"The file takes images of {file.input_shape[1:]}, the model of {model.input_shape[1:]}.")
    spec = image_spec or ImageSpec.raw(file.input_shape)
    return Reference.of(model, images, spec, labels, samples, seed).compare(file)
