"""Fit of a detector's anchors as part of a check of a dataset. numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.datasets.findings.label_summary import Checked, LabelSummary
from keras_effnet.datasets.labels.boxes import Boxes
from keras_effnet.detection.boxes import input_scales
from keras_effnet.detection.fitting import AnchorFit, anchor_fit, proposed_anchors

_CHOOSING = 600  # boxes that choose anchors
_MEASURED = 5000  # boxes that the fit is measured on


def input_boxes(labels: Boxes, image_size: int, fit: str = "stretch") -> tuple[np.ndarray, np.ndarray]:
    """True boxes in pixels of the network's input, without crowds, and their classes.

    Args:
        labels: `Boxes`.
        image_size: Int, side of the input in pixels.
        fit: `"stretch"` or `"letterbox"`, how images are fitted into the input.

    Returns:
        A float32 array of shape `(B, 4)` and an int32 array of shape `(B,)`.
    """
    scale = np.repeat(input_scales(labels.sizes, image_size, fit), np.diff(labels.offsets), axis=0)
    kept = ~labels.crowd
    return (labels.boxes * np.tile(scale, 2))[kept].astype("float32"), labels.classes[kept]


def anchor_check(
    spec: DetectorSpec, fit: str = "stretch"
) -> Callable[[Mapping[str, Any], Sequence[str], Checked], LabelSummary]:
    """A check for `datasets.check_data(also={"detection": ...})`: which boxes the anchors reach, and which would more.

    Anchors are measured on up to 5,000 boxes of `train`, and proposed from 600 of them.

    Args:
        spec: `DetectorSpec`.
        fit: `"stretch"` or `"letterbox"`, how images are fitted into the input.

    Example:

    >>> spec = keras_effnet.detector_spec("det-lite0")
    >>> report = keras_effnet.datasets.check_data("data.yaml", also={"detection": anchor_check(spec)})
    """

    def find(splits: Mapping[str, Any], names: Sequence[str], checked: Checked) -> LabelSummary:
        boxes, classes = input_boxes(splits["train"], checked.image_size, fit)
        order = np.random.default_rng(0).permutation(len(boxes))[:_MEASURED]
        boxes, classes = boxes[order], classes[order]
        if len(boxes) < len(spec.aspects):
            return LabelSummary((("anchors", len(boxes), "boxes in train, too few for the fit of anchors"),), {})
        size = (checked.image_size, checked.image_size)
        named = replace(spec, classes=len(names))
        proposed = proposed_anchors(named, boxes[:_CHOOSING], classes[:_CHOOSING], size)
        return _summary([("anchors", named), ("proposed", proposed)], boxes, classes, names, checked.image_size)

    return find


def _summary(
    detectors: list[tuple[str, DetectorSpec]],
    boxes: np.ndarray,
    classes: np.ndarray,
    names: Sequence[str],
    image_size: int,
) -> LabelSummary:
    size = (image_size, image_size)
    fits = {title: anchor_fit(spec, boxes, classes, size) for title, spec in detectors}
    (_, given), (_, proposed) = detectors
    missed = {title: round((1 - fit.reached) * len(boxes)) for title, fit in fits.items()}
    return LabelSummary(
        (
            (
                "without anchor",
                missed["anchors"],
                f"boxes of {len(boxes)} that no anchor of {given.name} overlaps by half at {image_size} pixels; "
                f"{missed['proposed']} with {_in_words(proposed)}",
            ),
        ),
        {
            "Boxes that an anchor overlaps by half": (
                ("class", "boxes", *(f"{title}: {_in_words(spec)}" for title, spec in detectors)),
                [
                    (name, int((classes == place).sum()), *(_percent(fit.by_class[place]) for fit in fits.values()))
                    for place, name in enumerate(names)
                ],
            )
        },
        {"anchors": {title: _details(spec, fits[title], names) for title, spec in detectors}},
    )


def _in_words(spec: DetectorSpec) -> str:
    aspects = ", ".join(f"{width:g}x{height:g}" for width, height in spec.aspects)
    return f"scale {spec.anchor_scale:g}, aspects {aspects}"


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.0%}"


def _details(spec: DetectorSpec, fit: AnchorFit, names: Sequence[str]) -> dict[str, Any]:
    return {
        "detector": spec.name,
        "scale": spec.anchor_scale,
        "aspects": [list(pair) for pair in spec.aspects],
        "reached": fit.reached,
        "mean_overlap": fit.mean_overlap,
        "by_class": {name: None if np.isnan(value) else value for name, value in zip(names, fit.by_class, strict=True)},
    }
