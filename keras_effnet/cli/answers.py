"""`ANSWERS`: how `predict` turns outputs into answers, by task. numpy, and Pillow to write masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from keras_effnet.inference.layouts import (
    BEST,
    BOXES,
    FLAGS,
    MASK,
    VALUES,
    VECTOR,
    Flags,
    Found,
    FoundBox,
    Layout,
    Mask,
)

if TYPE_CHECKING:
    from keras_effnet.tasks import TaskName

_SHOWN = 4  # numbers of an embedding in the table


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of a network.

    Args:
        names: Names of the classes, labels or values.
        top: Int, classes per image.
        threshold: Float in [0, 1], probability from which on a decision is yes; or a sequence, one for each label.
        new_folder: Function that creates the folder for files of masks and boxes.
        found: Function from the outputs for a batch and the sizes of its original images to `Detections` in their
            pixels; for a detector.
    """

    names: Sequence[str]
    top: int
    threshold: float | Sequence[float]
    new_folder: Callable[[], Path]
    found: Callable[[Any, Sequence[tuple[int, int]]], Sequence[Any]] | None = None

    @cached_property
    def folder(self) -> Path:
        """Folder for files of masks and boxes, created when it is first needed."""
        return self.new_folder()


Batches = Iterator[tuple[Sequence[str], np.ndarray, Any]]  # paths, images, outputs


@dataclass(frozen=True)
class Answering:
    """How the outputs of a task are turned into answers.

    Args:
        layout: `Layout` of an answer in files.
        answers: Generator of `(path, answer)` from batches.
        shown: Function from an answer to the text of its row in a table.
        header: String, column of the table.
        done: String, what was done with the images.
    """

    layout: Layout
    answers: Callable[[Batches, Question], Iterator[tuple[str, Any]]]
    shown: Callable[[Any], str]
    header: str
    done: str


def _note(activation: str) -> None:
    click.echo(f"note: the network outputs logits; probabilities are computed by {activation}.", err=True)


def _classes(batches: Batches, asked: Question) -> Iterator[tuple[str, Any]]:
    """Yield the best classes of each image, with probabilities even if the network outputs logits."""
    from keras_effnet.evaluation.metrics import score_kind, softmax
    from keras_effnet.imagenet import decode_predictions

    logits = False
    for paths, _, scores in batches:
        if not logits and score_kind(scores) == "logits":
            logits = True
            _note("softmax")
        best = decode_predictions(softmax(scores) if logits else scores, asked.top, list(asked.names))
        yield from zip(paths, best, strict=True)


def _probabilities(batches: Batches) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the probabilities of independent labels of each image."""
    from scipy.special import expit

    from keras_effnet.evaluation.agreement import are_probabilities

    logits = False
    for paths, _, outputs in batches:
        if not logits and not are_probabilities(outputs):
            logits = True
            _note("a sigmoid")
        yield from zip(paths, expit(outputs) if logits else outputs, strict=True)


def _decisions(batches: Batches, asked: Question) -> Iterator[tuple[str, Any]]:
    """Yield both classes of each image, the one decided for first."""
    negative, positive = asked.names
    for path, (share,) in _probabilities(batches):
        both = [(positive, float(share)), (negative, float(1 - share))]
        yield path, both if share >= asked.threshold else both[::-1]


def _labels(batches: Batches, asked: Question) -> Iterator[tuple[str, Any]]:
    for path, shares in _probabilities(batches):
        known = dict(zip(asked.names, shares.tolist(), strict=True))
        present = dict(zip(asked.names, (shares >= np.asarray(asked.threshold)).tolist(), strict=True))
        said = [name for name in sorted(known, key=lambda name: -known[name]) if present[name]]
        yield path, Flags(known, said)


def _values(batches: Batches, asked: Question) -> Iterator[tuple[str, Any]]:
    for paths, _, outputs in batches:
        for path, values in zip(paths, outputs.tolist(), strict=True):
            yield path, dict(zip(asked.names, values, strict=True))


def _vectors(batches: Batches, asked: Question) -> Iterator[tuple[str, Any]]:
    for paths, _, outputs in batches:
        yield from zip(paths, outputs.reshape(len(outputs), -1).tolist(), strict=True)


def _masks(batches: Batches, asked: Question) -> Iterator[tuple[str, Any]]:
    """Write the mask of each image, at the network's size, as a palette PNG and over the image."""
    from PIL import Image

    from keras_effnet.datasets.labels.mask_colours import overlay, palette
    from keras_effnet.evaluation.agreement import masks

    names, colours = asked.names, palette(256)
    for paths, images, outputs in batches:
        for path, pixels, mask in zip(paths, images, masks(outputs).astype("uint8"), strict=True):
            file = free_file(asked.folder, Path(path).stem, "_mask.png")
            painted = Image.fromarray(mask).convert("P")
            painted.putpalette(colours.tobytes())
            painted.save(file)
            over = file.with_name(file.name.replace("_mask.png", "_overlay.png"))
            Image.fromarray(overlay(pixels, mask, colours)).save(over)
            shares = np.bincount(mask.ravel(), minlength=len(names)) / mask.size
            yield path, Mask(str(file), str(over), dict(zip(names, shares.tolist(), strict=True)))


