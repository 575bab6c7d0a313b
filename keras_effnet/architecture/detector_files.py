"""`detector.json`: the spec of a trained detector beside its weights, which belong to its anchors. Pure Python."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.errors import UserError
from keras_effnet.system.documents import json_text, parse_json, read_text
from keras_effnet.system.files import write_text
from keras_effnet.system.typed_values import build

DETECTOR_JSON = "detector.json"


def save_detector(spec: DetectorSpec, path: str | Path) -> None:
    """Write a detector, with its backbone and anchors, to a JSON file, atomically.

    Args:
        spec: `DetectorSpec`.
        path: Path of the file, `detector.json` in the folder of the weights.
    """
    write_text(path, json_text(asdict(spec)) + "\n")


def load_detector(path: str | Path) -> DetectorSpec:
    """Read a file that `save_detector` wrote; missing fields get their defaults.

    Args:
        path: Path of the file.

    Returns:
        A `DetectorSpec`.

    Raises:
        UserError: The file is damaged or of another kind.
    """
    text = read_text(path)
    try:
        return build(DetectorSpec, parse_json(text))
    except UserError as error:
        raise UserError(f"{path} was not written by save_detector: {error}") from None
