"""`DETECTOR_METADATA`: anchors and box code of a detector, as MediaPipe's ObjectDetector reads them. numpy.

Also tells files that end in detections from those that end in box codes.

Source: `object_detector_metadata_schema.fbs` 1.0.0 (file identifier V001) in google-ai-edge/mediapipe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.detection.anchors import anchor_boxes
from keras_effnet.errors import UserError
from keras_effnet.export.tflite_file.flatbuffer import Reader, schema
from keras_effnet.export.tflite_file.graph import content_of
from keras_effnet.export.tflite_file.metadata.writing import written

POST_PROCESSING = "TFLite_Detection_PostProcess"  # name of the operator
_IDENTIFIER = b"V001"
_TABLES = schema(
    """
    ObjectDetectorOptions: min_parser_version:string anchors:SsdAnchorsOptions decoding:TensorsDecodingOptions
    SsdAnchorsOptions: fixed:FixedAnchorsSchema
    FixedAnchorsSchema: anchors:[FixedAnchor]
    FixedAnchor: x:f32 y:f32 width:f32 height:f32
    TensorsDecodingOptions: classes:i32 boxes:i32 coords:i32 keypoint_offset:i32 keypoints:i32 keypoint_values:i32
        x_scale:f32 y_scale:f32 w_scale:f32 h_scale:f32 exponential:bool sigmoid:bool
    """
)


def centered_anchors(spec: DetectorSpec, image_size: tuple[int, int]) -> np.ndarray:
    """Anchors as clients take them: (y, x, height, width) of shape `(anchors, 4)`, in shares of the image."""
    boxes = anchor_boxes(spec, image_size).astype("float64") / np.tile(image_size, 2)
    sizes = boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([boxes[:, :2] + sizes / 2, sizes], axis=1).astype("float32")


def client_options(spec: DetectorSpec, image_size: tuple[int, int]) -> bytes:
    """The flatbuffer with the anchors of a detector and the way its boxes are coded.

    Args:
        spec: `DetectorSpec`.
        image_size: Height and width of the network's input in pixels.
    """
    import flatbuffers

    anchors = centered_anchors(spec, image_size).tolist()
    values: dict[str, Any] = {
        "min_parser_version": "1.0.0",
        "anchors": {"fixed": {"anchors": [{"x": x, "y": y, "width": w, "height": h} for y, x, h, w in anchors]}},
        "decoding": {
            "classes": spec.classes,
            "boxes": len(anchors),
            "coords": 4,
            "keypoint_values": 2,  # there are no keypoints, but MediaPipe takes no other number
            **dict.fromkeys(("x_scale", "y_scale", "w_scale", "h_scale"), 1.0),
            "exponential": True,  # sizes are coded as logarithms; offsets in anchor sizes, y before x
        },
    }
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(written(builder, "ObjectDetectorOptions", values, _TABLES), _IDENTIFIER)
    return bytes(builder.Output())


def read_anchors(options: bytes) -> np.ndarray:
    """Anchors of `client_options`, as `centered_anchors`.

    Raises:
        MalformedError: The flatbuffer is damaged.
    """
    tables = Reader(options, _TABLES, lambda table, field, kind: "").root("ObjectDetectorOptions")
    fixed = tables.anchors.fixed.anchors if tables.anchors and tables.anchors.fixed else ()
    return np.array([[each.y, each.x, each.height, each.width] for each in fixed], "float32").reshape(-1, 4)


def has_post_processing(path: str | Path) -> bool:
    """Whether a file ends in detections, found by the operator's name alone: the file may be damaged."""
    return POST_PROCESSING.encode() in content_of(path)


def refuse_post_processing(path: str | Path) -> None:
    """Refuse a file that ends in detections, whose codes and scores nobody can read.

    Raises:
        UserError: It is one.
    """
    if has_post_processing(path):
        raise UserError(f"{path} ends in detections, for clients alone: give the file that it was made from.")
