"""Metrics of decisions, against scikit-learn and against counting by hand."""

import numpy as np
import pytest
from sklearn import metrics

from keras_effnet.errors import UserError
from keras_effnet.evaluation.by_task.decisions import (
    collect_decisions,
    decide,
    evaluate_binary,
    evaluate_labels,
    worst_auc_drift,
)

RNG = np.random.default_rng(3)
TRUTH = RNG.random((200, 3)) < (0.5, 0.2, 0.05)
SCORES = np.clip(0.35 * TRUTH + 0.65 * RNG.random((200, 3)), 0, 1).round(2)  # rounded: ties


def batches(outputs, labels, size=64):
    return ((outputs[at : at + size], labels[at : at + size]) for at in range(0, len(labels), size))


def test_metrics_of_labels_are_those_of_scikit_learn():
    found = evaluate_labels(collect_decisions(batches(SCORES, TRUTH.astype("float32"))))
    answers = SCORES >= 0.5
    assert found.samples == 200
    assert found.mean_ap == pytest.approx(metrics.average_precision_score(TRUTH, SCORES, average="macro"))
    assert found.mean_auc == pytest.approx(metrics.roc_auc_score(TRUTH, SCORES, average="macro"))
    assert found.macro_f1 == pytest.approx(metrics.f1_score(TRUTH, answers, average="macro"))
    assert found.micro_f1 == pytest.approx(metrics.f1_score(TRUTH, answers, average="micro"))
    assert found.exact == pytest.approx(metrics.accuracy_score(TRUTH, answers))
    assert found.accuracy == pytest.approx(1 - metrics.hamming_loss(TRUTH, answers))
    for label, truth, said in zip(found.labels, TRUTH.T, answers.T, strict=True):
        assert label.precision == pytest.approx(metrics.precision_score(truth, said))
        assert label.recall == pytest.approx(metrics.recall_score(truth, said))


def test_the_best_threshold_has_the_highest_f1_of_all_thresholds():
    for truth, scores in zip(TRUTH.T, SCORES.T, strict=True):
        found = decide(truth, scores)
        every = [metrics.f1_score(truth, scores >= threshold) for threshold in np.unique(scores)]
        assert found.best_f1 == pytest.approx(max(every))
        assert metrics.f1_score(truth, scores >= found.best_threshold) == pytest.approx(max(every))


def test_binary_metrics_are_those_of_scikit_learn_for_logits_too():
    truth, logits = TRUTH[:, 0].astype(int), 12 * SCORES[:, :1] - 6
    found = evaluate_binary(collect_decisions(batches(logits, truth), 0.7))
    likely = 1 / (1 + np.exp(-logits[:, 0]))
    assert found.decision.auc == pytest.approx(metrics.roc_auc_score(truth, logits))
    assert found.decision.f1 == pytest.approx(metrics.f1_score(truth, likely >= 0.7))
    assert found.nll == pytest.approx(metrics.log_loss(truth, likely))
    assert np.array_equal(found.confusion, metrics.confusion_matrix(truth, likely >= 0.7))


def test_calibration_compares_the_probability_of_the_answer_with_its_accuracy():
    outputs, labels = np.array([[0.1], [0.1], [0.9], [0.9]]), np.array([0, 1, 1, 1])
    found = evaluate_binary(collect_decisions([(outputs, labels)]))
    assert found.reliability.ece == pytest.approx(abs(0.75 - 0.9))


def test_a_label_without_positives_or_negatives_is_nan_and_is_left_out_of_the_means():
    truth = np.array([[0, 1, 1], [0, 1, 0]])
    found = evaluate_labels(collect_decisions([(np.array([[0.2, 0.9, 0.8], [0.1, 0.8, 0.3]]), truth)]))
    absent, always, both = found.labels
    assert np.isnan([absent.ap, absent.auc, absent.recall, absent.f1, absent.best_threshold, always.auc]).all()
    assert (always.ap, both.auc, found.mean_ap, found.mean_auc) == (1, 1, 1, 1)


def test_labels_that_are_no_decisions_are_refused():
    with pytest.raises(UserError, match="must be 0 or 1, got 2"):
        collect_decisions([(np.array([[0.5]]), np.array([2]))])
    with pytest.raises(UserError, match="3 values per image, the network gives 2"):
        collect_decisions([(np.zeros((1, 2)), np.zeros((1, 3)))])
    with pytest.raises(UserError, match="NaN or infinite values for 1 of 2"):
        collect_decisions([(np.array([[0.5], [np.nan]]), np.array([0, 1]))])
    with pytest.raises(UserError, match="No images"):
        collect_decisions([])


def test_auc_drift_is_that_of_the_label_that_loses_most():
    truth = np.array([[0, 0], [0, 0], [1, 1], [1, 1]])
    good, bad = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.1, 0.85, 0.8, 0.9])
    drift = worst_auc_drift(truth, np.stack([good, good], 1), np.stack([good, bad], 1))
    assert drift == pytest.approx(1 - metrics.roc_auc_score(truth[:, 1], bad)) == 0.25
    assert np.isnan(worst_auc_drift(np.ones(4), good[:, None], bad[:, None]))
