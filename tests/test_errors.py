"""Errors: one line, the closest match, and a class for each kind."""

from __future__ import annotations

import pytest

from keras_effnet.errors import UserError, VerificationError, listed, one_of, unknown


def test_a_typo_gets_the_closest_name_and_all_the_others():
    message = unknown("command", "exprot", ["train", "export", "eval"])
    assert "Unknown command 'exprot'" in message
    assert "Did you mean 'export'?" in message
    assert "train, export, eval" in message
    assert "\n" not in message


def test_names_that_are_left_out_of_a_message_leave_dots():
    assert listed(["a", "b"], 2) == "a, b" and listed(["a", "b", "c"], 2, "; ") == "a; b; ..." and listed([]) == ""


def test_case_does_not_hide_the_closest_name():
    assert "Did you mean 'float16'?" in unknown("precision", "FLOAT16", ["none", "float16"])


def test_a_name_like_no_other_gets_no_suggestion():
    message = unknown("model", "zzzzzz", ["b0", "lite0"])
    assert "Did you mean" not in message
    assert "b0, lite0" in message


def test_one_of_returns_a_valid_name():
    assert one_of("precision", "int8", ["none", "int8"]) == "int8"


def test_one_of_refuses_any_other():
    with pytest.raises(UserError, match=r"Unknown precision 'int9'\. Did you mean 'int8'"):
        one_of("precision", "int9", ["none", "int8"])


def test_wrong_input_can_be_caught_as_a_value_error_and_a_refused_file_cannot():
    assert issubclass(UserError, ValueError)
    assert not issubclass(VerificationError, ValueError)
