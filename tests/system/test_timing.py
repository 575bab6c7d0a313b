"""Timing: warm-up, asynchronous results, time limit."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from keras_effnet.errors import UserError
from keras_effnet.system import timing
from keras_effnet.system.timing import Timing, measure, wait


class Later:
    """What an asynchronous function returns at once: the work is done by when it is fetched."""

    def __init__(self, seconds: float = 0.0):
        self.seconds, self.fetched = seconds, 0

    def numpy(self):
        time.sleep(self.seconds)
        self.fetched += 1
        return 1.0


@pytest.fixture
def clock(monkeypatch):
    """A clock that functions move: `clock.spend(seconds)`."""

    class Clock:
        now = 0.0

        def perf_counter(self) -> float:
            return self.now

        def spend(self, seconds: float) -> None:
            self.now += seconds

    made = Clock()
    monkeypatch.setattr(timing, "time", made)
    return made


def spending(clock, seconds):
    """A function whose calls take so many seconds, one after the other."""
    left = iter(seconds)
    return lambda: clock.spend(next(left))


def test_median_and_quartiles_are_those_of_the_timed_runs_alone(clock):
    timed = measure(spending(clock, [50, 40, 1, 2, 3, 4, 5]), runs=5, warmup=2, max_seconds=1000)
    assert timed == Timing(median_ms=3000, iqr_ms=2000, runs=5)  # quartiles at 2 and 4 seconds


def test_a_slow_function_is_timed_five_times_whatever_the_time(clock):
    timed = measure(spending(clock, [100, 7, 7, 7, 7, 7]), runs=20, warmup=3, max_seconds=0.5)
    assert timed == Timing(median_ms=7000, iqr_ms=0, runs=5)


def test_it_stops_when_the_time_is_up_warm_up_included(clock):
    # The warm-up ends at a fifth of the time, after 4 runs or 2 seconds; 16 more take the other 8.
    assert measure(spending(clock, [0.5] * 50), runs=50, warmup=10, max_seconds=10).runs == 16


def test_a_fast_function_runs_as_often_as_asked():
    calls = []
    assert measure(lambda: calls.append(1), runs=12, warmup=4).runs == 12
    assert len(calls) == 4 + 12


def test_what_is_computed_later_is_waited_for():
    """The call itself returns at once; a timer that does not wait would say so."""
    assert measure(lambda: Later(0.02), runs=5, warmup=0).median_ms >= 20
    assert measure(lambda: {"loss": [Later(0.02)]}, runs=5, warmup=0).median_ms >= 20


def test_the_callers_way_to_wait_counts_as_time_and_replaces_ours(clock):
    results = []

    def synchronize(result):
        results.append(result)
        clock.spend(3)

    later = Later()
    timed = measure(lambda: later, synchronize=synchronize, runs=5, warmup=0, max_seconds=1000)
    assert timed.median_ms == 3000
    assert results == [later] * 5
    assert later.fetched == 0


def test_each_tensor_of_nested_results_is_waited_for_once():
    laters = [Later() for _ in range(4)]
    wait({"a": laters[0], "b": [laters[1], (laters[2], {"c": laters[3]})], "d": 3, "e": None, "f": "text"})
    assert [later.fetched for later in laters] == [1] * 4


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"runs": 0}, "runs must be at least 1 and warmup at least 0, got 0 and 3"),
        ({"warmup": -1}, "got 20 and -1"),
        ({"max_seconds": 0}, "max_seconds must be above 0, got 0"),
    ],
)
def test_counts_and_times_that_are_too_small_are_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        measure(lambda: None, **wrong)


def test_importing_it_loads_no_framework():
    code = "import sys, keras_effnet.system.timing; print({'tensorflow', 'keras'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
