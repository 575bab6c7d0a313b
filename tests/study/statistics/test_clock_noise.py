"""Times are told with their noise, and a busy machine is called busy."""

from __future__ import annotations

import subprocess
import sys

import pytest
from study_rows import ROWS

from keras_effnet.study.measurement.load import OtherLoad
from keras_effnet.study.statistics.answers import answer
from keras_effnet.study.statistics.clock_noise import roofline_doubts
from keras_effnet.study.summary import summarize


def timed(**changes):
    quiet = {"step_iqr_ms": 2.0, "predict_iqr_ms": 0.01, "tflite_iqr_ms": 0.02} | changes
    return "\n".join(answer(summarize([row | quiet if row["kind"] == "cost" else row for row in ROWS])))


def test_interquartile_ranges_are_told_in_words():
    text = timed()
    assert "Times are medians; their interquartile ranges are up to 10% of them (training step of small)." in text
    assert "busy" not in text


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"other_cores": 1.2, "cores": 2}, "was busy while networks were timed: other processes used 1.2 of 2 cores."),
        ({"step_iqr_ms": 9.0}, "was probably busy while networks were timed. Read them as upper bounds"),
        ({"step_iqr_ms": 9.0, "other_cores": 0.0, "cores": 2}, "though other processes used only 0.0 of 2 cores: the"),
        ({"other_cores": 0.1, "cores": 2}, None),
        ({"other_cores": None, "cores": 2}, None),
    ],
)
def test_a_busy_machine_is_called_busy_and_no_other(changes, verdict):
    text = timed(**changes)
    assert not verdict or verdict in text
    assert ("busy" in text) == (verdict is not None and "busy" in verdict)


def roof(peak=100.0, fastest=90.0, **load):
    kinds = [{"kind": "stem", "gflops": fastest}, {"kind": "depthwise", "gflops": 9.0}]
    return {"member": "b0", "peaks": {"gflops": peak}, "kinds": kinds, **load}


def test_peaks_that_cannot_be_right_are_doubted():
    """27 GFLOP/s were measured where 100 is usual."""
    assert roofline_doubts([roof()]) is None and roofline_doubts([]) is None
    assert "cannot be right: stem of b0 ran at 90 GFLOP/s, the peak was measured as 27" in roofline_doubts([roof(27.0)])
    assert "other processes used 1.0 of 2 cores" in roofline_doubts([roof(other_cores=1.0, cores=2)])


def test_the_load_of_others_is_what_this_process_did_not_use(monkeypatch):
    """Two cores for ten seconds, of which all processes used 15 seconds of processor time, and this one 4."""
    counters = iter([(0.0, 100.0, 7.0), (10.0, 115.0, 11.0)])
    monkeypatch.setattr(OtherLoad, "_counters", staticmethod(lambda: next(counters)))
    with OtherLoad() as load:
        assert load.cores is None
    assert load.cores == pytest.approx(1.1)


def test_children_are_not_other_processes():
    """Latencies are measured in children: while they live, and when they have ended."""
    before = OtherLoad._counters()[2]
    burn = "import sys, time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        living = OtherLoad._counters()[2]
    assert living - before > 0.25 and OtherLoad._counters()[2] - before > 0.25


def test_counters_grow():
    before, after = OtherLoad._counters(), OtherLoad._counters()
    assert all(now >= then for then, now in zip(before, after, strict=True)) and after[1] > after[2] > 0
