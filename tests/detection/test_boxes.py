"""Box codes, overlaps and suppression."""

import numpy as np
import pytest

from keras_effnet.detection import decode, detections, encode, overlaps
from keras_effnet.errors import UserError

ANCHORS = np.array([[0, 0, 10, 10], [5, 5, 25, 45], [50, 50, 60, 60]], "float32")


def test_codes_are_offsets_in_anchor_sizes_and_logarithms_of_ratios():
    box = np.array([[10, 10, 30, 20]], "float32")  # center (20, 15), 20 high, 10 wide
    np.testing.assert_allclose(encode(box, ANCHORS[1:2])[0], [0.25, -0.25, 0.0, np.log(0.25)], rtol=1e-6)


def test_decoding_inverts_encoding_and_stays_finite():
    boxes = np.array([[1, 2, 3, 9], [0, 0, 64, 64], [51, 40, 70, 61]], "float32")
    np.testing.assert_allclose(decode(encode(boxes, ANCHORS), ANCHORS), boxes, atol=1e-4)
    assert np.isfinite(decode(np.full((3, 4), 1e4, "float32"), ANCHORS)).all()


def test_overlaps_are_shares_of_the_union():
    some = np.array([[0, 0, 10, 10], [3, 3, 3, 9]], float)
    others = np.array([[0, 5, 10, 15], [20, 20, 30, 30], [0, 0, 10, 10]], float)
    np.testing.assert_allclose(overlaps(some, others), [[1 / 3, 0, 1], [0, 0, 0]])


def outputs(boxes, scores):
    anchors = np.array(boxes, "float32")
    return np.zeros((len(anchors), 4), "float32"), np.array(scores, "float32"), anchors


TWINS = [[0, 0, 10, 10], [0, 0, 10, 11], [30, 30, 40, 40]]


def test_each_class_is_suppressed_by_itself():
    found = detections(*outputs(TWINS, [[0.9, 0.0], [0.8, 0.7], [0.0, 0.6]]), (64, 64))
    assert list(zip(found.labels.tolist(), found.scores.round(1).tolist(), strict=True)) == [
        (0, pytest.approx(0.9)),
        (1, pytest.approx(0.7)),
        (1, pytest.approx(0.6)),
    ]


def test_boxes_are_clipped_and_limited_to_the_best():
    codes, scores, anchors = outputs([[-5, -5, 70, 5], *TWINS], [[0.5], [0.9], [0.2], [0.3]])
    found = detections(codes, scores, anchors, (64, 64), max_detections=3)
    assert found.boxes[1].tolist() == [0, 0, 64, 5] and found.scores.tolist() == pytest.approx([0.9, 0.5, 0.3])
    assert len(detections(codes, scores, anchors, (64, 64), max_candidates=1)) == 1


def test_no_score_above_the_threshold_is_no_detection():
    found = detections(*outputs(TWINS, np.zeros((3, 2))), (64, 64))
    assert found.boxes.shape == (0, 4) and len(found) == 0


def test_other_anchors_are_refused():
    codes, scores, anchors = outputs(TWINS, np.zeros((3, 2)))
    with pytest.raises(UserError, match="use the anchors of this detector at this size"):
        detections(codes, scores, anchors[:2], (64, 64))
