"""Memory of this machine and this process."""

import numpy as np
import psutil
import pytest

from keras_effnet.errors import UserError
from keras_effnet.system import machine


def test_the_peak_includes_memory_that_was_given_back():
    before = machine.resident_bytes()
    block = np.ones(64 << 20, "uint8")
    held = machine.resident_bytes()
    del block
    assert held - before > 60 << 20
    assert machine.peak_resident_bytes() >= held - (4 << 20)  # the two counters are not updated at the same time


def test_without_proc_free_memory_is_what_psutil_reports(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 5 << 30})())
    assert machine.host_bytes(tmp_path) == (5 << 30, "memory")


def test_a_system_that_reports_nothing_gets_a_way_out(tmp_path, monkeypatch):
    def fail():
        raise NotImplementedError

    monkeypatch.setattr(psutil, "virtual_memory", fail)
    with pytest.raises(UserError, match="give a batch size"):
        machine.host_bytes(tmp_path)
