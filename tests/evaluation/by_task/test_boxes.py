"""Detections compared with true boxes."""

import numpy as np
import pytest

from keras_effnet.detection import Detections, Truth
from keras_effnet.evaluation.by_task.boxes import (
    Scenes,
    collect_scenes,
    evaluate_boxes,
    precision_recall_points,
    verdict,
    worst_scenes,
)


def detections(*rows):
    """Rows of score, class and box, best first."""
    boxes = np.array([row[2:] for row in rows], "float32").reshape(-1, 4)
    return Detections(boxes, np.array([row[0] for row in rows], "float32"), np.array([row[1] for row in rows], "int32"))


def truth(*rows, crowd=None):
    boxes = np.array([row[1:] for row in rows], "float32").reshape(-1, 4)
    return Truth(boxes, np.array([row[0] for row in rows], "int32"), None if crowd is None else np.array(crowd))


def test_boxes_are_found_missed_false_or_badly_placed():
    true = truth((0, 0, 0, 10, 10), (1, 20, 20, 30, 30), (0, 50, 50, 60, 60))
    found = detections(
        (0.9, 0, 0, 0, 10, 9), (0.8, 1, 25, 20, 35, 30), (0.7, 1, 70, 70, 80, 80), (0.2, 0, 50, 50, 60, 60)
    )
    each = verdict(true, found, threshold=0.5)
    assert each.partner.tolist() == [0, -1, -1]
    assert each.near.tolist() == [False, True, False]  # half beside a box of its class
    assert each.missed.tolist() == [1, 2]
    result = evaluate_boxes(Scenes((true, true), (found, detections())), 2)
    assert result.mistakes.tolist() == [[1, 1, 1], [3, 0, 0]]
    assert worst_scenes(result, 1) == [0]
    assert result.confusion.tolist() == [[1, 0, 3], [0, 0, 2], [0, 2, 0]]
    assert (result.classes[0].precision, result.classes[0].recall) == (1.0, 0.25)


def test_a_box_of_another_class_is_confused_only_if_its_own_class_leaves_it():
    true = truth((0, 0, 0, 10, 10))
    found = detections((0.9, 1, 0, 0, 10, 10), (0.6, 0, 0, 0, 10, 9))
    assert verdict(true, found, 0.5).partner.tolist() == [-1, 0]
    assert verdict(true, found, 0.8).partner.tolist() == [0]
    result = evaluate_boxes(Scenes((true,), (found,)), 2, threshold=0.8)
    assert result.confusion.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_crowds_are_neither_missed_nor_make_detections_false():
    true = truth((0, 0, 0, 40, 40), (0, 60, 60, 70, 70), crowd=[True, False])
    each = verdict(true, detections((0.9, 0, 5, 5, 15, 15), (0.8, 0, 60, 60, 70, 70)), 0.5)
    assert each.partner.tolist() == [1] and each.missed.tolist() == []


def test_scenes_are_in_pixels_of_the_original_images():
    anchors = np.array([[0, 0, 8, 8], [8, 8, 16, 16]], "float32")
    outputs = {"boxes": np.zeros((1, 2, 4), "float32"), "scores": np.array([[[0.9], [0.001]]], "float32")}
    labels = {
        "boxes": np.array([[[0, 0, 8, 8], [0, 0, 0, 0]]], "float32"),
        "classes": np.array([[0, -1]]),
        "crowd": np.zeros((1, 2), bool),
        "scale": np.array([[0.5, 0.25]], "float32"),
    }
    scenes = collect_scenes([(outputs, labels)], anchors, (16, 16))
    assert scenes.truth[0].boxes.tolist() == scenes.found[0].boxes.tolist() == [[0, 0, 16, 32]]
    assert evaluate_boxes(scenes, 1).ap.ap == pytest.approx(1)


def test_precision_and_recall_fall_and_rise_with_the_threshold():
    true = truth((0, 0, 0, 10, 10), (0, 20, 20, 30, 30))
    found = detections((0.9, 0, 0, 0, 10, 10), (0.8, 0, 50, 50, 60, 60), (0.7, 0, 20, 20, 30, 30))
    recall, precision, scores = precision_recall_points(Scenes((true,), (found,)), 0)
    assert recall.tolist() == [0.5, 0.5, 1.0] and precision == pytest.approx([1, 1 / 2, 2 / 3])
    assert scores == pytest.approx([0.9, 0.8, 0.7])
    assert not len(precision_recall_points(Scenes((true,), (found,)), 1)[0])
