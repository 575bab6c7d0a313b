"""What `keras-effnet info` shows of detectors. No TensorFlow."""

from __future__ import annotations

from dataclasses import asdict, replace
from fnmatch import filter as matching
from typing import Any

import click

from keras_effnet.architecture.detectors import DETECTORS, PREFIX, PUBLISHED_AP, DetectorSpec, detector_spec
from keras_effnet.architecture.explanations import explain_detector
from keras_effnet.architecture.pyramid import expand_detector
from keras_effnet.cli import console
from keras_effnet.cli.options import refuse_unused, was_given
from keras_effnet.complexity.cost import Complexity
from keras_effnet.complexity.counting import count

HEADERS = ("detector", "backbone", "pixels", "BiFPN", "heads", "anchors", "params", "MACs", "AP")


def is_detector(name: str) -> bool:
    """Whether a name or pattern on the command line means detectors."""
    return name.lower().startswith(PREFIX)


def show(name: str, image_size: int | None, classes: int, blocks: bool, as_json: bool) -> None:
    """Print cost and scaling of the detectors that match a name or pattern."""
    refuse_unused(
        ["phi", "depth", "width", "resolution", "pretrained"],
        f"{name} is a detector, whose size is set by --image-size alone; leave it out.",
    )
    changes: dict[str, Any] = {"classes": classes} if was_given("classes") else {}
    if image_size is not None:
        changes["image_size"] = image_size
    names = matching(DETECTORS, name.lower()) or [name.lower()]
    specs = {each: replace(detector_spec(each), **changes) for each in names}
    costs = {each: count(spec) for each, spec in specs.items()}
    if as_json:
        found = {each: _facts(each, specs[each], costs[each]) for each in names}
        return console.emit_json(found[names[0]] if names == [name.lower()] else found)
    console.table(HEADERS, [_row(each, specs[each], costs[each]) for each in names])
    if len(names) == 1:
        if specs[names[0]] == DETECTORS[names[0]]:
            click.echo(f"{explain_detector(names[0])}\n")
        if blocks:
            rows = [(b.name, f"{b.params:,}", f"{b.macs:,}", f"{b.activations:,}") for b in costs[names[0]].blocks]
            console.table(("block", "parameters", "MACs", "activations"), rows)
    console.finish(
        f"cost of one image at the given size, {specs[names[0]].classes} classes; published AP on COCO in %",
        ("keras-effnet", "info", names[0], "--blocks"),
    )


def _row(name: str, spec: DetectorSpec, cost: Complexity) -> tuple[str, ...]:
    return (
        name,
        spec.backbone.name.removeprefix("efficientnet").removeprefix("-"),
        f"{spec.image_size}",
        f"{spec.width} x {spec.cells}",
        f"{spec.head_depth}",
        f"{expand_detector(spec).anchors:,}",
        f"{cost.params / 1e6:.2f} M",
        f"{cost.macs / 1e9:,.2f} G",
        _ap(name, spec),
    )


def _ap(name: str, spec: DetectorSpec) -> str:
    return f"{PUBLISHED_AP[name]:.1f}" if spec == DETECTORS[name] else "-"


def _facts(name: str, spec: DetectorSpec, cost: Complexity) -> dict[str, object]:
    published = PUBLISHED_AP[name] if spec == DETECTORS[name] else None
    facts = {"name": name, "backbone": spec.backbone.name, "anchors": expand_detector(spec).anchors, "ap": published}
    return asdict(spec) | facts | asdict(cost)
