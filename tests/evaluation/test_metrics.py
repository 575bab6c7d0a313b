"""Evaluation metrics against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from keras_effnet.errors import UserError
from keras_effnet.evaluation.metrics import (
    collect_outcomes,
    evaluate,
    least_certain,
    most_confused,
    reliability,
    score_kind,
    softmax,
    worst_mistakes,
)

# Six images of three classes; the fourth image of class 1 is taken for 2, the last of class 2 for 0.
PROBABILITIES = np.array(
    [[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5], [0.1, 0.1, 0.8], [0.6, 0.3, 0.1]]
)
LABELS = np.array([0, 0, 1, 1, 2, 2])


def test_accuracy_by_class_and_confusion_are_as_worked_out_by_hand():
    result = evaluate(PROBABILITIES, LABELS)
    assert result.samples == 6
    assert result.accuracy == pytest.approx(4 / 6)
    assert result.per_class == (1.0, 0.5, 0.5)
    assert result.confusion.tolist() == [[2, 0, 0], [0, 1, 1], [1, 0, 1]]  # rows true, columns predicted
    assert result.top5 == 1.0


def test_top_five_counts_a_label_at_rank_five_and_not_at_rank_six():
    scores = np.tile(np.array([9.0, 8, 7, 6, 5, 4, 3]), (3, 1))
    assert evaluate(scores, np.array([0, 4, 5])).top5 == pytest.approx(2 / 3)
    assert evaluate(scores, np.array([0, 4, 5])).accuracy == pytest.approx(1 / 3)


def test_logits_rank_as_well_as_probabilities():
    assert evaluate(np.log(PROBABILITIES) * 3 - 7, LABELS).confusion.tolist() == [[2, 0, 0], [0, 1, 1], [1, 0, 1]]


def test_a_class_without_images_has_no_accuracy():
    result = evaluate(PROBABILITIES[:4], LABELS[:4])
    assert result.per_class[:2] == (1.0, 0.5) and np.isnan(result.per_class[2])
    assert result.confusion.shape == (3, 3)


def test_no_images_is_an_error():
    with pytest.raises(UserError, match="No images to evaluate"):
        evaluate(np.zeros((0, 3)), np.zeros(0, int))


def test_labels_beyond_the_models_classes_are_an_error():
    with pytest.raises(UserError, match="at least 5 classes but the model knows 3"):
        evaluate(PROBABILITIES[:1], np.array([4]))


# ------------------------------------------------------------------ per class, confusion, mistakes


def test_precision_recall_and_f1_are_scikit_learns():
    from sklearn.metrics import precision_recall_fscore_support

    rng = np.random.default_rng(0)
    scores, labels = rng.random((200, 7)), rng.integers(0, 6, 200)  # class 6 is predicted but has no images
    scores[:, 2] = -1  # class 2 has images but is never predicted
    result = evaluate(scores, labels)
    expected = precision_recall_fscore_support(labels, scores.argmax(1), labels=range(7), zero_division=np.nan)
    for got, column in zip((result.precision, result.per_class, result.f1, result.support), expected, strict=True):
        np.testing.assert_allclose(got, column)
    assert np.isnan(result.precision[2]) and np.isnan(result.per_class[6]) and result.f1[2] == result.f1[6] == 0


def test_the_commonest_confusions_come_first_and_right_answers_are_none():
    matrix = np.array([[50, 2, 0], [7, 40, 1], [0, 0, 30]])
    assert most_confused(matrix, 10) == [(1, 0, 7), (0, 1, 2), (1, 2, 1)]
    assert most_confused(matrix, 1) == [(1, 0, 7)]
    assert most_confused(np.diag([3, 4]), 10) == []


def test_the_worst_mistakes_are_the_wrong_answers_given_with_most_confidence():
    # Right 0.99; wrong 0.6, 0.9; right 0.4; wrong 0.9.
    rows = [[0.99, 0.01, 0], [0.6, 0.4, 0], [0.05, 0.9, 0.05], [0.3, 0.3, 0.4], [0.0, 0.1, 0.9]]
    outcomes = collect_outcomes([(np.array(rows), np.array([0, 1, 0, 2, 1]))])
    assert worst_mistakes(outcomes, 10).tolist() == [2, 4, 1]
    assert worst_mistakes(outcomes, 2).tolist() == [2, 4]
    assert least_certain(outcomes, 2).tolist() == [3, 1]


def test_batches_are_judged_as_the_whole_is():
    rng = np.random.default_rng(1)
    predictions, labels = rng.dirichlet(np.ones(6), 50).astype("float32"), rng.integers(0, 6, 50)
    whole = collect_outcomes([(predictions, labels)])
    parts = collect_outcomes((predictions[start : start + 8], labels[start : start + 8]) for start in range(0, 50, 8))
    for name in ("labels", "predicted", "ranks", "confidence", "likelihood"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
    order = np.argsort(-predictions, axis=1)
    assert whole.ranks.tolist() == [row.tolist().index(label) for row, label in zip(order, labels, strict=True)]


def test_of_equal_scores_the_lower_class_comes_first():
    outcomes = collect_outcomes([(np.full((3, 7), 1 / 7), np.array([0, 4, 5]))])
    assert outcomes.predicted.tolist() == [0, 0, 0] and outcomes.ranks.tolist() == [0, 4, 5]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_no_numbers_are_refused(value):
    broken = PROBABILITIES.copy()
    broken[2, 1] = value
    with pytest.raises(UserError, match="NaN or infinite values for 1 of 6 images"):
        evaluate(broken, LABELS)


# ------------------------------------------------------------------ what a probability is worth


def answered(confidence: float, right: int, wrong: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of two classes that all say class 1 with that confidence, and labels."""
    count = right + wrong
    return np.tile([1 - confidence, confidence], (count, 1)), np.array([1] * right + [0] * wrong)


