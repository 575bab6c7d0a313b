"""Careless use of every command: each mistake is refused at once in one line, or works; nothing is ignored in silence.

The rows need no network: they run in this process and stop before TensorFlow computes anything.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from PIL import Image
from small_network import TINY
from tiny_files import tiny_file

from keras_effnet.cli import app
from keras_effnet.cli.console import command_line

EMPTY = "it is an empty string. Was a shell variable not set?"
NO_EFFECT = "would have no effect: "
RELU = {"tensors": {"x": ("float32", (1, 8, 8, 3)), "y": ("float32", (1, 8, 8, 3))}, "inputs": "x", "outputs": "y"}

# Command line -> fragment of the one line. `mess` describes the files.
REFUSED = {
    # paths: missing, empty, of another kind
    "benchmark dir": "dir is a folder: name its files, dir/*.tflite",
    "benchmark gone.tflite": "gone.tflite does not exist",
    "benchmark ''": EMPTY,
    "benchmark /dev/null": "/dev/null is not a regular file",
    "info dir.tflite": "dir.tflite is a folder",
    "info empty.tflite": "it is empty",
    "info dir": "info takes names of networks, .yaml and .tflite files",
    "info text.keras": "info takes names of networks, .yaml and .tflite files",
    "info dir.yaml": "Network file dir.yaml is a folder",
    "info ''": EMPTY,
    "eval '' images": EMPTY,
    "eval dir.keras images": "dir.keras is a folder without weights/best.keras",
    "eval m.weights.h5 images": "neither a .keras nor a .tflite file",
    "eval text.keras images": "is not a Keras model",
    "eval z.keras images": "is not a Keras model",
    "eval b00 images": "Did you mean 'b0'?",
    "eval text.keras ''": EMPTY,
    "eval text.keras images --out ''": EMPTY,
    "predict '' --model text.keras": EMPTY,
    "predict i.png --model ''": EMPTY,
    "predict i.png --model gone": "Model gone does not exist",
    "predict i.png --model text.keras --output ''": EMPTY,
    "predict i.png --model text.keras --output dir": "Cannot write dir",
    "predict i.png --model text.keras --output p.txt": "p.txt has no known format",
    "explain '' --model text.keras": EMPTY,
    "explain i.png --model dir": "dir is a folder without",
    "explain i.png --model text.keras --layer ''": EMPTY,
    "export text.keras --calibration ''": EMPTY,
    "export text.keras --float-blocks ,": "',' lists nothing",
    "export text.keras --float-blocks ''": EMPTY,
    "export text.keras --also ' , '": "' , ' lists nothing",
    "export text.keras --quantize ,": "',' lists nothing",
    "study digits --models ''": EMPTY,
    "study digits --models b0 --phi ,": "',' lists nothing",
    "study digits --axis ,": "',' lists nothing",
    "export text.keras --name ''": "must be a plain one, without a path, got ''",
    "export z.zip": "neither a .keras nor a .tflite file",
    "export tiny.yaml": "neither a .keras nor a .tflite file",
    "check-data ''": EMPTY,
    "check-data dir": "dir is empty",
    "check-data i.png": "i.png is a file; data is a folder",
    "check-data z.zip": "z.zip is a file; data is a folder",
    "check-data 'gone\nx\x1b[31m'": r"'gone\nx\x1b[31m'",
    "pack images ''": EMPTY,
    "pack images z.zip": "z.zip is a file; shards are written to a folder",
    "pack images images": "images is not empty and not a packed folder",
    "train ''": EMPTY,
    "train text.keras": "text.keras is a file; data is",
    "train broken": "broken is a symbolic link to what does not exist",
    "info broken.yaml": "Network file broken.yaml is a symbolic link to what does not exist",
    "train images --model ''": EMPTY,
    "train images --model dir.yaml": "Network file dir.yaml is a folder",
    "train images --config dir": "Config file dir is a folder",
    "train images --config ''": EMPTY,
    "train images --out ''": EMPTY,
    "train --resume ''": EMPTY,
    "train --resume dir": "dir is not a training run",
    "study ''": EMPTY,
    "study --resume dir": "dir is not the folder of a study",
    "search --resume dir": "dir",
    "recommend --data '' --budget-ms 1": EMPTY,
    "recommend --data dir --budget-ms 1": "dir is not the folder of a study",
    "recommend --data text.keras --budget-ms 1": "text.keras is not the folder of a study",
    "quickstart --out ''": EMPTY,
    "launch -- gone.py": "Script gone.py does not exist",
    "launch -- dir.py": "Script dir.py is a folder",
    # numbers
    "benchmark x.tflite --threads 5000": "5000 is not in the range 1<=x<=1024",
    "benchmark x.tflite --runs 0": "0 is not in the range x>=1",
    "benchmark x.tflite --runs 9999999999": "9999999999 is more than 2,147,483,647",
    "benchmark x.tflite --max-seconds nan": "'nan' is not a finite number",
    "eval text.keras images --batch-size 99999999999999999999": "is more than 2,147,483,647",
    "eval text.keras images --batch-size 1.5": "'1.5' is not a valid integer",
    "eval text.keras images --max-bad-files -1": "-1 is not in the range x>=0",
    "predict i.png --model text.keras --batch-size 0": "0 is not in the range x>=1",
    "export text.keras --min-agreement nan": "'nan' is not a finite number",
    "export text.keras --seed -1": "-1 is not in the range",
    "check-data images --seed -1": "-1 is not in the range",
    "check-data images --image-size 5000": "5000 is not in the range 1<=x<=4096",
    "check-data images --val-split nan": "val_split must lie between 0 and 1",
    "pack images out --seed -1": "-1 is not in the range",
    "pack images out --size 5000": "5000 is not in the range 1<=x<=4096",
    "pack images out --size 1": "size must be at least 8",
    "pack images out --shards 0": "shards must be at least 1",
    "pack images out --max-bad-files -1": "-1 is not in the range x>=0",
    "train images --epochs 9999999999": "9999999999 is more than 2,147,483,647",
    "train images --batch-size 99999999999999999999": "is more than 2,147,483,647",
    "train images --batch-size aut": "'aut' is neither a whole number nor auto",
    "train images --seed 9999999999": "seed must be at least 0 and at most 4294967295",
    "train images --learning-rate 1e300": "learning_rate must be a number that float32 holds",
    "train images --learning-rate inf": "learning_rate must be a number",
    "train images --momentum 0.5": "--momentum would have no effect: momentum belongs to the optimizers",
    "train images --schedule constant --decay-epochs 3": "--decay-epochs would have no effect: steps of decay belong",
    "train images --policy autoaugment --magnitude 5": "--magnitude would have no effect: they belong to RandAugment",
    "train images --mosaic 0.5 --fit letterbox": "--fit and --mosaic would have no effect: they belong to detectors",
    "train digits --decoder fpn": "--decoder would have no effect: the task of digits is classification",
    "train images --fold 6/5": "fold must be a pair",
    "train images --fold 1/0": "fold must be a pair",
    "info b0 --phi 1e9": "phi is too large",
    "info b0 --phi nan": "phi must be a finite number, got nan",
    "info b0 --classes 99999999999": "is more than 2,147,483,647",
    "info b0 --classes 0": "0 is not in the range x>=1",
    "quickstart --epochs 0": "0 is not in the range x>=1",
    "study images --phi -1,nan": "Invalid value for '--phi': nan is not a finite number",
    "study images --models b0 --seeds 0": "0 is not in the range x>=1",
    "search images --threads 0": "0 is not in the range 1<=x<=1024",
    "launch --processes 9999999 -- info": "9999999 is not in the range 1<=x<=1024",
    "launch --coordinator h:99999 --process-id 0 -- info": "--coordinator must be HOST:PORT",
    "launch --coordinator :80 --process-id 0 -- info": "--coordinator must be HOST:PORT",
    # names
    "eval text.keras images --split tset": "Unknown split 'tset'. Did you mean 'test'?",
    "predict i.png --model text.keras --format cvs": "Unknown format 'cvs'. Did you mean 'csv'?",
    "train images --recipe shrt": "Did you mean 'short'?",
    "launch -- trian": "Unknown command 'trian'. Did you mean 'train'?",
    "study images --name a/b": "must be a plain one",
    "search images --name a/b": "must be a plain one",
    "export text.keras --name ../x": "must be a plain one",
    "train images --name a/b": "must be a plain one, without a path, got 'a/b'",
    "train images --name ..": "must be a plain one, without a path, got '..'",
    "quickstart more": "Too many arguments: more. Usage: keras-effnet quickstart [OPTIONS]",
    "info b0 b1 b2": "Too many arguments: b1 b2. Usage: keras-effnet info [OPTIONS] [MODEL]",
    "pack images": "Missing argument 'OUT'. Usage: keras-effnet pack [OPTIONS] DATA OUT",
    # options without effect, or against each other
    "info x.tflite --classes 10": "--json is the only option for it",
    "info b0 --pretrained": f"--pretrained {NO_EFFECT}",
    "info --blocks": f"--blocks {NO_EFFECT}",
    "info b0 --resolution 2 --image-size 64": "--image-size replaces --resolution",
    "predict i.png --model text.keras --json --format csv": "--json and --format csv exclude each other",
    "export text.keras --epochs 3 --learning-rate 1": f"--epochs and --learning-rate {NO_EFFECT}",
    "export text.keras --training-samples 50": f"--training-samples {NO_EFFECT}",
    "export text.keras --clusters 4 --sparsity 0.5": "exclude each other",
    "train images --fold 1/5 --val-split 0.3": f"--val-split {NO_EFFECT}",
    "train images --data-dir dir": "data_dir is for tfds:NAME only",
    "pack images out --data-dir dir": "data_dir is for tfds:NAME only",
    "train --resume dir --name x": f"--name {NO_EFFECT}",
    "train --resume dir --out x --config c": f"--out and --config {NO_EFFECT}",
    "train --resume dir --val-split 0.5": f"--val-split {NO_EFFECT}",
}


@pytest.fixture
def mess(cli, tmp_path):
    """A folder of files that are not what their names say, beside a few that are."""
    for name in ("dir", "dir.keras", "dir.tflite", "dir.yaml", "dir.py"):
        (tmp_path / name).mkdir()
    for name in ("text.keras", "m.weights.h5"):
        (tmp_path / name).write_text("hello")
    (tmp_path / "empty.tflite").touch()
    for name in ("broken", "broken.yaml"):
        (tmp_path / name).symlink_to(tmp_path / "nothing")
    for name in ("z.zip", "z.keras"):
        shutil.copyfile(shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path / "dir"), tmp_path / name)
    (tmp_path / "x.tflite").write_bytes(tiny_file(**RELU, steps=[("RELU", "x", "y")]))
    shutil.copyfile(TINY, tmp_path / "tiny.yaml")
    Image.new("RGB", (9, 9)).save(tmp_path / "i.png")
    for name in ("ant", "bee"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (9, 9), (40 * number, 99, 0)).save(tmp_path / "images" / name / f"{number}.png")
    return cli


@pytest.mark.parametrize("line", REFUSED, ids=ascii)
def test_a_careless_command_is_refused_in_one_line(mess, tmp_path, line):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    shown = mess(*shlex.split(line))
    complaints = [each for each in shown.err.splitlines() if not each.startswith(("warning: ", "Memory: "))]
    assert (shown.status, len(complaints), shown.out) == (2, 1, ""), shown
    assert complaints[0].startswith("error: ") and REFUSED[line] in complaints[0], complaints[0]
    assert "unexpected" not in complaints[0]
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}


def test_no_option_takes_an_empty_text():
    for name in app.COMMANDS:
        command = app.cli.get_command(None, name)
        for param in command.params:
            kind = type(param.type)
            assert kind not in (click.Path, click.types.StringParamType), f"{name} {param.name}"


@pytest.mark.parametrize("name", ["Tiny.yaml", "tiny.yml"])
def test_info_describes_a_network_of_a_file(mess, tmp_path, name):
    shutil.copyfile(TINY, tmp_path / name)
    shown = mess("info", name, "--depth", "2", "--blocks")
    assert shown.status == 0, shown.err
    assert f"times the MACs of {name}" in shown.out and "block1b" in shown.out
    assert shown.out.splitlines()[-1].endswith(f"train digits --model {name} --depth 2 --image-size 32")


def test_a_file_whose_name_begins_with_a_dash_is_no_option_in_the_next_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-data").mkdir()
    assert command_line("keras-effnet", "train", "-data", "--epochs", 3) == "keras-effnet train ./-data --epochs 3"


def test_a_reader_that_has_gone_is_no_error(cli, monkeypatch):
    def gone(*args, **kwargs):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr("keras_effnet.cli.console.finish", gone)
    monkeypatch.setattr("os.dup2", lambda *descriptors: None)  # stdout of this process stays open
    shown = cli("info", "b0")
    assert (shown.status, shown.err) == (141, "")


# Narrow terminals, terminals of ASCII only, no terminal at all, no home, a closed stdout: (environment, redirection).
SURROUNDINGS = {
    "narrow": ({"COLUMNS": "20"}, ""),
    "ascii": ({"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, ""),
    "no home": ({"HOME": "/nonexistent"}, ""),
    "stdout closed": ({}, ">&-"),
    "stderr closed": ({}, "2>&-"),
    "head": ({}, "| head -1"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_commands_work_in_poor_surroundings(tmp_path, name):
    environment, redirection = SURROUNDINGS[name]
    shutil.copyfile(TINY, tmp_path / "tïny.yaml")
    line = f"{shlex.quote(sys.executable)} -m keras_effnet info tïny.yaml --blocks {redirection}"
    shown = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown
    assert shown.stderr == ""
    if ">&-" not in redirection or redirection.startswith("2"):
        assert shown.stdout


@pytest.mark.parametrize("what", ["constants", "baseline"])
def test_a_search_with_a_wrong_setting_leaves_no_run_folder(cli, what):
    assert cli("search", "digits", "--what", what, "--set", "epoch=3").status == 2
    assert not Path("runs").exists()


def test_names_are_plain_text_in_the_report_of_a_dataset(image_folder):
    from keras_effnet.cli.commands.check_data import markdown
    from keras_effnet.datasets import check_data

    folder = image_folder({"<b>a|b": 5, "[c](x)": 5}, root="<i>set")
    text = markdown(check_data(folder, near_duplicates=False), [])
    assert r"\<b\>a\|b" in text and r"\[c\](x)" in text and text.startswith(r"# \<i\>set: data check")
    assert not any(mark in line.replace("\\", "\0") for mark in ("(train, <b>", "| <b>") for line in text.splitlines())
