"""Two commands on one folder: the second is refused in one line before it has read any data or changed any file."""

from __future__ import annotations

from pathlib import Path

import pytest
from locks import held_by_another

from keras_effnet import datasets
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError
from keras_effnet.study.networks import family
from keras_effnet.study.plan import Plan
from keras_effnet.study.protocol import Protocol
from keras_effnet.system.run_folders import LOCK
from keras_effnet.training.loop import train
from keras_effnet.training.processes import ADDRESSES, PROCESS_ID, PROCESSES
from keras_effnet.training.run import train_dataset


@pytest.fixture
def refused(cli, monkeypatch):
    """Runs a command on a folder that another process uses; nothing there may change, and no data may be read."""

    def run(folder: Path, *args: object) -> None:
        monkeypatch.setattr(datasets, "load", lambda *_, **__: pytest.fail("data were read"))
        before = files_of(folder)
        with held_by_another(folder) as other:
            shown = cli(*args)
        assert shown.status == 2, shown
        assert shown.err.startswith(f"error: {folder} is in use by process {other.pid} on "), shown.err
        assert shown.err.count("\n") == 1
        assert files_of(folder) == before

    return run


def files_of(folder: Path) -> dict[str, bytes]:
    files = {path for path in folder.rglob("*") if path.is_file() and path.name != LOCK}
    return {str(path): path.read_bytes() for path in files}


@pytest.fixture
def run(tmp_path) -> Path:
    """What a second `train --resume` reads before it locks."""
    config = TrainConfig(model="lite0").to_yaml().replace("\n", "\n  ").rstrip()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "args.yaml").write_text(f"data: {{source: digits, seed: 0}}\nconfig:\n  {config}\n")
    return tmp_path / "run"


def test_train(refused, run):
    refused(run, "train", "--resume", run)


@pytest.mark.parametrize("command", ["study", "search"])
def test_study_and_search(refused, tmp_path, command):
    Plan(Protocol({"source": "digits"}), tuple(family(["lite0"])), 1).save(tmp_path)
    (tmp_path / "search.yaml").write_text("baseline: lite0\n")
    refused(tmp_path, command, "--resume", tmp_path)


def test_pack(cli, image_folder, tmp_path):
    source, out = image_folder({"cat": 3, "dog": 3}), tmp_path / "packed"
    (out / ".partial").mkdir(parents=True)
    (out / ".partial" / "train-00000.tfrecord").write_bytes(b"another process writes here")
    before = files_of(out)
    with held_by_another(out) as other:
        shown = cli("pack", source, out)
    assert shown.status == 2
    assert f"{out} is in use by process {other.pid} on " in shown.err
    assert files_of(out) == before


def test_a_pack_that_another_process_completed_meanwhile_is_not_replaced(image_folder, tmp_path, monkeypatch):
    from keras_effnet.datasets import packing

    source, out, inner = image_folder({"cat": 3, "dog": 3}), tmp_path / "packed", packing.read_source

    def slow(*args, **kwargs):
        monkeypatch.setattr(packing, "read_source", inner)
        packing.pack(source, out, seed=1)  # the other process
        return inner(*args, **kwargs)

    monkeypatch.setattr(packing, "read_source", slow)
    with pytest.raises(UserError, match="already holds packed images"):
        packing.pack(source, out)
    assert datasets.load(out).class_names == ("cat", "dog")


def test_export(cli, toy_model, image_folder, tmp_path):
    toy_model(2, 40).save(tmp_path / "toy.keras")
    images = image_folder({"cat": 30, "dog": 30})
    (tmp_path / "out").mkdir()
    with held_by_another(tmp_path / "out") as other:
        shown = cli("export", tmp_path / "toy.keras", "--out", tmp_path / "out", "--calibration", images)
    assert shown.status == 2
    assert f"is in use by process {other.pid} on " in shown.err
    assert files_of(tmp_path / "out") == {}


def test_the_functions_refuse_as_the_command_does(digits, toy_model, batches, run):
    with held_by_another(run):
        for attempt in (
            lambda: train_dataset(digits, TrainConfig(model="lite0"), run),
            lambda: train(toy_model(), batches, batches, TrainConfig(epochs=1, batch_size=8), run_dir=run),
        ):
            with pytest.raises(UserError, match=f"{run} is in use by process "):
                attempt()


def test_of_processes_that_train_together_only_the_first_needs_the_folder(run, monkeypatch):
    from keras_effnet.training.checkpoints import writing_to

    for name, value in {ADDRESSES: "127.0.0.1:1", PROCESSES: "2", PROCESS_ID: "1"}.items():
        monkeypatch.setenv(name, value)
    with held_by_another(run):
        with writing_to(run):
            pass
        monkeypatch.setenv(PROCESS_ID, "0")
        with pytest.raises(UserError, match="is in use"), writing_to(run):
            pass
