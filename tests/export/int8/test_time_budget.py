"""A budget of time: of the int8 files within it the most faithful is kept, and none above it."""

from __future__ import annotations

import pytest

from keras_effnet.errors import UserError, VerificationError
from keras_effnet.export import candidate_trial, export_tflite


@pytest.fixture
def clock(monkeypatch):
    """Sets the time over float32's of each file that is measured."""

    def set_times(*ratios: float) -> None:
        def measured(files):
            assert len(files) == len(ratios) + 1
            return [1.0, *ratios]

        monkeypatch.setattr(candidate_trial, "time_ratios", measured)

    return set_times


@pytest.fixture
def export(toy_model, smooth_images, tmp_path):
    """Function that exports a network to int8 with calibration images of their own, within a budget."""
    model, images = toy_model(size=16), smooth_images(40, 16).astype("float32")

    def run(**options):
        sources = {"calibration": images[:24], "verification": images[24:], "min_agreement": 0.0}
        return export_tflite(model, tmp_path / "int8.tflite", "int8", **sources, **options)

    return run


def test_no_file_above_the_budget_is_written_and_one_line_says_what_was_reached(clock, export, tmp_path):
    clock(0.52)
    with pytest.raises(
        VerificationError,
        match=r"No int8 file within 0\.5 of float32's time was found, the fastest takes 0\.52; reached",
    ) as refusal:
        export(budget=0.5, method="minmax")
    assert "reached: minmax: the same class on " in str(refusal.value)
    assert "0.52 of float32's time" in str(refusal.value) and "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_all_methods_are_tried_and_the_most_faithful_within_the_budget_is_kept(clock, export):
    clock(0.9, 0.5, 0.9, 0.55)
    result = export(budget=0.6)
    assert [attempt.method for attempt in result.attempts] == ["corrected", "minmax", "percentile", "fitted"]
    by_method = {attempt.method: attempt for attempt in result.attempts}
    assert by_method[result.method].time_ratio <= 0.6
    assert result.method == "fitted" and by_method["corrected"].time_ratio == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("quantization", "budget", "message"),
    [
        ("float16", 0.65, "A budget bounds the time of int8 and mixed files, not of float16 ones"),
        ("int8", -1.0, "such as 0.65, got -1.0"),
        ("int8", float("nan"), "such as 0.65, got nan"),
    ],
)
def test_a_budget_that_means_nothing_is_refused(toy_model, tmp_path, quantization, budget, message):
    with pytest.raises(UserError, match=message):
        export_tflite(toy_model(size=16), tmp_path / "file.tflite", quantization, budget=budget)
