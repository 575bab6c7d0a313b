"""Disks that fill up and folders that cannot be written: one line with path, cause and cure, and no half result."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_network import TINY

from keras_effnet.cli import console
from keras_effnet.inference.writers import saved_to, written_to
from keras_effnet.system.files import WriteError

PROCESSES = ("study", "search", "quickstart")  # commands that take long once they have begun


@pytest.fixture
def commands(trained, image_folder) -> Callable[[Path], dict[str, tuple[object, ...]]]:
    """Function of an output folder that returns one command line for each command that writes."""
    photos, run = image_folder({"a": 6, "b": 6}), trained.run_dir
    short = ("--model", TINY, "--image-size", 32, "--epochs", 1, "--batch-size", 4, "--optimizer", "sgd")

    def lines(out: Path) -> dict[str, tuple[object, ...]]:
        return {
            "predict": ("predict", photos, "--model", run, "--output", out / "predictions.csv"),
            "explain": ("explain", photos / "a/000.png", "--model", run, "--out", out),
            "eval": ("eval", run, "--out", out),
            "check-data": ("check-data", photos, "--out", out),
            "pack": ("pack", photos, out / "packed"),
            "train": ("train", photos, *short, "--out", out),
            "export": ("export", run, "--quantize", "none", "--out", out / "files"),
            "study": ("study", "digits", "--models", TINY, "--out", out),
            "search": ("search", "digits", "--baseline", TINY, "--out", out),
            "quickstart": ("quickstart", "--out", out),
        }

    return lines


@pytest.fixture
def read_only(small_disk) -> Iterator[Path]:
    """A file system that refuses every write, also of the superuser."""
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    yield small_disk


@pytest.mark.slow
@pytest.mark.parametrize("free", [0, 20_000, None], ids=["full", "fills-up", "read-only"])
def test_every_command_names_path_cause_and_cure_and_leaves_no_half_result(cli, commands, request, free):
    disk: Path = request.getfixturevalue("read_only" if free is None else "small_disk")
    for name, line in commands(disk).items():
        if free and name in PROCESSES:
            continue
        if free is not None:
            (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - free))
        shown = cli(*line)
        message = (shown.err.strip().splitlines() or [""])[-1]
        left = {path.name for path in disk.rglob("*") if path.is_file()} - {"filler"}
        if shown.status:
            assert shown.status == 2, (name, shown.err)
            assert str(disk) in message and re.search("No space left|is full|Read-only", message), (name, message)
            assert re.search("[Ff]ree some space|Choose a folder", message), (name, message)
            assert "--resume" not in message and left <= {"predictions.csv.part"}, (name, message, left)
        else:
            assert free and left, name
        for path in disk.iterdir() if free is not None else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_a_full_disk_behind_the_output_is_an_error_of_the_command():
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    command = [sys.executable, "-m", "keras_effnet", "info", "--json"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with Path("/dev/full").open("w") as output:
        ended = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    assert ended.returncode == 2
    (message,) = ended.stderr.splitlines()
    assert "No space left on device. Free some space and run again" in message and "--resume" not in message


@pytest.mark.parametrize("command", ["train", "study"])
def test_ctrl_c_names_the_command_that_resumes_if_there_is_something_to_resume(cli, monkeypatch, tmp_path, command):
    def interrupted():
        with console.resumable(command, Path("a run"), "last.keras"):
            raise KeyboardInterrupt

    monkeypatch.setattr(console, "prepare_tensorflow", interrupted)
    shown = cli("check-data", "photos")
    assert (shown.status, shown.err.strip()) == (130, "error: interrupted.")
    (tmp_path / "a run").mkdir()
    (tmp_path / "a run" / "last.keras").touch()
    shown = cli("check-data", "photos")
    resume = f"error: interrupted. Resume it: keras-effnet {command} --resume 'a run'"
    assert (shown.status, shown.err.strip()) == (130, resume)


def test_a_disk_that_fills_up_under_embeddings_keeps_the_earlier_files(small_disk):
    path, names = small_disk / "out.npy", small_disk / "out.txt"
    path.write_text("earlier")
    names.write_text("earlier")
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - 8192))
    with pytest.raises(WriteError, match="No space left on device"), saved_to(path) as add:
        for number in range(200):
            add(f"{number}.png", [0.0] * 100)
    assert path.read_text() == names.read_text() == "earlier"
    assert sorted(each.name for each in small_disk.iterdir()) == ["filler", "out.npy", "out.txt"]


def test_a_disk_that_fills_up_under_predictions_keeps_the_earlier_file_and_the_finished_rows(small_disk):
    path, part = small_disk / "out.csv", small_disk / "out.csv.part"
    path.write_text("earlier")
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - 8192))
    expected = rf"Cannot write {path}: No space left on device\. Free some space .*The finished rows are in {part}"
    with pytest.raises(WriteError, match=expected), written_to(path, "csv") as write:
        for number in range(2000):
            write(f"{number}.jpg", [("cat", 0.5)])
    assert path.read_text() == "earlier" and part.read_text().startswith("path,class_1,probability_1\n0.jpg,cat,0.5\n")
