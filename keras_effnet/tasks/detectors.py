"""The task of a detector with known anchors, which its boxes refer to. numpy."""

from __future__ import annotations

from dataclasses import replace

from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.detection.anchors import anchor_boxes
from keras_effnet.evaluation.by_task.box_agreement import BoxReader
from keras_effnet.tasks.table import TASKS
from keras_effnet.tasks.task import Task


def detection_task(spec: DetectorSpec, image_size: tuple[int, int]) -> Task:
    """The row of detectors in `TASKS`, with functions that read boxes.

    Args:
        spec: `DetectorSpec`, for the anchors.
        image_size: Height and width of the network's input in pixels.

    Returns:
        A `Task`. Its functions take arrays of shape `(N, anchors, 4 + classes)`: box codes, then scores; labels are
        sequences of `detection.Truth` in pixels of the input.
    """
    reader = BoxReader(anchor_boxes(spec, image_size), image_size)
    return replace(TASKS["detection"], agreement=reader.agreement, outcomes=reader.outcomes, drift=reader.drift)
