"""Metrics of masks, against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from keras_effnet.datasets.labels.mask_colours import palette
from keras_effnet.datasets.labels.masks import IGNORED
from keras_effnet.errors import UserError
from keras_effnet.evaluation.by_task.segments import evaluate_masks, worst_masks

RNG = np.random.default_rng(1)
TRUTH = RNG.integers(0, 3, (5, 8, 6))
OUTPUTS = np.eye(4)[TRUTH] + 2 * RNG.random((5, 8, 6, 4))


def test_metrics_are_those_of_scikit_learn_over_all_pixels_that_are_not_ignored():
    truth = TRUTH.copy()
    truth[:, :2, :3] = IGNORED
    found = evaluate_masks([(OUTPUTS[:2], truth[:2]), (OUTPUTS[2:], truth[2:])])
    known, predicted = truth[truth != IGNORED], OUTPUTS.argmax(axis=-1)[truth != IGNORED]
    assert np.array_equal(found.confusion, metrics.confusion_matrix(known, predicted, labels=range(4)))
    assert found.accuracy == pytest.approx(metrics.accuracy_score(known, predicted))
    assert found.iou == pytest.approx(metrics.jaccard_score(known, predicted, average=None, labels=range(4)))
    assert found.recall[:3] == pytest.approx(metrics.recall_score(known, predicted, average=None, labels=range(3)))
    assert found.ignored == 30
    image, mask = OUTPUTS[3].argmax(axis=-1)[truth[3] != IGNORED], truth[3][truth[3] != IGNORED]
    assert found.image_iou[3] == pytest.approx(metrics.jaccard_score(mask, image, average="macro"))


def test_a_class_that_neither_occurs_nor_is_predicted_has_no_iou():
    found = evaluate_masks([(np.eye(3)[[[[0, 1]]]], np.array([[[0, 1]]]))])
    assert found.iou[:2] == (1, 1) and np.isnan(found.iou[2])
    assert found.mean_iou == 1


def test_an_image_of_ignored_pixels_has_no_iou_and_is_never_among_the_worst():
    truth = np.stack([np.full((2, 2), IGNORED), [[1, 1], [0, 0]]])
    found = evaluate_masks([(np.eye(2)[np.array([[[0, 0], [0, 0]], [[0, 0], [0, 0]]])], truth)])
    assert np.isnan(found.image_iou[0]) and found.image_iou[1] == 0.25
    assert worst_masks(found, 1).tolist() == [1]


def test_one_channel_decides_between_two_classes():
    found = evaluate_masks([(np.array([[[[0.2], [0.9]]]]), np.array([[[0, 1]]]))])
    assert found.confusion.tolist() == [[1, 0], [0, 1]]


def test_masks_that_do_not_fit_the_network_are_refused():
    with pytest.raises(UserError, match="at least 3 classes but the model knows 2"):
        evaluate_masks([(np.zeros((1, 1, 1, 2)), np.array([[[2]]]))])
    with pytest.raises(UserError, match="masks of"):
        evaluate_masks([(np.zeros((1, 1, 1, 2)), np.zeros((1, 2, 2), int))])
    with pytest.raises(UserError, match="No images"):
        evaluate_masks([])


def test_colours_are_those_of_pascal_voc():
    assert palette(22)[[0, 1, 2, 15, 20]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
    ]
