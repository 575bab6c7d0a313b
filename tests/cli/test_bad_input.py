"""Wrong input on the command line: exit status 2, and one line that names cause and cure, without a traceback."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image
from small_network import TINY
from tiny_files import tiny_file

import keras_effnet
from keras_effnet.errors import UserError

TINY_RUN = [f"--model={TINY}", "--image-size=32", "--batch-size=8", "--epochs=1", "--optimizer=sgd"]


@pytest.fixture
def refused(cli):
    """Runs a command that must be refused in one line; returns the line."""

    def run(*args: object) -> str:
        shown = cli(*args)
        lines = [line for line in shown.err.splitlines() if not line.startswith("warning: ")]
        assert shown.status == 2, shown
        assert len(lines) == 1 and lines[0].startswith("error: "), shown.err
        assert "Traceback" not in shown.err and "unexpected" not in lines[0]
        assert shown.out == ""
        return lines[0]

    return run


@pytest.fixture
def lone_model(trained, tmp_path):
    """The trained network as a lone file, without labels, data or image spec beside it."""
    (tmp_path / "alone").mkdir()
    return shutil.copy(trained.run_dir / "weights/best.keras", tmp_path / "alone/model.keras")


def write_images(folder, images) -> None:
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:03d}.png")


# ------------------------------------------------------------------ data


def test_no_data_at_all(refused):
    line = refused("train")
    assert "keras-effnet train FOLDER" in line and "keras-effnet train digits" in line


def test_a_missing_folder(refused, tmp_path):
    assert "gone does not exist" in refused("train", tmp_path / "gone")


def test_an_empty_folder(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "Put images in one folder per class" in refused("train", tmp_path / "empty")


def test_one_class_only(refused, image_folder):
    assert "a classifier needs at least two" in refused("train", image_folder({"cat": 5}), *TINY_RUN)


def test_loose_images(refused, tmp_path, smooth_images):
    write_images(tmp_path / "loose", smooth_images(3, 40))
    assert "Put images in one folder per class" in refused("train", tmp_path / "loose", *TINY_RUN)


def test_train_and_val_of_different_classes(refused, image_folder):
    image_folder({"cat": 3, "dog": 3}, root="set/train")
    folder = image_folder({"cat": 3, "cow": 3}, root="set/val").parent
    assert "in one only: cow, dog" in refused("train", folder, *TINY_RUN)


def test_more_bad_files_than_the_limit(refused, image_folder):
    folder = image_folder({"cat": 10, "dog": 10})
    for number in range(3):
        (folder / "cat" / f"bad{number}.jpg").write_text("text")
    line = refused("train", folder, *TINY_RUN, "--max-bad-files", "2")
    assert "3 of 23 images cannot be decoded, more than the 2 allowed" in line
    assert "--max-bad-files" in line and "bad0.jpg" in line and "bad2.jpg" in line


def test_fewer_images_than_a_batch(refused, image_folder):
    folder = image_folder({"cat": 3, "dog": 3})
    assert "lower the batch size" in refused("train", folder, *TINY_RUN)


def test_odd_but_sound_images_are_no_bad_input(image_folder, smooth_images):
    folder = image_folder({"cat": 2, "dog": 5})
    image = Image.fromarray(smooth_images(1, 40)[0])
    image.convert("CMYK").save(folder / "cat/cmyk.jpg")
    image.convert("L").save(folder / "cat/grayscale.jpg")
    image.convert("P").save(folder / "cat/palette.png")
    Image.fromarray(np.arange(1600, dtype="uint16").reshape(40, 40) * 40).save(folder / "cat/deep.png")
    image.save(folder / "cat/animated.gif", save_all=True, append_images=[image.rotate(90)])
    dataset = keras_effnet.datasets.load(folder, max_bad_files=0)
    assert len(dataset.train) + len(dataset.val) == 12


# ------------------------------------------------------------------ networks


def test_an_unknown_model(refused):
    assert "Did you mean 'b0'" in refused("train", "digits", "--model", "b00")


def test_an_unknown_precision(refused):
    assert "Did you mean 'float32'" in refused("train", "digits", "--precision", "float3")


def test_an_input_below_32_pixels(refused):
    assert "image_size must be at least 32 and at most 4096, got 28" in refused("train", "digits", "--image-size", "28")
    with pytest.raises(UserError, match="input_shape must be at least 32x32"):
        keras_effnet.EfficientNetB0(weights=None, input_shape=(16, 64, 3))


def test_weights_that_are_not_there(refused, tmp_path):
    line = refused("train", "digits", *TINY_RUN, "--weights", tmp_path / "gone.weights.h5")
    assert "gone.weights.h5" in line and "does not exist" in line


@pytest.mark.parametrize("option", ["--epochs=0", "--batch-size=0", "--learning-rate=-1", "--crop-scale=2", "--crop=0"])
def test_options_out_of_range(refused, option):
    name = option.lstrip("-").split("=")[0].replace("-", "_")
    assert f"{name} must" in refused("train", "digits", *TINY_RUN, option)


@pytest.mark.parametrize("option", ["--epochs=many", "--learning-rate=fast"])
def test_options_that_are_no_numbers(refused, option):
    name, value = option.split("=")
    line = refused("train", "digits", option)
    assert name in line and value in line


@pytest.mark.parametrize("text", ["epochs: ten", "learning_rate: [", "just words", "epoch: 3"])
def test_a_config_file_that_is_none(refused, tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    refused("train", "digits", "--config", "config.yaml")


# ------------------------------------------------------------------ resume


def test_resuming_what_is_no_run(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "is not a training run: it has no args.yaml" in refused("train", "--resume", tmp_path / "empty")
    assert "is not a training run" in refused("train", "--resume", tmp_path / "gone")


def test_resuming_a_run_without_a_checkpoint(refused, trained, tmp_path):
    (tmp_path / "run").mkdir()
    shutil.copy(trained.run_dir / "args.yaml", tmp_path / "run/args.yaml")
    assert "Nothing to resume" in refused("train", "--resume", tmp_path / "run")


@pytest.mark.parametrize("text", ["", "data: {}\n", "5\n", "model: lite0\n"])
def test_resuming_a_run_whose_args_are_damaged(refused, tmp_path, text):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/args.yaml").write_text(text)
    refused("train", "--resume", tmp_path / "run")


def test_resuming_a_run_of_data_that_was_made_in_python(refused, trained, tmp_path):
    (tmp_path / "run").mkdir()
    args = (trained.run_dir / "args.yaml").read_text()
    (tmp_path / "run/args.yaml").write_text("data: {}\n" + args[args.index("config:") :])
    assert "data" in refused("train", "--resume", tmp_path / "run").lower()


# ------------------------------------------------------------------ files that are not what they should be

JUNK = {
    "text.keras": (b"not a model", "is not a Keras model"),
    "empty.keras": (b"", "is not a Keras model"),
    "text.tflite": (b"not a model", "is not a .tflite file"),
    "model.h5": (b"anything", "neither a .keras nor a .tflite file"),
}


@pytest.mark.parametrize("name", JUNK)
@pytest.mark.parametrize("command", [["eval", "digits"], ["export"], ["predict"]], ids=lambda command: command[0])
def test_a_model_file_that_is_none(refused, tmp_path, digits, command, name):
    content, message = JUNK[name]
    (tmp_path / name).write_bytes(content)
    Image.fromarray(digits.test.images[0]).save(tmp_path / "digit.png")
    if command[0] == "predict":
        assert message in refused("predict", "digit.png", "--model", name)
    else:
        assert message in refused(command[0], name, *command[1:])


RELU = {"tensors": {"x": ("float32", (1, 8, 8, 3)), "y": ("float32", (1, 8, 8, 3))}, "inputs": "x", "outputs": "y"}
WHOLE = tiny_file(**RELU, steps=[("RELU", "x", "y")])
VECTORS = RELU | {"tensors": {"x": ("float32", (1, 8, 3)), "y": ("float32", (1, 8, 3))}}


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "is not a .tflite file: it is empty"),
        (b"<!DOCTYPE html>", "is not a .tflite file: it is a web page or XML"),
        (b"PK\x03\x04 as a .keras file begins", "is not a .tflite file: it is a zip archive"),
        (WHOLE[:-40], "is damaged: "),
        (
            tiny_file(**VECTORS, steps=[("RELU", "x", "y")]),
            "is not an image classifier or the like: it maps shape [1, 8, 3] to [1, 8, 3]",
        ),
        (tiny_file(**RELU, steps=[("FlexInv", "x", "y")]), "cannot be run by LiteRT: "),
    ],
    ids=["empty", "page", "zip", "half", "no classifier", "flex"],
)
def test_tflite_files_that_cannot_be_used(refused, tmp_path, content, cause):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    write_images(tmp_path / "images", np.zeros((1, 8, 8, 3), "uint8"))
    commands = [("benchmark", path), ("predict", tmp_path / "images", "--model", path), ("eval", path, "digits")]
    if "not a .tflite" in cause or "damaged" in cause:
        commands.append(("info", path))
    for command in commands:
        assert f"{path} {cause}" in refused(*command)


def test_a_file_that_gives_maps_is_timed_but_has_no_classes(refused, cli, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(WHOLE)
    write_images(tmp_path / "images", np.zeros((1, 8, 8, 3), "uint8"))
    for command in (("predict", tmp_path / "images", "--model", path), ("eval", path, "digits")):
        assert f"{path} is not an image classifier: its output has the shape (1, 8, 8, 3)." in refused(*command)
    assert cli("benchmark", path).status == 0


@pytest.mark.parametrize("name", ["text.tflite", "text.keras"])
def test_benchmarking_what_is_no_tflite(refused, tmp_path, name):
    (tmp_path / name).write_bytes(b"not a model")
    assert "is not a .tflite file" in refused("benchmark", name)


def test_a_missing_model(refused):
    for arguments in (["eval", "gone.keras"], ["export", "gone.keras"], ["benchmark", "gone.tflite"]):
        assert "does not exist" in refused(*arguments)


def test_exporting_what_is_exported_already(refused, exported):
    assert "pass the .keras file or the run folder" in refused("export", exported["none"].path)


def test_an_image_that_is_missing_or_none(refused, trained, tmp_path):
    assert "gone.jpg does not exist" in refused("predict", "gone.jpg", "--model", trained.run_dir)
    (tmp_path / "text.jpg").write_text("text")
    assert "is not an image that can be decoded" in refused("predict", "text.jpg", "--model", trained.run_dir)
    (tmp_path / "empty").mkdir()
    assert "No images in empty" in refused("predict", "empty", "--model", trained.run_dir)


def test_labels_that_are_missing_or_too_few(refused, trained, digits, tmp_path):
    Image.fromarray(digits.test.images[0]).save(tmp_path / "digit.png")
    arguments = ["predict", "digit.png", "--model", trained.run_dir, "--labels"]
    assert "Labels file gone.txt does not exist" in refused(*arguments, "gone.txt")
    (tmp_path / "few.txt").write_text("one\ntwo\n")
    line = refused(*arguments, "few.txt")
    assert line.startswith("error: few.txt has 2 names") and line.endswith("best.keras has 10 classes.")


def test_evaluating_on_data_of_other_classes(refused, trained, image_folder):
    line = refused("eval", trained.run_dir, image_folder({"cat": 5, "dog": 5}))
    assert "The model has 10 classes (0, 1, 2, ...)" in line and "the data has 2 (cat, dog" in line


def test_evaluating_without_data(refused, lone_model):
    assert f"`keras-effnet eval {lone_model} FOLDER`" in refused("eval", lone_model)


def test_evaluating_on_a_split_that_is_not_there(refused, lone_model, digits, tmp_path):
    for label in range(10):
        write_images(tmp_path / f"data/{label}", digits.train.images[digits.train.labels == label][:5])
    assert "has no test split" in refused("eval", lone_model, tmp_path / "data", "--split", "test")


# ------------------------------------------------------------------ export


def test_int8_without_calibration(refused, lone_model, tmp_path):
    line = refused("export", lone_model, "--quantize", "int8", "--out", "files")
    assert "--calibration FOLDER" in line
    assert not list(tmp_path.glob("files/*"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda rng: rng.integers(0, 256, (40, 32, 32, 3)), "look like noise"),
        (lambda rng: np.full((40, 32, 32, 3), 99), "Every calibration pixel is 99"),
    ],
    ids=["noise", "constant"],
)
def test_calibration_images_that_cannot_be_right(refused, lone_model, tmp_path, make, message):
    write_images(tmp_path / "wrong", make(np.random.default_rng(0)).astype("uint8"))
    line = refused("export", lone_model, "--quantize", "int8", "--calibration", tmp_path / "wrong", "--out", "files")
    assert message in line
    assert not list(tmp_path.glob("files/*.tflite"))


def test_a_missing_or_empty_calibration_folder(refused, lone_model, tmp_path):
    (tmp_path / "empty").mkdir()
    arguments = ["export", lone_model, "--quantize", "int8", "--calibration"]
    assert "gone does not exist" in refused(*arguments, tmp_path / "gone")
    assert "no images" in refused(*arguments, tmp_path / "empty")


def test_an_existing_output_is_not_overwritten_unless_asked_to(cli, refused, lone_model, tmp_path):
    (tmp_path / "files").mkdir()
    path = tmp_path / "files/model_none.tflite"
    path.write_bytes(b"precious")
    line = refused("export", lone_model, "--quantize", "none", "--out", "files")
    assert "model_none.tflite exists" in line and "--overwrite" in line
    assert path.read_bytes() == b"precious"
    assert cli("export", lone_model, "--quantize", "none", "--out", "files", "--overwrite").status == 0
    assert path.read_bytes() != b"precious"


@pytest.mark.parametrize("command", ["train", "export", "eval"])
def test_an_output_folder_that_cannot_be_written(refused, trained, tmp_path, command):
    (tmp_path / "file").touch()
    arguments = {
        "train": ["train", "digits", *TINY_RUN],
        "export": ["export", trained.run_dir],
        "eval": ["eval", trained.run_dir],
    }
    line = refused(*arguments[command], "--out", "file")
    assert "Cannot write" in line and "file" in line


def test_no_precision_at_all(refused, lone_model):
    assert "none, float16, dynamic, weight_only, int8" in refused("export", lone_model, "--quantize", "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "/data/x"), "/data/x: Permission denied. Change its permissions"),
        (IsADirectoryError(21, "Is a directory", "x.csv"), "x.csv: is a directory. Check the path"),
        (OSError(36, "File name too long", "y"), "y: file name too long. Check the path"),
        (ValueError("embedded null byte"), "a path holds a zero byte"),
        (
            type("DataLossError", (Exception,), {})("{{node x}} corrupted record at 8862 [Op:IteratorGetNext]"),
            "a TFRecord shard is damaged (corrupted record at 8862): copy the folder again",
        ),
        (
            type("InvalidArgumentError", (Exception,), {})(
                "Graph execution error:\n\nDetected at node PyFunc defined at (most recent call last):\n"
                "<stack traces unavailable>\nValueError: truncated file\nTraceback (most recent call last):\n\n"
                '  File "x.py", line 1\n\n\t [[{{node PyFunc}}]]\n\t [[IteratorGetNext]] [Op:__inference_step_12]'
            ),
            "an image changed or vanished while it was used (truncated file). Restore it and run again.",
        ),
    ],
    ids=["permission", "folder", "long", "zero", "shard", "image"],
)
def test_errors_of_the_disk_and_of_paths_are_one_line(refused, monkeypatch, error, line):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("keras_effnet.system.run_folders.new_run", fail)
    assert refused("quickstart").startswith(f"error: {line}")


def test_data_without_any_image_that_can_be_decoded(refused, tmp_path, lone_model):
    for name in ("ant", "bee"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "x.jpg").write_bytes(b"junk")
    assert "no image" in refused("eval", lone_model, tmp_path / "images")
