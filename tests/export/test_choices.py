"""Choices of export options: those that `--help` lists are those that the code implements."""

from __future__ import annotations

from keras_effnet.export.choices import DEFAULT_QUANTIZATIONS, FORMATS, INT8_METHODS, QUANTIZATIONS
from keras_effnet.export.recipes import _INT8_METHODS as IMPLEMENTED_METHODS
from keras_effnet.export.recipes import PRECISIONS
from keras_effnet.export.savedmodel_onnx import WRITERS


def test_every_choice_is_implemented_in_the_same_order():
    assert tuple(PRECISIONS) == QUANTIZATIONS
    assert tuple(IMPLEMENTED_METHODS) == INT8_METHODS
    assert tuple(WRITERS) == FORMATS
    assert set(DEFAULT_QUANTIZATIONS) < set(QUANTIZATIONS)
