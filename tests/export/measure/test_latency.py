"""Latency: median, spread, and the processor."""

from __future__ import annotations

import time

import pytest

from keras_effnet.errors import UserError
from keras_effnet.export import benchmark
from keras_effnet.export.isolation import worker
from keras_effnet.export.isolation.isolated import IsolatedModel
from keras_effnet.export.isolation.worker import Session
from keras_effnet.export.measure import latency
from keras_effnet.system import timing
from keras_effnet.system.machine import cpu_name


class InProcess:
    """The session of a worker, in this process."""

    def __init__(self, path, threads):
        self._session = Session(lambda seconds: None)
        self._session.load(b"", path=str(path), named="file", threads=threads, seconds=9)

    def timer(self, **options):
        self._session.start_timer(b"", **options)
        return self

    def burst(self):
        return self._session.burst(b"")["more"]

    def timing(self):
        return timing.Timing(**self._session.timing(b""))


@pytest.fixture
def in_process(monkeypatch):
    """Makes `benchmark` run files in this process, where a test can set the clock."""
    monkeypatch.setattr(latency, "IsolatedModel", InProcess)


def clock(monkeypatch, seconds: list[float]) -> None:
    """A clock under which the runs take so many seconds, one after the other."""
    ticks = iter(tick for run in seconds for tick in (0.0, float(run)))
    monkeypatch.setattr(timing, "time", type("Clock", (), {"perf_counter": staticmethod(lambda: next(ticks))}))


def test_a_report_names_the_processor(exported):
    report = benchmark(exported["none"].path, runs=10)
    assert report.median_ms > 0 and report.iqr_ms >= 0
    assert (report.runs, report.threads, report.cpu) == (10, 1, cpu_name())


def test_the_median_and_quartiles_are_those_of_the_timed_runs_alone(exported, monkeypatch, in_process):
    clock(monkeypatch, [1000, 1, 2, 3, 4, 5])
    report = benchmark(exported["none"].path, runs=5, warmup=1)
    assert report.median_ms == pytest.approx(3000)
    assert report.iqr_ms == pytest.approx(2000)  # from 2 to 4 seconds


def test_a_slow_file_stops_when_the_time_is_up(exported, monkeypatch, in_process):
    clock(monkeypatch, [0.5] * 50)
    report = benchmark(exported["none"].path, max_seconds=10)  # 4 to warm up take 2 seconds, 16 take the other 8
    assert report.runs == 16


def test_a_very_slow_file_warms_up_once_and_is_timed_five_times(exported, monkeypatch, in_process):
    clock(monkeypatch, [100, 1, 2, 3, 4, 5])
    report = benchmark(exported["none"].path, max_seconds=0.001)
    assert (report.runs, report.median_ms) == (5, pytest.approx(3000))


def test_files_are_timed_a_few_runs_each_in_turn(exported, monkeypatch, in_process):
    order = []
    original = worker.TFLiteModel.run
    monkeypatch.setattr(worker.TFLiteModel, "run", lambda model, batch: order.append(model) or original(model, batch))
    paths = [exported[precision].path for precision in ("none", "int8")]
    reports = latency.benchmark_in_turn(paths, runs=12, warmup=1)
    first, second = order[:2]
    names = {first: "a", second: "b"}
    assert "".join(names[model] for model in order) == "ab" + "aaaaabbbbb" * 2 + "aabb"
    assert [report.runs for report in reports] == [12, 12]


def test_fewer_than_five_runs_can_be_asked_for(exported):
    assert benchmark(exported["none"].path, runs=2, warmup=0).runs == 2


def test_bytes_are_timed_as_a_path_is(exported):
    assert benchmark(exported["none"].path.read_bytes(), runs=1).median_ms > 0


def test_no_time_at_all_is_refused(exported):
    with pytest.raises(UserError, match="max_seconds must be above 0, got 0"):
        benchmark(exported["none"].path, max_seconds=0)


def test_the_worker_does_not_show_in_the_latency(exported):
    """Runs of some 20 microseconds, in turn: a message to the worker takes a hundred."""
    path = exported["int8"].path
    there, here = IsolatedModel(path), InProcess(path, 1)
    timers = [model.timer(runs=300, warmup=50, max_seconds=5) for model in (there, here)]
    while sum(timer.burst() for timer in timers):
        pass
    isolated, plain = (timer.timing().median_ms for timer in timers)
    assert isolated < 1.3 * plain


def test_the_figure_is_the_time_of_one_image(exported):
    started = time.perf_counter()
    report = benchmark(exported["int8"].path, runs=200, warmup=0)
    elapsed = (time.perf_counter() - started) * 1e3
    assert 200 * report.median_ms < 1.2 * elapsed


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"runs": 0}, "runs must be at least 1, got 0"),
        ({"warmup": -1}, "warmup must be at least 0, got -1"),
    ],
)
def test_counts_that_are_too_small_are_refused(exported, wrong, said):
    with pytest.raises(UserError, match=said):
        benchmark(exported["none"].path, **wrong)


def test_what_is_no_tflite_is_refused(tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match=r"is not a \.tflite file"):
        benchmark(tmp_path / "model.tflite")
