"""Agreement of detections: the same boxes of the same classes, whatever the anchors that found them."""

from __future__ import annotations

import numpy as np
import pytest

from keras_effnet.detection.boxes import encode
from keras_effnet.detection.precision import Truth
from keras_effnet.evaluation.by_task.box_agreement import BoxReader, box_sqnr

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
    assert READER.drift(truth, good, lost) == {"AP": 0.0, "AP of Keras": 1.0, "AP50": 0.0, "AP50 of Keras": 1.0}


def test_noise_counts_where_something_is_found():
    expected = outputs((0, BOX, 0, 0.8))
    got = expected.copy()
    got[0, 2, :4] = 3.0  # the box of an anchor that finds nothing
    assert box_sqnr(expected, got) > 100
    got[0, 0, 4] = 0.72
    assert box_sqnr(expected, got) == pytest.approx(20, abs=0.01)
