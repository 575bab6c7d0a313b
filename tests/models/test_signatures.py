"""Type checkers see the parameters of the builders, through the lazy top level too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[2]
SNIPPET = """
import keras_effnet
from keras_effnet.models import EfficientNetLite0

keras_effnet.EfficientNetB0(weights=None, classes=10, pooling="avg", dropout_rate=0.1)
keras_effnet.EfficientNetB0(wieghts=None)
EfficientNetLite0(pooling="mean")
"""


def test_mypy_catches_a_misspelt_argument_and_accepts_a_correct_call(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed")
    (tmp_path / "snippet.py").write_text(SNIPPET)
    command = [sys.executable, "-m", "mypy", "--ignore-missing-imports", "--follow-imports=silent", "snippet.py"]
    # Type checkers do not see the import hook of an editable installation.
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"MYPYPATH": str(CHECKOUT)}
    )
    errors = [line for line in done.stdout.splitlines() if "error:" in line]
    assert len(errors) == 2, done.stdout + done.stderr
    assert 'snippet.py:6: error: Unexpected keyword argument "wieghts"' in errors[0]
    assert "snippet.py:7: error" in errors[1] and "pooling" in errors[1]
