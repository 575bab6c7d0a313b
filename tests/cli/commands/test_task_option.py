"""`--task` of `pack` and `train`: what the labels are for, or a refusal in one line where they do not fit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from keras_effnet.datasets.loading import load


@pytest.fixture
def listed(tmp_path):
    """Eight images whose label may be read as a class or as a number."""
    lines = ["path,label"]
    for number in range(8):
        Image.fromarray(np.full((12, 12, 3), 30 * number, "uint8")).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{number % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "labels.csv"


@pytest.mark.parametrize(("task", "names"), [("regression", ("label",)), ("binary", ("0", "1"))])
def test_a_pack_is_for_the_task_that_was_named(cli, listed, tmp_path, task, names):
    done = cli("pack", listed, tmp_path / "packed", "--task", task, "--json")
    assert done.status == 0 and json.loads(done.out), done.err
    packed = load(tmp_path / "packed", val_split=0.5)
    assert (packed.task, packed.class_names) == (task, names)


@pytest.mark.parametrize("command", ["pack", "train"])
def test_data_without_labels_for_the_task_are_refused_in_one_line(cli, listed, tmp_path, command):
    target = (tmp_path / "packed",) if command == "pack" else ("--out", tmp_path / "runs")
    done = cli(command, listed, *target, "--task", "segmentation")
    assert done.status == 2 and "no column 'mask'" in done.err and done.err.count("\n") == 1
    assert cli(command, listed, *target, "--task", "boxes").status == 2
    assert not (tmp_path / "packed/index.json").exists()
