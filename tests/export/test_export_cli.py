"""`keras-effnet export` beyond the plain precisions: islands, other formats, training first."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_effnet.export.finetune import sparsity
from keras_effnet.export.tflite_file.inspection import inspect
from keras_effnet.export.tflite_file.interpreter import TFLiteModel


def rows_of(folder: str) -> dict[str, dict]:
    return {row["quantization"]: row for row in json.loads(Path(folder, "report.json").read_text())["rows"]}


def test_named_blocks_stay_in_float_and_a_savedmodel_lies_beside(cli, trained):
    shown = cli(
        *("export", trained.run_dir, "--quantize", "mixed", "--float-blocks", "stem, block1a"),
        *("--also", "savedmodel", "--name", "digits", "--out", "files"),
    )
    assert shown.status == 0, shown.err
    assert rows_of("files")["mixed"]["export"]["method"] == "float: stem, block1a; corrected"
    assert (Path("files/digits_savedmodel") / "saved_model.pb").is_file()
    assert "digits_savedmodel: " in shown.out and "digits_savedmodel: " in Path("files/report.html").read_text()


def test_one_way_to_int8_is_taken_where_it_is_named(cli, trained):
    shown = cli("export", trained.run_dir, "--quantize", "int8", "--method", "percentile", "--out", "files")
    assert shown.status == 0, shown.err
    assert rows_of("files")["int8"]["export"]["method"] == "percentile"


def test_class_names_author_and_licence_are_written_into_the_files(cli, trained, tmp_path):
    (tmp_path / "names.txt").write_text("zero\none\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\n")
    shown = cli(
        *("export", trained.run_dir, "--quantize", "none", "--class-names", "names.txt", "--out", "files"),
        *("--author", "A. Clerk", "--license", "MIT", "--name", "digits", "--bundle"),
    )
    assert shown.status == 0, shown.err
    assert "report.md, bundle/)" in shown.out
    about = inspect("files/digits_none.tflite").metadata
    assert (about.name, about.author, about.license, about.labels[:2]) == ("digits", "A. Clerk", "MIT", ("zero", "one"))
    assert Path("files/labels.txt").read_text().startswith("0\n1\n")  # the labels of the data
    assert Path("files/bundle/labels.txt").read_text().startswith("zero\none\n")  # those that people read
    assert Path("files/bundle/test_image.png").is_file()
    card = Path("files/bundle/MODEL_CARD.md").read_text()
    assert "license: mit\n" in card and "A. Clerk" in card


def test_class_names_of_another_number_are_refused_in_one_line(cli, trained, tmp_path):
    (tmp_path / "names.txt").write_text("zero\n")
    shown = cli("export", trained.run_dir, "--class-names", "names.txt", "--out", "files")
    assert shown.status == 2 and "names.txt has 1 names, but the model has 10 classes" in shown.err
    assert shown.err.count("\n") == 1 and not list(Path().glob("files/*.tflite"))


def test_a_bound_of_ones_own_is_kept_to(cli, trained):
    shown = cli("export", trained.run_dir, "--quantize", "none", "--min-agreement", "1", "--out", "files")
    assert shown.status == 0, shown.err
    record = json.loads(Path("files").glob("*_none.json").__next__().read_text())
    assert record["bounds"]["min_agreement"] == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--qat", "--method", "minmax"], "--qat means --method qat"),
        (["--sparsity", "0.5", "--clusters", "16"], "prune or cluster"),
        (["--also", "onxx"], "Unknown format 'onxx'. Did you mean 'onnx'"),
        (["--method", "minmx"], "Unknown method 'minmx'. Did you mean 'minmax'"),
        (["--quantize", "mixed", "--float-blocks", "blok1a"], "Unknown block 'blok1a'. Did you mean 'block1a'"),
        (["--quantize", "none", "--qat"], "method='qat' applies to none of the requested precisions"),
        (["--quantize", "none", "--budget", "0.65"], "budget=0.65 applies to none of the requested precisions"),
        (["--sparsity", "1.5"], "sparsity must lie between 0 and 1, got 1.5"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_before_any_work(cli, trained, options, message):
    shown = cli("export", trained.run_dir, *options, "--out", "files")
    assert shown.status == 2
    assert message in shown.err and shown.err.count("\n") == 1
    assert not list(Path().glob("files/*.tflite"))


def test_an_export_that_is_refused_leaves_no_run_folder(cli, trained):
    """Empty ones were counted on: the next export was called digits-2."""
    assert cli("export", trained.run_dir, "--quantize", "none", "--budget", "0.65").status == 2
    assert not list(Path("runs/export").iterdir())


def test_a_pruned_network_that_the_disk_has_no_room_for_is_said_in_one_line(cli, trained, monkeypatch):
    def full(self, path):
        path.write_bytes(b"half")
        raise OSError("Unable to synchronously write (file write failed: errno = 28, No space left on device)")

    pruned = keras.models.clone_model(trained.model)
    monkeypatch.setattr(
        sparsity, "prune", lambda *args, **options: sparsity.CompressionResult(pruned, sparsity.kernels(pruned))
    )
    monkeypatch.setattr(keras.Model, "save", full)
    shown = cli("export", trained.run_dir, "--sparsity", "0.5", "--name", "digits", "--out", "files")
    assert shown.status == 2
    assert shown.err.startswith("error: Cannot write files/digits.keras: ") and "No space left" in shown.err
    assert shown.err.count("\n") == 1 and not list(Path("files").iterdir())


@pytest.mark.slow
def test_a_network_is_pruned_trained_for_int8_and_exported_by_one_command(cli, trained):
    shown = cli(
        *("export", trained.run_dir, "--quantize", "none,int8", "--input-type", "uint8", "--name", "digits"),
        *("--sparsity", "0.5", "--qat", "--epochs", "3", "--training-samples", "300", "--out", "files"),
    )
    assert shown.status == 0, shown.err
    assert "Pruned before export:" in shown.out and Path("files/digits.keras").is_file()
    rows = rows_of("files")
    assert rows["int8"]["export"]["method"] == "qat"
    assert rows["int8"]["report"]["top1_agreement"] >= 0.95
    dense = trained.model.count_params() * 4
    assert rows["none"]["export"]["compressed_bytes"] < 0.75 * dense
    assert TFLiteModel("files/digits_int8.tflite").input["dtype"] == np.uint8
    assert not [island for island in inspect("files/digits_int8.tflite").islands if island.place != "output"]


@pytest.fixture
def smooth_folder(smooth_images, tmp_path):
    """Function that writes a folder of a number of images, without classes."""

    def write(count: int, size: int = 32, name: str = "photos") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for number, image in enumerate(smooth_images(count, size)):
            Image.fromarray(image).save(folder / f"{number}.png")
        return folder

    return write


def test_a_small_folder_is_divided_and_gives_no_recommendation(cli, toy_model, smooth_folder, tmp_path):
    toy_model(size=32).save(tmp_path / "toy.keras")
    shown = cli(
        *("export", "toy.keras", "--calibration", smooth_folder(25), "--quantize", "int8"),
        *("--out", "files", "--min-agreement", "0"),
    )
    assert shown.status == 0, shown.err
    assert "photos has no split: 13 images to calibrate on, 12 others to compare on." in shown.out
    assert "No recommendation: it takes at least 20 images" in shown.out and "compared on 12 images." in shown.out
    report = rows_of("files")["int8"]["report"]
    assert (report["samples"], report["evidence"]) == (12, "held-out")
    assert report["agreement_interval"][0] <= report["agreeing"] / 12 <= report["agreement_interval"][1]


def test_one_image_cannot_both_calibrate_and_prove(cli, toy_model, smooth_folder, tmp_path):
    toy_model(size=32).save(tmp_path / "toy.keras")
    shown = cli("export", "toy.keras", "--calibration", smooth_folder(1), "--quantize", "int8", "--out", "files")
    assert shown.status == 2 and shown.err.count("\n") == 1
    assert "photos holds a single image, but calibration and comparison need different ones: at least 2" in shown.err
    assert not Path("files").exists()


def following(shown) -> list[str]:
    """Words of the next command, as a shell splits them."""
    return shlex.split(shown.out.splitlines()[-1].removeprefix("Next:   "))


@pytest.mark.parametrize("precisions", ["none,int8", "int8"])
def test_the_next_command_names_a_file_that_was_kept(cli, fragile_model, smooth_folder, tmp_path, precisions):
    fragile_model().save(tmp_path / "fragile.keras")
    folder = tmp_path / "my runs (1)"
    shown = cli(
        *("export", "fragile.keras", "--calibration", smooth_folder(60, 8), "--quantize", precisions),
        *("--out", folder),
    )
    assert shown.status == 3  # int8 was refused
    kept = ["keras-effnet", "eval", str(folder / "fragile_none.tflite"), "DATA"]
    assert following(shown) == (kept if "none" in precisions else ["less", str(folder / "report.md")])
    assert Path(following(shown)[-2 if "none" in precisions else -1]).is_file()