def _boxes(batches: Batches, asked: Question) -> Iterator[tuple[str, Any]]:
    """Draw the detections of each image over the original."""
    from keras_effnet.datasets.decoding import read
    from keras_effnet.evaluation.by_task.box_drawings import detected_boxes, draw_on_file

    assert asked.found is not None
    for paths, _, outputs in batches:
        originals = [np.asarray(read(path)) for path in paths]
        found = asked.found(outputs, [image.shape[:2] for image in originals])
        for path, image, each in zip(paths, originals, found, strict=True):
            kept = each.above(asked.threshold)
            file = free_file(asked.folder, Path(path).stem, "_boxes.png")
            draw_on_file(np.clip(image, 0, 255).astype("uint8"), detected_boxes(kept, asked.names), file)
            corners = kept.boxes[:, [1, 0, 3, 2]].tolist()  # x0, y0, x1, y1, as other programs write them
            rows = zip(kept.labels.tolist(), kept.scores.tolist(), corners, strict=True)
            boxes = [FoundBox(asked.names[label], label, score, tuple(box)) for label, score, box in rows]
            yield path, Found(str(file), boxes)


def _counted(found: Found) -> str:
    counts = Counter(each.name for each in found.boxes)
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"


def free_file(folder: Path, stem: str, end: str) -> Path:
    """Return an unused file name: images from different folders may have the same name."""
    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
    return next(path for name in names if not (path := folder / f"{name}{end}").exists())


def _listed(pairs: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in pairs)


ANSWERS: dict[TaskName, Answering] = {
    "classification": Answering(BEST, _classes, _listed, "classes", "classified"),
    "binary": Answering(BEST, _decisions, lambda both: _listed(both[:1]), "decision", "classified"),
    "multilabel": Answering(FLAGS, _labels, lambda found: _listed(FLAGS.value(found)) or "none", "labels", "labelled"),
    "regression": Answering(
        VALUES,
        _values,
        lambda found: ", ".join(f"{name} {value:.4g}" for name, value in found.items()),
        "values",
        "measured",
    ),
    "embedding": Answering(
        VECTOR,
        _vectors,
        lambda vector: ", ".join(f"{value:.3g}" for value in vector[:_SHOWN]) + f", ... ({len(vector)} numbers)",
        "embedding",
        "embedded",
    ),
    "segmentation": Answering(
        MASK,
        _masks,
        lambda found: f"{Path(found.mask).name}: {_listed([pair for pair in found.shares.items() if pair[1] > 0])}",
        "mask",
        "segmented",
    ),
    "detection": Answering(BOXES, _boxes, _counted, "boxes", "searched"),
}