def test_who_is_right_as_often_as_claimed_has_no_calibration_error():
    sure, unsure = answered(0.9, 9, 1), answered(0.6, 6, 4)
    result = evaluate(*map(np.concatenate, zip(sure, unsure, strict=True)))
    assert result.ece == pytest.approx(0, abs=1e-12)
    assert result.accuracy == pytest.approx(result.confidence) == pytest.approx(0.75)


def test_claiming_more_than_is_right_is_the_calibration_error():
    assert evaluate(*answered(0.95, 6, 4)).ece == pytest.approx(0.35)
    assert evaluate(*answered(1.0, 0, 5)).ece == pytest.approx(1.0)
    # By eq. 3 of Guo et al.: 30 of 40 images are off by 0.35, 10 by 0.2 the other way; they do not cancel.
    both = map(np.concatenate, zip(answered(0.95, 18, 12), answered(0.6, 8, 2), strict=True))
    assert evaluate(*both).ece == pytest.approx(0.75 * 0.35 + 0.25 * 0.2)


def test_within_a_bin_over_and_under_confidence_cancel_and_between_bins_they_do_not():
    # 0.92 and 0.88 share the bin (13/15, 14/15]; 0.94 lies in the next.
    bins = reliability(np.array([0.92, 0.88]), np.array([True, True]))
    assert bins.counts.tolist() == [0] * 13 + [2, 0] and bins.ece == pytest.approx(0.1)
    assert bins.confidence[13] == pytest.approx(0.9) and np.isnan(bins.accuracy[:13]).all()
    assert reliability(np.array([0.92, 0.94]), np.array([True, False])).counts.tolist() == [0] * 13 + [1, 1]


def test_an_edge_belongs_to_the_bin_below_it():
    edges = np.array([0.0, 3 / 15, 0.2 + 1e-9, 6 / 15, 1.0])
    assert reliability(edges, np.ones(5, bool)).counts.tolist() == [1, 0, 1, 1, 0, 1, *[0] * 8, 1]


def test_cross_entropy_is_as_worked_out_by_hand_and_finite_where_the_truth_was_given_nothing():
    result = evaluate(PROBABILITIES, LABELS)
    assert result.nll == pytest.approx(-np.log([0.7, 0.5, 0.8, 0.3, 0.8, 0.1]).mean())
    assert evaluate(np.array([[1.0, 0.0]]), np.array([1])).nll == pytest.approx(-np.log(1e-12))


def test_logits_are_worth_what_their_softmax_is():
    logits = np.log(PROBABILITIES) * 1.5 + 300  # so large that exp overflows in float32
    expected = PROBABILITIES**1.5 / (PROBABILITIES**1.5).sum(axis=1, keepdims=True)
    outcomes = collect_outcomes([(logits.astype("float32"), LABELS)])
    assert outcomes.scores == "logits"
    np.testing.assert_allclose(outcomes.confidence, expected.max(axis=1), rtol=1e-4)
    np.testing.assert_allclose(outcomes.likelihood, expected[np.arange(6), LABELS], rtol=1e-4)
    np.testing.assert_allclose(softmax(logits + 1000), expected, rtol=1e-9)  # beyond what exp takes


def test_a_batch_of_logits_that_looks_like_probabilities_does_not_decide():
    outcomes = collect_outcomes([(np.array([[0.25, 0.75]]), np.array([1])), (np.array([[-3.0, 4.0]]), np.array([0]))])
    assert outcomes.scores == "logits"
    assert outcomes.confidence.tolist() == pytest.approx([1 / (1 + np.exp(-0.5)), 1 / (1 + np.exp(-7))])


def test_scores_that_do_not_sum_to_1_are_taken_as_they_are():
    sigmoids = np.array([[0.9, 0.8], [0.1, 0.3]])
    outcomes = collect_outcomes([(sigmoids, np.array([0, 0]))])
    assert outcomes.scores == "scores" and outcomes.confidence.tolist() == [0.9, 0.3]
    assert score_kind(PROBABILITIES.astype("float16")) == "probabilities"
