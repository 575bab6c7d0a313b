"""Errors of predicted numbers, against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from keras_effnet.evaluation.by_task.values import collect_values, evaluate_values, worst_values

RNG = np.random.default_rng(0)
TRUTH = RNG.normal(50, 10, (90, 2))
PREDICTED = TRUTH + RNG.normal(1, 3, TRUTH.shape)


def test_errors_of_each_value_are_those_of_scikit_learn():
    found = evaluate_values(collect_values([(PREDICTED[:50], TRUTH[:50]), (PREDICTED[50:], TRUTH[50:])]))
    for each, truth, predicted in zip(found.values, TRUTH.T, PREDICTED.T, strict=True):
        assert each.mae == pytest.approx(metrics.mean_absolute_error(truth, predicted))
        assert each.rmse == pytest.approx(metrics.root_mean_squared_error(truth, predicted))
        assert each.max_error == pytest.approx(metrics.max_error(truth, predicted))
        assert each.r2 == pytest.approx(metrics.r2_score(truth, predicted))
        assert each.bias == pytest.approx(np.mean(predicted - truth))
    assert found.mae == pytest.approx(metrics.mean_absolute_error(TRUTH, PREDICTED))


def test_r2_of_a_constant_is_nan():
    found = evaluate_values(collect_values([(np.array([[1.0, 1.0], [2.0, 3.0]]), np.array([[5.0, 1.0], [5.0, 3.0]]))]))
    assert np.isnan(found.values[0].r2) and found.values[0].mae == 3.5
    assert found.r2 == 1


def test_worst_values_are_ranked_by_shares_of_each_range():
    truth = np.array([[0.0, 0.0], [1000.0, 1.0], [500.0, 0.5]])
    predicted = truth + np.array([[10, 0], [0, 0], [0, 0.4]])
    assert worst_values(collect_values([(predicted, truth)]), 2).tolist() == [2, 0]
