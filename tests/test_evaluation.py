"""Figures of an evaluation, against ones worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from keras_effnet.errors import UserError
from keras_effnet.evaluation import evaluate

# Six pictures of three classes; the fourth picture of class 1 is taken for 2, the last of class 2 for 0.
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


def test_a_class_without_pictures_has_no_accuracy():
    result = evaluate(PROBABILITIES[:4], LABELS[:4])
    assert result.per_class[:2] == (1.0, 0.5) and np.isnan(result.per_class[2])
    assert result.confusion.shape == (3, 3)


def test_no_pictures_is_an_error():
    with pytest.raises(UserError, match="No pictures to evaluate"):
        evaluate(np.zeros((0, 3)), np.zeros(0, int))


def test_labels_beyond_the_models_classes_are_an_error():
    with pytest.raises(UserError, match="at least 5 classes but the model knows 3"):
        evaluate(PROBABILITIES[:1], np.array([4]))
