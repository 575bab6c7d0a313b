"""`EVALUATIONS`: the function that evaluates a network, by task."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_effnet.cli.evaluations.boxes import find_boxes
from keras_effnet.cli.evaluations.classes import find_classes
from keras_effnet.cli.evaluations.decisions import find_decisions, find_labels
from keras_effnet.cli.evaluations.findings import Findings, Subject
from keras_effnet.cli.evaluations.segments import find_segments
from keras_effnet.cli.evaluations.values import find_values

if TYPE_CHECKING:
    from keras_effnet.tasks import TaskName

EVALUATIONS: dict[TaskName, Callable[[Any, Subject], Findings]] = {
    "classification": find_classes,
    "binary": find_decisions,
    "multilabel": find_labels,
    "regression": find_values,
    "segmentation": find_segments,
    "detection": find_boxes,
}
