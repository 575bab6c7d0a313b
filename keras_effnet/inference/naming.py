"""Names of what a network tells apart, and the probabilities from which labels count as present."""

from __future__ import annotations

from pathlib import Path

from keras_effnet.errors import UserError
from keras_effnet.imagenet import readable
from keras_effnet.inference.artifacts import Artifact
from keras_effnet.inference.companions import companion, fitting_names
from keras_effnet.system.documents import read_lines
from keras_effnet.system.files import why_no_file
from keras_effnet.tasks import TASKS
from keras_effnet.tasks.learning import LabelKind
from keras_effnet.tasks.thresholds import THRESHOLDS, read_thresholds

_NOUNS: dict[LabelKind, str] = {"flags": "label", "values": "value"}  # others are classes
_TOLD_APART = ("class", "mask")  # kinds of labels of which one output tells two classes apart


def thresholds(artifact: Artifact) -> tuple[float, ...] | None:
    """Probability from which on each label is present, from `thresholds.csv` of a run or an export; None without.

    Raises:
        UserError: The file is damaged, or lacks a label.
    """
    path = companion(artifact.path, THRESHOLDS) if artifact.task == "multilabel" else None
    return read_thresholds(path, class_names(artifact)) if path else None


def class_names(artifact: Artifact, labels: Path | None = None) -> list[str]:
    """Readable names of an artifact's classes, labels or values: from a file, its own, or numbered.

    Args:
        artifact: `Artifact`.
        labels: Path of a file with one name per line, used instead of the artifact's own names.

    Returns:
        List of strings, one per output; two for one output that tells two classes apart, the negative one first.

    Raises:
        UserError: The labels file does not exist, or has another number of names.
    """
    learning = TASKS[artifact.task].learning
    kind = learning.labels if learning else "values"
    names = tuple(readable(artifact.class_names or ()))
    if labels is not None:
        if not labels.is_file():
            raise UserError(f"Labels file {labels} {why_no_file(labels)}.")
        names = tuple(read_lines(labels))
        if not fitting_names(names, artifact.classes):
            raise UserError(
                f"{labels} has {len(names)} names, one a line, but {artifact.path} has {artifact.classes} classes."
            )
    if artifact.classes == 1 and kind in _TOLD_APART:
        return [f"not {names[0]}", names[0]] if len(names) == 1 else list(names or ("negative", "positive"))
    names = names or tuple(f"{_NOUNS.get(kind, 'class')} {index}" for index in range(artifact.classes))
    return list(names[-artifact.classes :])
