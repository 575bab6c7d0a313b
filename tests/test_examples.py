"""Every example runs as a user would run it."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
ARGUMENTS = {
    "custom_loop.py": ["--epochs", "2"],
    "explain_prediction.py": [],
    "fine_tune.py": ["--epochs", "2"],
    "keras_tuner_phi.py": ["--trials", "1", "--epochs", "1"],
    "scale_and_count.py": [],
    "scaling_study.py": ["--quick"],
    "segmentation.py": ["--quick"],
    "train_and_export.py": ["--epochs", "6"],
    "train_several_hosts.py": [],
}
PRINTED = {
    "custom_loop.py": "of 269 digits",
    "explain_prediction.py": "of 40 digits located in the right corner",
    "fine_tune.py": "of 134 unseen digits",
    "keras_tuner_phi.py": "M MACs, validation accuracy",
    "scale_and_count.py": "width x 3: MACs x 8.61",
    "scaling_study.py": "MACs grew x",
    "segmentation.py": "int8: IoU with the float model 0.9",
    "train_and_export.py": "agreement",
    "train_several_hosts.py": "1 devices: loss",
}
NEEDS = {"keras_tuner_phi.py": "keras_tuner"}
LONG = {
    "custom_loop.py",
    "explain_prediction.py",
    "fine_tune.py",
    "keras_tuner_phi.py",
    "scaling_study.py",
    "segmentation.py",
    "train_and_export.py",
    "train_several_hosts.py",
}


def run(name: str, arguments: list[str], folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, EXAMPLES / name, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def test_every_example_is_run_here():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(ARGUMENTS)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in LONG else ()) for n in ARGUMENTS])
def test_example_runs(name, tmp_path):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    assert PRINTED[name] in run(name, ARGUMENTS[name], tmp_path).stdout


@pytest.mark.soak
def test_the_whole_scaling_study_runs(tmp_path):
    done = run("scaling_study.py", ["--epochs", "1"], tmp_path)
    assert "MACs grew x" in done.stdout and "mobilenetv2" in done.stdout
