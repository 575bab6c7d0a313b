"""Latency: a figure, its spread, and the processor it belongs to."""

from __future__ import annotations

import time

import pytest

from keras_effnet.errors import UserError
from keras_effnet.export import benchmark, latency
from keras_effnet.runs import cpu_name


def test_a_report_names_the_processor(exported):
    report = benchmark(exported["none"].path, runs=10)
    assert report.median_ms > 0 and report.iqr_ms >= 0
    assert (report.runs, report.threads, report.cpu) == (10, 1, cpu_name())


def test_the_median_and_quartiles_are_those_of_the_timed_runs_alone(exported, monkeypatch):
    # A clock under which the runs take 1000 (warm-up), 1, 2, 3, 4 and 5 seconds.
    ticks = iter(tick for run in (1000, 1, 2, 3, 4, 5) for tick in (0.0, float(run)))
    monkeypatch.setattr(latency, "time", type("Clock", (), {"perf_counter": staticmethod(lambda: next(ticks))}))
    report = benchmark(exported["none"].path, runs=5, warmup=1)
    assert report.median_ms == pytest.approx(3000)
    assert report.iqr_ms == pytest.approx(2000)  # from 2 to 4 seconds


def test_the_figure_is_the_time_of_one_picture(exported):
    started = time.perf_counter()
    report = benchmark(exported["int8"].path, runs=200, warmup=0)
    elapsed = (time.perf_counter() - started) * 1e3
    assert 200 * report.median_ms < 1.2 * elapsed


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"runs": 0}, {"warmup": -1}])
def test_counts_below_one_are_refused(exported, wrong):
    with pytest.raises(UserError, match="threads and runs must be at least 1"):
        benchmark(exported["none"].path, **wrong)


def test_what_is_no_tflite_is_refused(tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match=r"is not a \.tflite file"):
        benchmark(tmp_path / "model.tflite")
