"""Post-processing inside a detector's file: the operator `TFLite_Detection_PostProcess` behind its two outputs.

It is appended to the finished file, whatever its precision. Suppression is the regular one, within each class; the fast
one of the operator is across classes and costs 2 to 3 points of AP. LiteRT and numpy; never TensorFlow.

Source: `detection_postprocess.cc` of TensorFlow Lite.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.detection.anchors import anchor_boxes
from keras_effnet.detection.boxes import overlaps
from keras_effnet.detection.suppression import Detections, detections
from keras_effnet.errors import UserError, VerificationError
from keras_effnet.export.calibration import synthetic_images
from keras_effnet.export.description import described_again
from keras_effnet.export.outputs import Port
from keras_effnet.export.tflite_file.graph import content_of
from keras_effnet.export.tflite_file.interpreter import open_interpreter
from keras_effnet.export.tflite_file.metadata.detector_options import POST_PROCESSING, centered_anchors
from keras_effnet.export.tflite_file.schema import add_buffer, pack, parse, tensor_dtype
from keras_effnet.system.files import atomic

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT

_CUSTOM = 32  # builtin code of custom operators
_OVERLAP = 0.5  # above which a box suppresses another
_SAME = 0.99  # overlap of the same box
_CLOSE = 1e-4  # difference of scores, and of scores whose boxes may change places


def post_processed(
    content: bytes,
    spec: DetectorSpec,
    *,
    score_threshold: float = 0.01,
    overlap_threshold: float = _OVERLAP,
    max_detections: int = 100,
) -> bytes:
    """Append the operator to a file that returns boxes and scores.

    Args:
        content: Bytes of a file that `export_tflite` wrote.
        spec: `DetectorSpec`.
        score_threshold, overlap_threshold, max_detections: As in `detection.detections`.

    Returns:
        Bytes of a file with four float32 outputs: `detection_boxes` `(1, D, 4)`, y0, x0, y1, x1 in shares of the image;
        `detection_classes` and `detection_scores` `(1, D)`, best first; and `num_detections` `(1,)`.

    Raises:
        UserError: The file is not that of this detector.
    """
    model = parse(content)
    graph = model.subgraphs[0]
    _, height, width, _ = map(int, graph.tensors[graph.inputs[0]].shape)
    anchors = centered_anchors(spec, (height, width))
    shapes = [tuple(map(int, graph.tensors[index].shape)) for index in graph.outputs]
    expected = [(1, len(anchors), 4), (1, len(anchors), spec.classes)]
    if shapes != expected or {tensor_dtype(model, int(index)) for index in graph.outputs} != {"float32"}:
        raise UserError(f"Post-processing takes the outputs {expected} of this detector in float32, not {shapes}.")
    options = {
        "max_detections": max_detections,
        "max_classes_per_detection": 1,
        "detections_per_class": max_detections,
        "use_regular_nms": True,
        "nms_score_threshold": float(score_threshold),
        "nms_iou_threshold": float(overlap_threshold),
        "num_classes": spec.classes,
        **dict.fromkeys(("y_scale", "x_scale", "h_scale", "w_scale"), 1.0),
    }
    _append(model, anchors, options, max_detections)
    ports = (
        Port("detection_boxes", (max_detections, 4), "y0, x0, y1, x1 in shares of the image.", "location", "corners"),
        Port("detection_classes", (max_detections,), "Numbers of the classes.", "category", "values"),
        Port("detection_scores", (max_detections,), "Scores, 0 to 1, best first.", "score", "values"),
        Port("num_detections", (), "Number of detections.", "number of detections"),
    )
    return described_again(pack(model), content, ports)


def _append(model: ModelT, anchors: np.ndarray, options: dict[str, Any], most: int) -> None:
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import flexbuffers

    graph = model.subgraphs[0]

    def tensor(name: str, shape: tuple[int, ...], place: int = 0) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name.encode(), np.array(shape, "int32"), 0, place
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = _CUSTOM
    code.customCode, code.version = POST_PROCESSING.encode(), 1
    model.operatorCodes.append(code)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.customOptions = np.frombuffer(bytes(flexbuffers.Dumps(options)), "uint8")
    operator.inputs = [*map(int, graph.outputs), tensor("anchors", anchors.shape, add_buffer(model, anchors))]
    shapes = {"boxes": (1, most, 4), "classes": (1, most), "scores": (1, most), "number": (1,)}
    operator.outputs = [tensor(f"{POST_PROCESSING}_{name}", shape) for name, shape in shapes.items()]
    graph.operators.append(operator)
    graph.outputs = list(operator.outputs)


def add_post_processing(
    source: str | Path, path: str | Path, spec: DetectorSpec, images: np.ndarray | None = None, **options: Any
) -> Path:
    """Write a copy of a detector's file with post-processing inside, after LiteRT ran both on the same images.

    Args:
        source: Path of a file that `export_tflite` wrote.
        path: Path of the new file.
        spec: `DetectorSpec`.
        images: Array of shape `(N, height, width, channels)`, values 0..255; smooth synthetic images by default.
        **options: `score_threshold`, `overlap_threshold` and `max_detections` of `detection.detections`.

    Returns:
        The path.

    Raises:
        UserError: The file is not that of this detector.
        VerificationError: The new file finds other boxes than `detection.detections` in the outputs of the old one.
            Nothing is written.
    """
    before = bytes(content_of(source))
    after = post_processed(before, spec, **options)
    old, new = (open_interpreter(content) for content in (before, after))
    shape, dtype = (old.get_input_details()[0][key] for key in ("shape", "dtype"))
    height, width, channels = map(int, shape[1:])
    pixels = synthetic_images((height, width, channels)) if images is None else images
    size, threshold = (height, width), options.get("overlap_threshold", _OVERLAP)
    for number, image in enumerate(pixels):
        batch = np.clip(np.round(image), 0, 255).astype(dtype)[None] if dtype != np.float32 else image[None]
        (codes, scores), found = (_run(each, batch.astype(dtype)) for each in (old, new))
        expected = detections(
            codes[0], scores[0], anchor_boxes(spec, size), size, max_candidates=scores.size, **options
        )
        if difference := difference_of(expected, read_detections(found, size), threshold):
            raise VerificationError(f"{path} finds other boxes than {source} in image {number}: {difference}.")
    with atomic(Path(path)) as temporary:
        Path(temporary).write_bytes(after)
    return Path(path)


def _run(interpreter: Any, batch: np.ndarray) -> list[np.ndarray]:
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], batch)
    interpreter.invoke()
    return [interpreter.get_tensor(port["index"]) for port in interpreter.get_output_details()]


def read_detections(outputs: list[np.ndarray], image_size: tuple[int, int]) -> Detections:
    """Detections from the four outputs of a file with post-processing, in pixels and clipped to the image."""
    boxes, classes, scores, number = outputs
    count = int(number[0])
    found = np.clip(boxes[0, :count], 0, 1) * np.tile(image_size, 2)
    return Detections(found.astype("float32"), scores[0, :count], np.round(classes[0, :count]).astype("int32"))


def difference_of(expected: Detections, got: Detections, overlap_threshold: float = _OVERLAP) -> str:
    """What differs between two sets of detections; empty if nothing but which of equal scores came first.

    Args:
        expected, got: `Detections` of the same image.
        overlap_threshold: Float, intersection over union above which a box suppresses another.
    """
    if len(expected) != len(got):
        return f"{len(got)} instead of {len(expected)}"
    if not len(expected):
        return ""
    if np.abs(np.sort(expected.scores) - np.sort(got.scores)).max() > _CLOSE:
        return "the scores differ"
    near = np.abs(expected.scores[:, None] - got.scores[None]) <= _CLOSE
    same = near & (expected.labels[:, None] == got.labels[None])
    shared = overlaps(expected.boxes, got.boxes)
    matched = (same & (shared >= _SAME)).any(axis=1)
    empty = np.prod(expected.boxes[:, 2:] - expected.boxes[:, :2], axis=1) <= 1  # outside of the image
    # Of boxes with the same score, as many have in int8, either may come first and suppress the other, and the last
    # ones are as many as there is room for.
    instead = (same & (shared > overlap_threshold)).any(axis=1)
    last = expected.scores <= expected.scores.min() + _CLOSE
    lost = int((~matched & ~empty & ~instead & ~last).sum())
    return f"{lost} of {len(expected)} are not found" if lost else ""
