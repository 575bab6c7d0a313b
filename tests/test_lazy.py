"""Start-up time: `import keras_effnet` and `--help` load no framework."""

import os
import resource
import subprocess
import sys

import pytest

HEAVY = ("tensorflow", "keras", "tf_keras", "torch", "sklearn", "matplotlib", "ai_edge_litert")


def python(*arguments):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def modules_after(program):
    """Top-level names in `sys.modules` after a program."""
    lines = python("-c", f"{program}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))")
    return set(lines.stdout.splitlines()[-1].split())


def modules_of_command(*arguments):
    """Top-level names that a command imports, as the interpreter reports them."""
    report = python("-X", "importtime", "-m", "keras_effnet", *arguments).stderr
    names = {line.rpartition("|")[2].strip() for line in report.splitlines() if line.startswith("import time:")}
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    "program",
    [
        "import keras_effnet",
        "import keras_effnet\nkeras_effnet.__version__, dir(keras_effnet)",
        "import keras_effnet\nkeras_effnet.list_models(), keras_effnet.CompoundScaling().factors(1)",
        "import keras_effnet\nkeras_effnet.complexity.count(keras_effnet.architecture_spec('b7'))",
        "import keras_effnet.export",
        "from keras_effnet.config import TrainConfig\nTrainConfig().spec",
    ],
)
def test_import_and_arithmetic_load_no_framework(program):
    loaded = modules_after(program)
    assert "keras_effnet" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("train", "--help"), ("export", "--help")])
def test_help_loads_no_framework(arguments):
    loaded = modules_of_command(*arguments)
    assert "click" in loaded  # the report was read
    assert not loaded & set(HEAVY)


def test_a_model_loads_keras_when_it_is_asked_for():
    # The counterpart: the checks above would see a framework.
    assert "keras" in modules_after("import keras_effnet\nkeras_effnet.EfficientNet")


def cpu_seconds_of_help():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    python("-m", "keras_effnet", "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.skipif("coverage" in sys.modules or os.environ.get("COVERAGE_PROCESS_START"), reason="coverage slows it")
def test_help_takes_less_than_a_third_of_a_second_of_cpu():
    # Processor time, not wall time, and the best of five: a busy machine adds to both.
    assert min(cpu_seconds_of_help() for _ in range(5)) < 0.3
