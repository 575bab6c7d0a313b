"""Tables and names of TFLite metadata.

Source: metadata schema 1.5.0 (file identifier M001), `metadata_schema.fbs` in google-ai-edge/mediapipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from keras_effnet.export.tflite_file.flatbuffer import schema

ENTRY = "TFLITE_METADATA"
RUNTIME_ENTRY = "min_runtime_version"
RUNTIME_BYTES = 16  # of the entry, padded with zeros
LABELS_FILE = "labels.txt"

IDENTIFIER = b"M001"
OLDEST_PARSER = "1.0.0"  # that knows all the fields that are written here
DETECTOR = "DETECTOR_METADATA"
BOUNDARIES = 1  # type of boxes: their edges, in shares of the image
COLOR_SPACES = ("UNKNOWN", "RGB", "GRAYSCALE")


class Content(IntEnum):
    """What a tensor holds."""

    FEATURE = 1
    IMAGE = 2
    BOXES = 3


class Unit(IntEnum):
    """What a client does with a tensor."""

    NORMALIZATION = 1
    THRESHOLD = 3


class Labels(IntEnum):
    """What class names belong to: the last axis of an output, or its values."""

    OF_AXIS = 2
    OF_VALUES = 3


TABLES = schema(
    """
    ModelMetadata: name:string description:string version:string graphs:[SubGraphMetadata] author:string
        license:string - min_parser_version:string
    SubGraphMetadata: name:string description:string inputs:[TensorMetadata] outputs:[TensorMetadata] - - - - -
        custom:[CustomMetadata]
    CustomMetadata: name:string data:[u8]
    TensorMetadata: name:string description:string - content:Content units:[ProcessUnit] stats:Stats
        files:[AssociatedFile]
    AssociatedFile: name:string description:string type:i8 locale:string
    Content: kind:u8 properties:union range:ValueRange
    ValueRange: min:i32 max:i32
    BoundingBoxProperties: index:[u32] type:i8 coordinates:i8
    FeatureProperties:
    ImageProperties: color_space:i8
    ProcessUnit: kind:u8 options:union
    NormalizationOptions: mean:[f32] std:[f32]
    ScoreThresholdingOptions: threshold:f32
    Stats: max:[f32] min:[f32]
    """
)
UNIONS: dict[tuple[str, int], str] = {
    ("Content", Content.FEATURE): "FeatureProperties",
    ("Content", Content.IMAGE): "ImageProperties",
    ("Content", Content.BOXES): "BoundingBoxProperties",
    ("ProcessUnit", Unit.NORMALIZATION): "NormalizationOptions",
    ("ProcessUnit", Unit.THRESHOLD): "ScoreThresholdingOptions",
}


@dataclass(frozen=True)
class FileMetadata:
    """Metadata of a `.tflite` image classifier. Absent texts are empty.

    Args:
        name, description, version, author, license: Strings.
        input_name, input_description: Strings.
        color_space: `"RGB"`, `"GRAYSCALE"` or `"UNKNOWN"`; None if the input is not declared to be an image.
        mean, std: Tuples of one float or one per channel: clients compute `(pixel - mean) / std`. Empty if absent.
        pixel_range: Smallest and largest value of the input; None if absent.
        output_name, output_description: Strings.
        score_threshold: Float, clients drop classes with a lower score; None if absent.
        labels: Tuple of class names, from the file that belongs to the output.
        more_outputs: Tuple of `(name, description)` of further outputs.
        boxes: Int, number of the output that holds boxes; None if there is none.
        labelled: Int, number of the output that the labels belong to.
        names_values: Bool, whether labels name the values of that output instead of its last axis.
        detector_options: Bytes, the anchors of a detector for MediaPipe, see `detector_options`.
        min_parser_version: String.
    """

    name: str = ""
    description: str = ""
    version: str = ""
    author: str = ""
    license: str = ""
    input_name: str = ""
    input_description: str = ""
    color_space: str | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    pixel_range: tuple[float, float] | None = None
    output_name: str = ""
    output_description: str = ""
    score_threshold: float | None = None
    labels: tuple[str, ...] = ()
    more_outputs: tuple[tuple[str, str], ...] = ()
    boxes: int | None = None
    labelled: int = 0
    names_values: bool = False
    detector_options: bytes = b""
    min_parser_version: str = OLDEST_PARSER
