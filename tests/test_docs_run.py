"""The commands and Python of README and docs, run on small data beside one trained network (`doc_stand_ins`)."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from doc_blocks import ALL, ROOT, python_blocks, shell_commands
from doc_names import names_of
from doc_stand_ins import Stage, cheaper, put

from keras_effnet.export import export_tflite
from keras_effnet.training.run import train_dataset

# Minutes in all; the others are seconds each.
EXPENSIVE = r"train|study|search(?!.*--dry-run)|export|launch|recommend"
RUN_ELSEWHERE = {"quickstart": "tests/cli/test_quickstart.py"}
RUNNABLE = [
    (block, words)
    for block in ALL
    if block.language == "bash" and block.reason is None
    for words in shell_commands(block.text)
    if words[0] != "pip" and not (words[0] == "keras-effnet" and words[1] in RUN_ELSEWHERE)
]
UNIQUE = {shlex.join(words): words for _, words in RUNNABLE}


@pytest.fixture(autouse=True)
def nothing_is_served(monkeypatch):
    """`serve` ends when it would wait for requests."""
    monkeypatch.setattr("click.launch", lambda url: 0)
    monkeypatch.setattr("keras_effnet.export.web.server.PageServer.serve_forever", lambda server: None)


def marked(line: str) -> object:
    cost = pytest.mark.soak if re.match(rf"keras-effnet ({EXPENSIVE})", line) else pytest.mark.slow
    return pytest.param(line, marks=cost, id=line)  # pytest numbers long texts that have no id


@pytest.fixture(scope="module")
def stage(trained, tmp_path_factory) -> Stage:
    return Stage(tmp_path_factory.mktemp("docs"), trained.run_dir)


@pytest.mark.parametrize("line", map(marked, sorted(UNIQUE)))
def test_command_runs(line, stage, cli, tmp_path):
    program, *words = UNIQUE[line]
    if words[0] == "launch" and importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed")
    put(" ".join(words), stage, tmp_path)
    words = [name for word in words for name in (map(str, sorted(Path().glob(word))) if "/*" in word else [word])]
    if program == "python":
        script = ROOT / words[0] if (ROOT / words[0]).exists() else words[0]
        done = subprocess.run([sys.executable, script, *words[1:]], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-1000:]
    else:
        done = cli(*words, *cheaper(" ".join(words)))
        assert done.status == 0, done.err[-1000:]


CHEAP = ("docs/augment.md", "docs/models.md", "docs/zoo.md")
PYTHON_PAGES = sorted({block.page for block in ALL if python_blocks(block.page)})


@pytest.fixture
def one_epoch(monkeypatch):
    """Every training of a page takes one epoch, and files of what has learned so little are kept."""

    def short(data, config, *arguments, **options):
        return train_dataset(data, replace(config, epochs=1, warmup_epochs=0), *arguments, **options)

    monkeypatch.setattr("keras_effnet.training.train_dataset", short)
    monkeypatch.setattr("keras_effnet.export.export_tflite", partial(export_tflite, allow_degraded=True))


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.slow if page in CHEAP else pytest.mark.soak) for page in PYTHON_PAGES]
)
def test_python_of_a_page_runs(page, stage, one_epoch, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in python_blocks(page):
        put(block.text, stage, tmp_path)
        namespace |= names_of(page, stage)
        exec(compile(block.text, str(block), "exec"), namespace)
