"""Detections in files: CSV, JSON, JSON Lines and COCO results; images with boxes."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from keras_effnet.detection import Detections, Truth
from keras_effnet.evaluation.by_task import box_drawings
from keras_effnet.evaluation.by_task.boxes import verdict
from keras_effnet.inference.detecting import original_scale
from keras_effnet.inference.layouts import BOXES, Found, FoundBox
from keras_effnet.inference.writers import written
from keras_effnet.preprocessing import ImageSpec

ANSWERS = {
    "a/000042.jpg": Found(
        "42.png", [FoundBox("cat", 1, 0.9, (1.0, 2.0, 11.0, 22.5)), FoundBox("dog", 0, 0.5, (0, 0, 5, 5))]
    ),
    "a/none.jpg": Found("none.png", []),
    "a/last.jpg": Found("last.png", [FoundBox("dog", 0, 0.75, (3.0, 3.0, 4.0, 5.0))]),
}


def text(form: str) -> str:
    stream = io.StringIO()
    with written(stream, form, BOXES) as write:
        for path, answer in ANSWERS.items():
            write(path, answer)
    return stream.getvalue()


def test_csv_has_a_line_for_each_detection_and_one_for_an_image_without():
    assert text("csv").splitlines() == [
        "path,class,score,x0,y0,x1,y1",
        "a/000042.jpg,cat,0.9,1.00,2.00,11.00,22.50",
        "a/000042.jpg,dog,0.5,0.00,0.00,5.00,5.00",
        "a/none.jpg,,,,,,",
        "a/last.jpg,dog,0.75,3.00,3.00,4.00,5.00",
    ]


def test_coco_results_number_images_by_their_files_and_classes_from_one():
    results = json.loads(text("coco"))
    assert [(each["image_id"], each["category_id"], each["bbox"]) for each in results] == [
        (42, 2, [1.0, 2.0, 10.0, 20.5]),
        (42, 1, [0, 0, 5, 5]),
        ("last.jpg", 1, [3.0, 3.0, 1.0, 2.0]),
    ]


def test_json_keeps_images_without_detections():
    assert json.loads(text("json"))["a/none.jpg"] == []
    lines = [json.loads(line) for line in text("jsonl").splitlines()]
    assert lines[0]["boxes"][0] == {"class": "cat", "score": 0.9, "box": [1.0, 2.0, 11.0, 22.5]}


def test_a_box_is_drawn_where_it_is(tmp_path):
    found = Detections(np.array([[20, 30, 60, 90]], "float32"), np.array([0.9], "float32"), np.array([0], "int32"))
    boxes = box_drawings.detected_boxes(found, ["cell"])
    box_drawings.draw_on_file(np.zeros((100, 120, 3), "uint8"), boxes, tmp_path / "drawn.png")
    drawn = np.asarray(Image.open(tmp_path / "drawn.png"))
    rows, columns = np.nonzero(drawn.any(axis=2))
    assert (rows.max(), columns.min()) == (59, 30) and drawn.shape == (100, 120, 3)
    assert not drawn[30:55, 35:85].any()


def test_missed_false_and_badly_placed_boxes_have_colours_of_their_own():
    truth = Truth(np.array([[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]], "float32"), np.array([0, 0, 1]))
    boxes = np.array([[0, 0, 10, 10], [20, 25, 30, 35], [80, 80, 90, 90]], "float32")
    found = Detections(boxes, np.array([0.9, 0.8, 0.7], "float32"), np.array([0, 0, 1], "int32"))
    drawn = box_drawings.judged_boxes(truth, found, verdict(truth, found, 0.5), ["a", "b"])
    assert [(each.text, each.dashed) for each in drawn] == [
        ("a?", True),
        ("b?", True),
        ("", False),
        ("a 80%", False),
        ("b 70%", False),
    ]
    assert len({each.colour for each in drawn}) == 4


@pytest.mark.parametrize(("size", "scale"), [((64, 64), (1, 1)), ((32, 128), (2, 0.5))])
def test_boxes_of_a_stretched_image_are_scaled_along_each_side(size, scale):
    assert original_scale(ImageSpec(64), size).tolist() == list(scale)
