"""`info FILE.tflite` lists the contents of a file; `benchmark` measures its time and memory."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tiny_files import tiny_file

from keras_effnet.export.tflite_file.clients import CLIENTS


def test_info_shows_what_is_inside_a_file(cli, exported):
    path = exported["int8"].path
    shown = cli("info", path)
    assert shown.status == 0
    assert "Input:  uint8 [1, 32, 32, 3], scale" in shown.out and "Output: float32 [1, 10]" in shown.out
    assert all(text in shown.out for text in ("CONV_2D", "DEPTHWISE_CONV_2D", "output SOFTMAX (", "MB live at a time"))
    verdicts = {
        client: line for client in CLIENTS for line in shown.out.splitlines() if line.startswith(f" {client}  ")
    }
    assert verdicts["LiteRT CPU"].split()[-2:] == ["accepts", "trial"]
    assert verdicts["Core ML delegate"].split()[-2:] == ["refuses", "documents"] and set(verdicts) == set(CLIENTS)
    result, following = shown.out.splitlines()[-2:]
    assert result.startswith(f"Result: {path.name}: int8, {path.stat().st_size / 1e6:.2f} MB")
    assert following == f"Next:   keras-effnet benchmark {path}"


def test_info_shows_what_a_file_says_of_itself(cli, exported):
    shown = cli("info", exported["dynamic"].path).out
    assert "Pixels: RGB, mean 0, std 1" in shown and "Labels: 10: 0, 1, 2, 3, 4, ..." in shown
    assert "Signature: serving_default(image) -> scores" in shown and "Oldest runtime: 2.17.0" in shown
    found = json.loads(cli("info", exported["int8"].path, "--json").out)
    assert found["metadata"]["labels"] == list("0123456789") and found["min_runtime_version"] == "1.14.0"
    assert found["signatures"] == [{"key": "serving_default", "inputs": ["image"], "outputs": ["scores"]}]


def test_info_of_a_file_without_metadata(cli, tmp_path):
    tensors = {"image": ("float32", (1, 8, 8, 3)), "scores": ("float32", (1, 3))}
    (tmp_path / "bare.tflite").write_bytes(tiny_file(tensors, [("RESHAPE", "image", "scores")], "image", "scores"))
    shown = cli("info", "bare.tflite")
    assert shown.status == 0 and "Metadata: none" in shown.out and "Oldest runtime: not stated" in shown.out


def test_info_says_why_a_client_refuses(cli, exported):
    shown = cli("info", exported["none"].path)
    reason = "Edge TPU refuses: float activations; only 8-bit integers are supported."
    assert f"{reason} Instead: --quantize int8 --input-type uint8." in shown.out.splitlines()
    assert "Float islands" not in shown.out


def test_info_of_a_file_as_json(cli, exported):
    found = json.loads(cli("info", exported["int8"].path, "--json").out)
    assert found["size_bytes"] == exported["int8"].size_bytes and found["precision"] == "int8"
    assert found["inputs"][0]["dtype"] == "uint8" and found["arena_bytes"] > 0
    assert [island["operators"] for island in found["islands"]] == [["SOFTMAX"]]
    assert {verdict["client"] for verdict in found["clients"]} == set(CLIENTS)


@pytest.mark.parametrize("option", [("--phi", "2"), ("--blocks",), ("--pretrained",), ("--image-size", "64")])
def test_a_file_cannot_be_scaled(cli, exported, option):
    shown = cli("info", exported["none"].path, *option)
    assert shown.status == 2 and "is a file: it cannot be scaled" in shown.err


def test_info_of_a_file_that_is_not_there(cli):
    shown = cli("info", "gone.tflite")
    assert shown.status == 2 and shown.err.strip() == "error: gone.tflite does not exist."


def test_info_of_a_file_does_not_import_tensorflow(exported, tmp_path):
    code = (
        "import sys\nfrom keras_effnet.cli import main\n"
        f"main(['info', {str(exported['int8'].path)!r}])\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_benchmark_shows_peak_memory(cli, exported):
    path = exported["none"].path
    shown = cli("benchmark", path, "--runs", "5")
    assert "peak memory" in shown.out and " MB" in shown.out and "5 runs" in shown.out
    report = json.loads(cli("benchmark", path, "--runs", "5", "--json").out)[str(path)]
    assert report["runs"] == 5
    assert report["peak_memory_mb"] > path.stat().st_size / 1e6


def test_benchmark_stops_when_the_time_is_up(cli, exported):
    shown = cli("benchmark", exported["none"].path, "--max-seconds", "1e-9")
    assert "Result: 5 runs" in shown.out
