"""Peak memory of a file, measured in another process: it follows the size of weights and activations."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tiny_files import tiny_file

from keras_effnet.errors import UserError
from keras_effnet.export import peak_memory
from keras_effnet.export.isolation import isolated

MEGA = 1_000_000


def relu(floats: int) -> bytes:
    tensors = {"a": ("float32", (1, floats)), "b": ("float32", (1, floats))}
    return tiny_file(tensors, [("RELU", "a", "b")], "a", "b")


def test_memory_grows_with_the_activations():
    small, large = peak_memory(relu(1000)), peak_memory(relu(4 * MEGA))
    assert large - small == pytest.approx(32, abs=3)  # two tensors of 16 MB


def test_this_process_does_not_count():
    assert "tensorflow" in sys.modules  # some hundred MB
    assert peak_memory(relu(1000)) < 15


def test_the_child_imports_nothing_heavy(exported):
    code = (
        "import sys\n"
        "from keras_effnet.export.isolation.worker import Session\n"
        f"Session(print).memory(b'', path={str(exported['int8'].path)!r}, threads=1)\n"
        "assert not {'tensorflow', 'keras', 'matplotlib', 'click'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_file_takes_at_least_its_own_weights(exported):
    path = exported["none"].path
    assert peak_memory(path) > path.stat().st_size / 1e6


def test_a_file_that_cannot_run_is_named_with_its_cause(tmp_path):
    content = tiny_file({"a": ("float32", (1,)), "b": ("float32", (1,))}, [("FlexInv", "a", "b")], "a", "b")
    (tmp_path / "flex.tflite").write_bytes(content)
    with pytest.raises(UserError, match=r"flex\.tflite cannot be run by LiteRT: .*FlexInv"):
        peak_memory(tmp_path / "flex.tflite")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.tflite does not exist"):
        peak_memory(tmp_path / "gone.tflite")


def test_a_file_too_large_for_the_machine_is_said_to_be(monkeypatch):
    monkeypatch.setattr(isolated, "_COMMAND", (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    with pytest.raises(UserError, match=r"was killed while it ran The model \(SIGKILL\): probably out of memory"):
        peak_memory(relu(1))


def test_a_run_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr(isolated, "_COMMAND", (sys.executable, "-c", "import time; time.sleep(60)"))
    with pytest.raises(UserError, match=r"did not finish one run in 0\.01 seconds"):
        peak_memory(relu(1), timeout=0.01)


def test_a_child_that_says_nothing_is_no_figure(monkeypatch):
    monkeypatch.setattr(isolated, "_COMMAND", ("/bin/true",))
    with pytest.raises(UserError, match=r"LiteRT crashed \(exit status 0\) on The model"):
        peak_memory(relu(1))


def test_damage_is_named(tmp_path):
    (tmp_path / "half.tflite").write_bytes(relu(1)[:100])
    with pytest.raises(UserError, match=r"half\.tflite is damaged"):
        peak_memory(tmp_path / "half.tflite")
