"""The document of `model.json`, field by field: how an app runs the `.tflite` files of an export. Pure Python."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from keras_effnet.datasets.image_formats.limits import ANTIALIASED_FROM
from keras_effnet.export.tflite_file.clients import Verdict
from keras_effnet.system.documents import json_text

FORMAT = 1
MODEL_JSON, LABELS, ANCHORS = "model.json", "labels.txt", "anchors.bin"
ANCHOR_BYTES = 16  # in the file of anchors, four float32


@dataclass(frozen=True)
class Crop:
    """The square that an image is cropped to, in the middle of the upright image.

    Args:
        fraction: Float in (0, 1], side of the square as a share of the shorter side of the image, rounded half to even.
        position: `"center"`; offsets are rounded down.
    """

    fraction: float
    position: str = "center"


@dataclass(frozen=True)
class Resize:
    """How an image is resized to the input.

    Args:
        crop: `Crop`, of `fit="crop"`; else None: the whole image is kept.
        interpolation: `"bilinear"` or `"bicubic"` (Keys' cubic convolution, a = -0.5), with half-pixel centres and
            without pixels beyond the edges.
        antialias_from_reduction: Int. If each side of what is resized, divided by its side in the input and rounded
            down, is at least this, the kernel is widened by the reduction.
        fit: `"crop"` resizes the square in the middle; of detectors `"stretch"` resizes the whole image, and
            `"letterbox"` keeps its aspect ratio: both sides are multiplied by the smaller of the factors that make a
            side as long as the input's, and rounded half to even.
        padding: Value of each channel below or to the right of a letterboxed image, 0..255; None otherwise.
    """

    crop: Crop | None
    interpolation: str
    antialias_from_reduction: int = ANTIALIASED_FROM
    fit: str = "crop"
    padding: tuple[float, ...] | None = None


@dataclass(frozen=True)
class ImageRule:
    """What is done with an image before it is normalized.

    Args:
        height, width: Ints, pixels.
        color: `"RGB"` or `"GRAYSCALE"`.
        range: Pair of floats, values of the pixels before normalization.
        exif_orientation: String.
        resize: `Resize`.
    """

    height: int
    width: int
    color: str
    range: tuple[float, float]
    resize: Resize
    exif_orientation: str = "applied first"


@dataclass(frozen=True)
class Port:
    """An input or output. `scale` and `zero_point` are null unless it is quantized.

    An input of `uint8` takes the bytes of the pixels; one of `float32` takes `(pixel - mean) / std`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int | None


@dataclass(frozen=True)
class Normalization:
    """`(pixel - mean) / std` is what a float input takes: one value for all channels, or one per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Agreement:
    """Agreement with the Keras model: share of images with its most probable class, or the measure of the task.

    Args:
        fraction: Float, 1 if nothing differs.
        samples: Int, number of images.
        interval: Pair of floats, 95% Wilson interval.
        evidence: `"held-out"`, `"calibration"`, `"synthetic"` or `"given"`, as in `VerifyReport`.
        figures: Dict of the task's further figures, by name, such as the average precision of a detector.
    """

    fraction: float
    samples: int
    interval: tuple[float, float]
    evidence: str
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Accuracy:
    """Top-1 and top-5 accuracy on labelled images, and the top-1 accuracy of the Keras model on the same images."""

    top1: float
    top5: float | None
    samples: int
    top1_keras: float


@dataclass(frozen=True)
class Answer:
    """A class or label with its score, a value with its number, or a class of masks with its share of the pixels.

    Of a detector, a box with its class and score: `box` is x0, y0, x1, y1 in pixels of the upright image.
    """

    index: int
    label: str
    score: float
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class BoxRule:
    """How the outputs of a detector become boxes.

    The first output is a code (ty, tx, th, tw) for each anchor, the second a score for each anchor and class. A box has
    the center `anchor center + (ty, tx) * anchor size` and the size `anchor size * exp((th, tw))`. Boxes with a score
    above `score_threshold`, best first, are kept unless one of the same class that was kept overlaps them by more.

    Args:
        anchors: String, name of the file of anchors beside the document: little-endian float32, for each anchor the
            y and x of its center, height and width, in pixels of the input.
        count: Int, number of anchors.
        score_threshold: Float, scores at or below it are no boxes.
        overlap_threshold: Float, intersection over union above which the box with the lower score is dropped.
        max_detections: Int, boxes of an image.
        max_candidates: Int, scores that take part, the best ones.
    """

    anchors: str
    count: int
    score_threshold: float
    overlap_threshold: float
    max_detections: int
    max_candidates: int


@dataclass(frozen=True)
class ModelFile:
    """One `.tflite` file.

    Args:
        file: String, name of the file beside the document.
        precision: `"float32"`, `"float16"`, `"dynamic"`, `"weight_only"`, `"int8"`, `"int16x8"` or `"mixed"`; without a
            record `"int8"` stands for mixed files too.
        bytes, sha256: Size and digest.
        inputs, outputs: Tuples of `Port`s.
        signature: String, the key of its first signature, or None.
        normalization: `Normalization`, or None if the file has no metadata.
        agreement: `Agreement`, or None if unknown.
        accuracy: `Accuracy`, or None.
        latency_ms: Float, median of one image on one thread of `latency_cpu`, or None.
        latency_cpu: String or None.
        min_runtime_version: String or None.
        calibration_images: Int, number of images that the ranges of its integers come from, or None.
        clients: Tuple of `Verdict`s.
        expected_top5: Tuple of `Answer`s, what LiteRT's CPU kernels give for the test image, or None: the five best
            classes or labels, best first; the five classes with most pixels; all values; or the five best boxes.
    """

    file: str
    precision: str
    bytes: int
    sha256: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    signature: str | None
    normalization: Normalization | None
    agreement: Agreement | None
    accuracy: Accuracy | None
    latency_ms: float | None
    latency_cpu: str | None
    min_runtime_version: str | None
    calibration_images: int | None
    clients: tuple[Verdict, ...]
    expected_top5: tuple[Answer, ...] | None = None


@dataclass(frozen=True)
class ModelDocument:
    """The document.

    Args:
        format: Int, version of the document's format.
        name: String.
        description, license, author: Strings, from the metadata of the first file; empty if unknown.
        created_with: Dict of package -> version; None where unknown.
        labels: String, name of the file of class names beside the document, one a line in the order of the outputs.
        classes: Int, number of classes.
        image: `ImageRule`.
        files: Tuple of `ModelFile`s.
        recommended: String, the file that the export's report recommends, or None.
        task: String, what the output means: `"classification"`, `"binary"`, `"multilabel"`, `"regression"`,
            `"segmentation"` or `"detection"`.
        thresholds: Tuple of floats, score from which on each label is present (binary, multilabel), or None.
        boxes: `BoxRule` of a detector, else None.
        test_image: String, name of the image of `expected_top5` beside the document, or None.
    """

    name: str
    description: str
    license: str
    author: str
    created_with: dict[str, str | None]
    classes: int
    image: ImageRule
    files: tuple[ModelFile, ...]
    recommended: str | None = None
    test_image: str | None = None
    task: str = "classification"
    thresholds: tuple[float, ...] | None = None
    boxes: BoxRule | None = None
    labels: str = LABELS
    format: int = FORMAT

    def to_json(self) -> str:
        """The document as indented JSON."""
        return json_text(asdict(self)) + "\n"
