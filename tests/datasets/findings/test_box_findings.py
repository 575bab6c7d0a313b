"""Checks of boxes: planted defects are found, counted and drawn; anchors are compared with the boxes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from keras_effnet.architecture.detectors import detector_spec
from keras_effnet.cli.commands import check_data as command
from keras_effnet.datasets.checking import check_data
from keras_effnet.datasets.labels.boxes import Boxes, ImageBoxes
from keras_effnet.datasets.loading import from_arrays
from keras_effnet.detection.anchor_findings import anchor_check, input_boxes
from keras_effnet.errors import UserError

NAMES = ("cat", "dog")


def of_image(*rows, crowd=False):
    """Boxes from rows of class, y0, x0, y1, x1."""
    boxes = np.array([row[1:] for row in rows], "float32").reshape(-1, 4)
    return ImageBoxes(boxes, np.array([row[0] for row in rows], int), np.full(len(rows), crowd))


@pytest.fixture
def data(smooth_images):
    images = smooth_images(8, 80, seed=3)
    images[7] = images[1]  # a copy with fewer boxes
    labels = [
        of_image((0, 10, 10, 40, 50), (1, 30, 30, 70, 70)),
        of_image((0, 10, 10, 40, 50), (0, 10, 10, 40, 51), (1, 10, 10, 40, 50)),  # double, and conflicting twice
        of_image((0, 5, 5, 6, 70)),  # 4 pixels high at 320
        of_image((1, 0, 0, 79, 80)),
        of_image(),
        of_image((1, 20, 20, 60, 60), crowd=True),
        of_image((1, 20, 20, 60, 60)),
    ]
    val = Boxes.of_images([of_image((0, 10, 10, 40, 50))], [(80, 80)])
    return from_arrays(images[:7], Boxes.of_images(labels, [(80, 80)] * 7), NAMES, val=(images[7:], val))


def test_boxes_are_judged_at_the_size_of_the_network(data):
    report = check_data(data)
    found = {name: (count, note) for name, count, note in command.findings(report)}
    assert {name: found[name][0] for name in found if "box" in name} == {
        "boxes": 10,
        "without boxes": 1,
        "swapped boxes": 0,
        "clipped boxes": 0,
        "boxes outside": 0,
        "empty boxes": 0,
        "tiny boxes": 1,
        "huge boxes": 1,
        "double boxes": 1,
        "conflicting boxes": 1,
        "crowd boxes": 1,
    }
    assert found["tiny boxes"][1] == "a side below 8 pixels at 320" and found["largest class"][0] == 5
    assert found["leaks"][0] == 1
    assert {each.class_name for each in report.contradictions[0].members} == {"1 cat", "2 cat, 1 dog"}
    assert check_data(data, image_size=640).labels.details["tiny_boxes"] == 0  # 8 pixels high
    header, table = report.labels.tables["Boxes"]
    assert dict(zip(header, table[0], strict=True)) == {
        "class": "cat",
        "train boxes": 4,
        "val boxes": 1,
        "images": 4,
        "median side at 320": "139",  # 40 x 30 of 80 x 80 pixels
        "tiny": 1,
    }


def test_boxes_and_class_names_are_drawn_on_the_sheet(data):
    report = check_data(data)
    tile, plain = report.examples["train 0: 2"][0], report.examples["train 4: 0"][0]
    assert tile.shape == plain.shape == (320, 320, 3)
    red = np.array([128, 64, 64])
    assert (tile[45:155, 40] == red).all()  # left side of the cat's box, x0 10 of 80
    assert not (plain == red).all(axis=-1).any()


def test_boxes_without_an_anchor_are_counted_and_anchors_proposed():
    small = [of_image((0, 8, 8, 16, 16), (1, 40, 40, 90, 90))] * 4
    labels = Boxes.of_images(small, [(320, 320)] * 4)
    data = from_arrays(np.zeros((4, 320, 320, 3), "uint8"), labels, NAMES, val_split=0.5)
    spec = detector_spec("det-lite0")  # the smallest anchor has 24 pixels
    report = check_data(data, near_duplicates=False, also={"detection": anchor_check(spec)})
    anchors = report.to_dict()["anchors"]
    assert anchors["anchors"]["by_class"] == {"cat": 0.0, "dog": 1.0} and anchors["anchors"]["reached"] == 0.5
    assert anchors["proposed"]["scale"] == 1.0 and anchors["proposed"]["by_class"]["cat"] == 1.0
    assert report.labels.rows[-1][:2] == ("without anchor", 2)


def test_boxes_at_the_input_are_stretched_or_letterboxed():
    labels = Boxes.of_images([of_image((0, 10, 20, 20, 40)), of_image((1, 0, 0, 9, 9), crowd=True)], [(50, 100)] * 2)
    assert input_boxes(labels, 200)[0].tolist() == [[40, 40, 80, 80]]
    assert input_boxes(labels, 200, "letterbox")[0].tolist() == [[20, 40, 40, 80]]
    assert input_boxes(labels, 200)[1].tolist() == [0]


@pytest.fixture
def coco(tmp_path, smooth_images):
    """COCO data with a box of each kind of problem."""
    root = tmp_path / "pets"
    (root / "images").mkdir(parents=True)
    for number, pixels in enumerate(smooth_images(4, 40, seed=5)):
        Image.fromarray(pixels).save(root / f"images/{number}.png")
    boxes = [[4, 4, 20, 20], [30, 30, -10, 8], [30, 30, 30, 8], [50, 4, 10, 10], [4, 4, 0, 10], *[[2, 2, 30, 30]] * 8]
    content = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in range(4)],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [
            {"id": number, "image_id": number % 4, "category_id": 7, "bbox": box} for number, box in enumerate(boxes)
        ],
    }
    (root / "pets.json").write_text(json.dumps(content))
    return root / "pets.json"


def test_the_command_lists_problems_of_the_files_and_the_anchors(coco, tmp_path):
    arguments = [str(coco), "--json", "--out", str(tmp_path / "runs"), "--val-split", "0.5", "--model", "det-lite1"]
    result = CliRunner().invoke(command.command, arguments, catch_exceptions=False)
    found = json.loads(result.stdout)
    assert result.exit_code == 0 and found["task"] == "detection"
    assert sorted(each["kind"] for each in found["problems"]) == ["clipped", "empty", "outside", "swapped"]
    assert found["anchors"]["anchors"]["detector"] == "efficientdet-lite1" and found["sizes"]["image_size"] == 384
    written = next((tmp_path / "runs/check-data").iterdir())
    assert {"report.md", "classes.png", "images.png"} <= {path.name for path in written.iterdir()}
    assert "outside | 4 50 14 60" in (written / "report.md").read_text()


def test_a_network_without_anchors_is_refused(coco, tmp_path):
    with pytest.raises(UserError, match="b0 is none"):
        CliRunner().invoke(command.command, [str(coco), "--model", "b0"], catch_exceptions=False)
    with pytest.raises(UserError, match="leave --model out"):
        arguments = ["digits", "--model", "det-lite0", "--max", "8", "--out", str(tmp_path)]
        CliRunner().invoke(command.command, arguments, catch_exceptions=False)
