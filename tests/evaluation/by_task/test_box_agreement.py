"""Agreement of detections: the same boxes of the same classes, whatever the anchors that found them."""

from __future__ import annotations

import numpy as np
import pytest

from keras_effnet.datasets.labels.boxes import Boxes, ImageBoxes
from keras_effnet.detection.boxes import encode
from keras_effnet.detection.precision import Truth
from keras_effnet.evaluation.by_task.box_agreement import BoxReader, box_sqnr
from keras_effnet.evaluation.by_task.boxes import input_truths
from keras_effnet.export.measure.verify_report import VerifyReport
from keras_effnet.export.recipes import PRECISIONS

ANCHORS = np.array([[0, 0, 20, 20], [0, 20, 20, 40], [20, 0, 40, 20], [20, 20, 40, 40]], "float32")
READER = BoxReader(ANCHORS, (40, 40))
BOX = [2.0, 2.0, 18.0, 18.0]


def outputs(*found: tuple[int, list[float], int, float]) -> np.ndarray:
    """Outputs of one image with two classes: for each detection the anchor, box, class and score."""
    made = np.zeros((1, 4, 6), "float32")
    for anchor, box, label, score in found:
        made[0, anchor, :4] = encode(np.array(box), ANCHORS[anchor])
        made[0, anchor, 4 + label] = score
    return made


def test_the_same_box_from_another_anchor_agrees():
    found = READER.agreement(outputs((0, BOX, 0, 0.8)), outputs((1, BOX, 0, 0.7)))
    assert found.score == 1
    assert found.figures["score drift"] == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize(
    ("other", "score"),
    [
        ((0, BOX, 1, 0.8), 0.0),  # another class
        ((0, [2.0, 2.0, 18.0, 15.0], 0, 0.8), 0.0),  # overlap 0.81
        ((0, [2.0, 2.0, 18.0, 17.0], 0, 0.8), 1.0),  # overlap 0.94
        ((0, BOX, 0, 0.2), 1.0),  # below the counted scores, a drift of 0.6
        ((0, BOX, 0, 0.1), 0.0),
    ],
)
def test_boxes_differ_by_class_place_or_loss(other, score):
    assert READER.agreement(outputs((0, BOX, 0, 0.8)), outputs(other)).score == score


def test_false_detections_of_the_file_count_as_lost_ones_do():
    one, two = outputs((0, BOX, 0, 0.8)), outputs((0, BOX, 0, 0.8), (3, [22, 22, 38, 38], 0, 0.8))
    assert READER.agreement(one, two).score == READER.agreement(two, one).score == pytest.approx(2 / 3)


def test_nothing_found_agrees_and_is_remarked():
    nothing = outputs()
    assert READER.agreement(nothing, nothing).score == 1
    assert list(READER.outcomes(np.concatenate([nothing, outputs((0, BOX, 0, 0.8)), nothing]))) == [0, 2, 0]


def test_average_precision_of_both_stands_side_by_side():
    truth = [Truth(np.array([BOX], "float32"), np.array([0]))]
    good, lost = outputs((0, BOX, 0, 0.8)), outputs((0, BOX, 1, 0.8))
    drift = READER.drift(truth, good, lost)
    assert drift.figures == {"AP": 0.0, "AP of Keras": 1.0, "AP50": 0.0, "AP50 of Keras": 1.0}
    assert (drift.lost, drift.surely_lost) == (1.0, -np.inf)  # of one image nothing is sure


@pytest.mark.parametrize(("wrong", "refused"), [(0, False), (1, False), (4, True)])
def test_a_file_is_refused_for_average_precision_that_it_surely_loses(wrong, refused):
    """Of 20 images with one box each; boxes that are the model's, but with lower scores than false ones, agree."""
    truth = [Truth(np.array([BOX], "float32"), np.array([0]))] * 20
    good, bad = outputs((0, BOX, 0, 0.8)), outputs((0, BOX, 0, 0.8), (3, [22, 22, 38, 38], 0, 0.9))
    drift = READER.drift(truth, np.repeat(good, 20, axis=0), np.concatenate([bad] * wrong + [good] * (20 - wrong)))
    assert drift.lost == pytest.approx(drift.figures["AP of Keras"] - drift.figures["AP"])
    assert (drift.lost > 0) == (wrong > 0) and drift.surely_lost <= drift.lost
    report = VerifyReport(1.0, 30.0, 0.0, 20, task="detection", lost=drift.lost, surely_lost=drift.surely_lost)
    assert PRECISIONS["int8"].accepts(report) != refused
    assert PRECISIONS["int8"].meets(report) == (drift.lost <= PRECISIONS["int8"].bounds.ap)


@pytest.mark.parametrize(("fit", "box"), [("stretch", [8, 4, 32, 12]), ("letterbox", [4, 4, 16, 12])])
def test_true_boxes_are_scaled_as_their_images_are(fit, box):
    labels = Boxes.of_images([ImageBoxes(np.array([[10, 10, 40, 30]]), np.array([1]), np.array([False]))], [(50, 100)])
    (truth,) = input_truths(labels, 40, fit)
    np.testing.assert_allclose(truth.boxes, [box], rtol=1e-6)
    assert truth.labels.tolist() == [1]


def test_noise_counts_where_something_is_found():
    expected = outputs((0, BOX, 0, 0.8))
    got = expected.copy()
    got[0, 2, :4] = 3.0  # the box of an anchor that finds nothing
    assert box_sqnr(expected, got) > 100
    got[0, 0, 4] = 0.72
    assert box_sqnr(expected, got) == pytest.approx(20, abs=0.01)
