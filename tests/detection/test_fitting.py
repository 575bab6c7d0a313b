"""Fit of anchors to true boxes, and proposals."""

import numpy as np
import pytest
from small_detector import small_detector

from keras_effnet.detection import anchor_boxes, anchor_fit, proposed_anchors
from keras_effnet.detection.fitting import proposed_aspects
from keras_effnet.errors import UserError

SIZE = (64, 64)


def boxes_of(height, width, count=40):
    centers = np.random.default_rng(0).uniform(16, 48, (count, 2))
    half = np.array([height, width]) / 2
    return np.concatenate([centers - half, centers + half], axis=1)


def test_anchors_reach_themselves_and_no_smaller_boxes():
    spec = small_detector()
    anchors = anchor_boxes(spec, SIZE)[:50]
    assert anchor_fit(spec, anchors, np.zeros(50, int), SIZE).mean_overlap == pytest.approx(1)
    small = boxes_of(5, 5)
    fit = anchor_fit(spec, np.concatenate([small, anchors]), np.array([0] * 40 + [2] * 50), SIZE)
    assert fit.by_class[0] == 0 and np.isnan(fit.by_class[1]) and fit.by_class[2] == 1
    assert fit.reached == pytest.approx(50 / 90)


def test_the_proposed_scale_reaches_what_the_old_one_did_not():
    boxes, labels = boxes_of(12, 12), np.zeros(40, int)
    spec = small_detector(anchor_scale=4.0)
    better = proposed_anchors(spec, boxes, labels, SIZE)
    assert better.anchor_scale <= 2
    assert anchor_fit(spec, boxes, labels, SIZE).reached < 0.2 < 0.7 < anchor_fit(better, boxes, labels, SIZE).reached


def test_a_rare_class_of_small_boxes_counts_as_much_as_a_frequent_one():
    boxes, spec = np.concatenate([boxes_of(40, 40, 1000), boxes_of(12, 12, 4)]), small_detector(anchor_scale=4.0)
    two, one = np.array([0] * 1000 + [1] * 4), np.zeros(1004, int)
    by_class, together = (proposed_anchors(spec, boxes, labels, SIZE, smallest=1.0) for labels in (two, one))
    assert anchor_fit(by_class, boxes, two, SIZE).by_class[1] > anchor_fit(together, boxes, two, SIZE).by_class[1]


def test_anchors_reach_the_boxes_at_the_smallest_scale_of_training():
    boxes, labels = boxes_of(20, 20), np.zeros(40, int)
    spec = small_detector(anchor_scale=3.0)
    shares = [
        anchor_fit(proposed_anchors(spec, boxes, labels, SIZE, smallest=smallest), boxes * 0.6, labels, SIZE).reached
        for smallest in (1.0, 0.6)
    ]
    assert shares[0] < shares[1]


def test_anchors_stay_unless_others_gain_enough():
    boxes, labels = boxes_of(12, 12), np.zeros(40, int)
    spec = small_detector(anchor_scale=4.0)
    assert proposed_anchors(spec, boxes, labels, SIZE, gain=1.0) is spec


def test_aspects_are_the_data_s_from_wide_to_high():
    boxes = np.concatenate([boxes_of(10, 40), boxes_of(20, 20), boxes_of(36, 9)])
    assert proposed_aspects(boxes) == ((2.0, 0.5), (1.0, 1.0), (0.5, 2.0))


def test_no_boxes_are_refused():
    with pytest.raises(UserError, match="at least one box"):
        anchor_fit(small_detector(), np.zeros((0, 4)), np.zeros(0, int), SIZE)
    with pytest.raises(UserError, match="3 aspects need"):
        proposed_aspects(boxes_of(10, 10, 2))
