"""Systems without POSIX modules, Windows above all: everything can be imported, and the command line starts."""

import subprocess
import sys

import pytest

PROGRAM = """
import importlib
import pkgutil
import sys

import filelock, psutil  # which do without on Windows

sys.modules["fcntl"] = sys.modules["resource"] = None  # to import one is an ImportError now

import keras_effnet

# The fine-tuning worker imports tf_keras, in a process of its own; the build backend finds its neighbours by its path.
skipped = ("__main__", "worker", "build_backend")
names = [found.name for found in pkgutil.walk_packages(keras_effnet.__path__, "keras_effnet.")]
names = [name for name in names if name.rpartition(".")[2] not in skipped]
for name in names:
    importlib.import_module(name)
print(len(names), "modules")

from keras_effnet.cli import main

main(["info", "b0"])
"""


@pytest.mark.slow
def test_every_module_imports_without_posix_modules_and_info_runs():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    modules, _, table = done.stdout.partition(" modules\n")
    assert int(modules.split()[-1]) > 80
    assert "b0" in table
