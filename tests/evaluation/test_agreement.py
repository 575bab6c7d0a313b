"""Agreement of outputs, against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from keras_effnet.evaluation import agreement
from keras_effnet.tasks import TASKS


def test_decisions_are_counted_at_a_half_of_probabilities_and_at_zero_of_logits():
    probabilities = np.array([[0.2], [0.6], [0.5], [0.9]])
    other = np.array([[0.4], [0.4], [0.7], [0.95]])
    found = agreement.same_decision(probabilities, other)
    assert (found.score, found.agreeing) == (0.75, 3)
    assert found.interval == pytest.approx((0.30064, 0.95441), abs=1e-4)  # scipy 1.17
    assert agreement.same_decision(probabilities - 0.5, other - 0.5).agreeing == 3


def test_the_worst_label_and_its_auc_are_shown_beside_the_share_of_decisions():
    expected = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.7], [0.2, 0.9]])
    got = expected.copy()
    got[:, 1] = [0.1, 0.8, 0.7, 0.9]  # one wrong decision; of four pairs of a yes and a no, one is in the wrong order
    found = agreement.same_decisions(expected, got)
    assert found.score == pytest.approx(7 / 8) and found.agreeing is None
    assert found.figures == pytest.approx({"worst label": 0.75, "worst AUC": 0.75})
    assert found.interval[0] < found.score <= found.interval[1]


def test_labels_with_one_decision_only_have_no_auc():
    ones = np.full((4, 2), 0.9)
    assert agreement.same_decisions(ones, ones).figures == {"worst label": 1.0}


def test_r2_is_that_of_the_worst_output_and_errors_are_shares_of_its_range():
    expected = np.stack([np.arange(5.0), 10 * np.arange(5.0)], axis=1)
    got = expected + np.array([[0.0, 0.0], [0.0, 4.0], [0.0, 0.0], [0.0, -4.0], [0.0, 0.0]])
    found = agreement.explained_variance(expected, got)
    assert found.score == pytest.approx(1 - 32 / 1000)
    assert found.figures == pytest.approx({"largest error": 4 / 40, "mean error": 8 / 5 / 40})


def test_outputs_that_are_all_alike_explain_nothing_and_do_not_divide_by_zero():
    same = np.ones((6, 1))
    assert agreement.explained_variance(same, same).score == 1.0
    assert agreement.explained_variance(same, same + 0.1).score == 0.0


def test_embeddings_are_compared_by_direction_and_by_nearest_neighbour():
    expected = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    found = agreement.same_direction(expected, 5 * expected)
    assert found.score == pytest.approx(1) and found.figures == pytest.approx({"lowest cosine": 1, "recall@1": 1})
    turned = expected.copy()
    turned[0] = [0.0, 1.0]  # its neighbour is the third now, and the second's is the fourth
    found = agreement.same_direction(expected, turned)
    assert found.score == pytest.approx(3 / 4)
    assert found.figures == pytest.approx({"lowest cosine": 0, "recall@1": 0.0})


def test_masks_are_compared_by_the_mean_iou_of_the_classes_that_occur():
    first = np.zeros((1, 2, 2, 3))
    first[0, :, :, 0] = 1  # the class of all four pixels
    second = first.copy()
    second[0, 0, 0] = [0, 1, 0]
    found = agreement.same_masks(first, second)
    assert found.score == pytest.approx((3 / 4 + 0 / 1) / 2)  # the third class occurs in neither
    assert found.figures == {"same pixels": 0.75}


def test_a_single_channel_is_a_mask_of_two_classes():
    first = np.array([0.1, 0.2, 0.8, 0.9]).reshape(1, 2, 2, 1)
    second = np.array([0.1, 0.7, 0.8, 0.9]).reshape(1, 2, 2, 1)
    assert agreement.same_masks(first, second).score == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_the_bootstrap_interval_holds_what_a_normal_approximation_gives():
    expected = np.random.normal(size=(400, 8))
    found = agreement.same_direction(expected, expected + 0.5 * np.random.normal(size=(400, 8)))
    signs = expected + 0.5 * np.random.default_rng(1).normal(size=(400, 8))
    cosines = np.sum(expected * signs, 1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(signs, axis=1)
    half = 1.96 * cosines.std() / 20
    assert found.interval[1] - found.interval[0] == pytest.approx(2 * half, rel=0.3)
    assert found.interval[0] < found.score < found.interval[1]


@pytest.mark.parametrize("task", ["binary", "multilabel", "regression", "embedding"])
def test_what_is_the_same_for_all_images_is_no_signal(task):
    varying = np.random.normal(size=(500, 1 if task == "binary" else 4))
    noise = 0.1 * np.random.normal(size=varying.shape)
    assert TASKS[task].sqnr_db(varying, varying + noise) == pytest.approx(20, abs=0.6)
    assert TASKS[task].sqnr_db(varying + 50, varying + 50 + noise) == pytest.approx(20, abs=0.6)


def test_probabilities_of_decisions_are_compared_by_their_logits():
    logits = np.random.normal(size=(50, 3))
    np.testing.assert_allclose(agreement.sigmoid_logits(1 / (1 + np.exp(-logits))), logits, atol=1e-9)
    assert np.isfinite(agreement.sigmoid_logits(np.array([[0.0], [1.0]]))).all()


def test_accuracies_are_those_of_classes_and_of_decisions():
    scores = np.eye(6)[[0, 1, 2, 3]]
    assert agreement.class_accuracy(scores, np.array([0, 1, 2, 5])) == (0.75, pytest.approx(0.75, abs=0.25))
    assert agreement.class_accuracy(scores[:, :4], np.array([0, 1, 2, 3])) == (1.0, None)
    assert agreement.decision_accuracy(np.array([[0.9], [0.2]]), np.array([1, 1])) == (0.5, None)
