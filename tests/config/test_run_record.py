"""`args.yaml` of runs that are moved or shared."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from small_network import TINY

from keras_effnet.config.run_record import ARGS, RunRecord
from keras_effnet.config.train_config import TrainConfig


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    """A folder in a home folder with images, a network and weights, and the working directory of a training."""
    folder = tmp_path / "home" / "alice" / "work"
    (folder / "photos").mkdir(parents=True)
    shutil.copy(TINY, folder / "tiny.yaml")
    (folder / "tiny.weights.h5").touch()
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.chdir(folder)
    return folder


def test_a_run_moved_with_its_data_network_and_weights_finds_them(work):
    run = work / "runs" / "x"
    run.mkdir(parents=True)
    config = TrainConfig(model="tiny.yaml", weights="tiny.weights.h5")
    RunRecord({"source": str(work / "photos"), "seed": 0}, config).save(run)
    assert str(work.parent) not in (run / ARGS).read_text()
    work.rename(work.with_name("moved"))
    record = RunRecord.read(work.with_name("moved") / "runs" / "x" / ARGS)
    found = (record.data["source"], record.config.model, record.config.weights)
    assert found == tuple(str(work.with_name("moved") / name) for name in ("photos", "tiny.yaml", "tiny.weights.h5"))


def test_a_run_moved_alone_finds_its_data_where_they_were(work):
    run = work / "runs" / "x"
    run.mkdir(parents=True)
    RunRecord({"source": str(work / "photos")}, TrainConfig(model="b0", weights="imagenet")).save(run)
    run.rename(work.parent / "x")
    record = RunRecord.read(work.parent / "x" / ARGS)
    assert (record.data["source"], record.config.model, record.config.weights) == (
        str(work / "photos"),
        "b0",
        "imagenet",
    )


def test_absolute_paths_and_names_in_a_file_are_kept(work):
    for source in (str(work / "photos"), "digits", "tfds:imagenette"):
        (work / ARGS).write_text(yaml.safe_dump({"data": {"source": source}}))
        assert RunRecord.read(work / ARGS).data == {"source": source}
