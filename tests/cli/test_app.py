"""The command line: what each command prints, leaves behind and exits with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import get_completion_class
from exports import PRECISIONS
from PIL import Image
from small_network import TINY

from keras_effnet.cli import app
from keras_effnet.cli.app import COMMANDS

TINY_RUN = [f"--model={TINY}", "--image-size=32", "--batch-size=8", "--epochs=1", "--optimizer=sgd"]


def strict(text: str):
    """JSON as other programs read it: no NaN, nothing before or after."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize(
    ("line", "offered"),
    [("ex", ["plain,explain", "plain,export"]), ("train --out r", ["file,r"]), ("foo --ba", [])],
)
def test_a_shell_completes_commands_and_paths(monkeypatch, line, offered):
    """A misspelt command was an error in the middle of the line, and options of paths completed nothing."""
    words = f"keras-effnet {line}"
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    completion = get_completion_class("bash")(app.cli, {}, "keras-effnet", "_KERAS_EFFNET_COMPLETE")
    assert completion.complete().split() == offered


def last_lines(out: str) -> tuple[str, str]:
    lines = out.strip().splitlines()
    assert lines[-2].startswith("Result: ") and lines[-1].startswith("Next:   keras-effnet ")
    return lines[-2].removeprefix("Result: "), lines[-1].removeprefix("Next:   ")


def process(*args: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "keras_effnet", *args],
        cwd=cwd,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def digit_files(digits, tmp_path) -> list[Path]:
    """Twelve held-out digits as files, each named by its class."""
    folder = tmp_path / "digit_files"
    folder.mkdir()
    paths = []
    for number, (image, label) in enumerate(zip(digits.test.images[:12], digits.test.labels[:12], strict=True)):
        paths.append(folder / f"{number:02d}_{label}.png")
        Image.fromarray(image).save(paths[-1])
    return paths


# ------------------------------------------------------------------ the group


def test_help_lists_every_command(cli):
    shown = cli("--help")
    assert shown.status == 0
    for name in COMMANDS:
        assert f"\n  {name} " in shown.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(cli, name):
    shown = cli(name, "--help")
    assert shown.status == 0 and f"Usage: keras-effnet {name}" in shown.out
    assert "<=None" not in shown.out
    assert "--json" in shown.out or name == "launch"  # which leaves stdout to the commands that it starts


def test_no_command_at_all_shows_the_help_and_no_error(cli):
    shown = cli()
    assert "Commands:" in shown.out + shown.err
    assert "error:" not in shown.err


def test_the_version_is_that_of_the_package(cli):
    import keras_effnet

    assert keras_effnet.__version__ in cli("--version").out


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["exprot", "model.keras"], "Unknown command 'exprot'. Did you mean 'export'?"),
        (["info", "lite9"], "Unknown model 'lite9'. Did you mean 'lite"),
        (["train", "digits", "--model", "lite00"], "Unknown model 'lite00'. Did you mean 'lite0'?"),
        (["train", "digit"], "Unknown dataset 'digit'. Did you mean 'digits'?"),
        (["train", "digits", "--precision", "mixed_floaat16"], "Did you mean 'mixed_float16'?"),
        (["export", "model.keras", "--quantize", "none,int6"], "Unknown quantization 'int6'. Did you mean 'int8'?"),
        (["export", "model.keras", "--input-type", "uint9"], "Unknown input type 'uint9'. Did you mean 'uint8'?"),
        (["train", "digits", "--epoch", "3"], "'--epochs'"),
        (["info", "--blcks"], "No such option '--blcks'. Did you mean '--blocks'?"),
    ],
)
def test_a_typo_is_answered_in_one_line_with_the_closest_match(cli, arguments, hint):
    shown = cli(*arguments)
    assert shown.status == 2 and shown.out == ""
    assert shown.err.startswith("error: ") and hint in shown.err
    assert shown.err.count("\n") == 1


def test_debug_shows_the_traceback_that_is_hidden_otherwise(tmp_path):
    plain = process("info", "b9", cwd=tmp_path)
    assert plain.returncode == 2 and "Traceback" not in plain.stderr
    assert plain.stderr.count("\n") == 1
    for arguments in (["--debug", "info", "b9"], ["info", "b9", "--debug"]):
        debugged = process(*arguments, cwd=tmp_path)
        assert debugged.returncode != 0
        assert "Traceback" in debugged.stderr and "UserError: Unknown model 'b9'" in debugged.stderr


# ------------------------------------------------------------------ info


def test_info_lists_the_networks_with_their_published_costs(cli):
    shown = cli("info")
    assert shown.status == 0
    row = next(line.split() for line in shown.out.splitlines() if line.split()[:1] == ["b0"])
    assert row[:6] == ["b0", "224", "16", "5.29", "M", "386"] and row[-2:] == ["77.1", "yes"]
    row = next(line.split() for line in shown.out.splitlines() if line.split()[:1] == ["resnet50"])
    assert row[:6] == ["resnet50", "224", "16", "25.56", "M", "4,089"] and row[-2:] == ["76.1", "-"]
    assert last_lines(shown.out)[1] == "keras-effnet info b4 --blocks"


def test_info_takes_a_pattern_and_scales_what_matches(cli):
    assert list(strict(cli("info", "resnet*", "--json").out)) == ["resnet18", "resnet34", "resnet50"]
    deep = strict(cli("info", "resnet*", "--depth", "2", "--classes", "10", "--json").out)
    assert [info["blocks"] for info in deep.values()] == [16, 32, 32]
    assert all(info["top1"] is None for info in deep.values())


def test_info_of_no_match_names_the_choices(cli):
    shown = cli("info", "vgg*")
    assert shown.status == 2 and shown.out == ""
    assert shown.err.startswith("error: No network matches 'vgg*'. Choose among: b0, b1,")


def test_info_lists_what_has_imagenet_weights(cli):
    assert list(strict(cli("info", "lite*", "--pretrained", "--json").out)) == ["lite0", "lite1", "lite2"]


def test_info_says_where_a_network_and_its_weights_come_from(cli):
    shown = cli("info", "wide_resnet50").out
    assert "Zagoruyko & Komodakis" in shown and "Weights: none for ImageNet" in shown
    assert "keras.applications" in cli("info", "b0").out
    assert "Weights:" not in cli("info", "b0", "--depth", "2").out


def test_info_of_one_network_shows_scaling_cost_and_blocks(cli):
    shown = cli("info", "b4", "--blocks")
    assert "19,341,616 trainable parameters, 4,393,801,064 MACs" in last_lines(shown.out)[0]
    assert "published" in shown.out and "formula" in shown.out
    assert "stem_conv" in shown.out and "block7b" in shown.out and "block7c" not in shown.out


def test_info_json_is_json_with_exact_figures(cli):
    every = strict(cli("info", "--json").out)
    assert every["b0"]["params"] == 5_288_548 and every["b7"]["macs"] == 37_745_958_392
    one = strict(cli("info", "b4", "--json").out)
    assert (one["macs"], one["params"], one["image_size"]) == (4_393_801_064, 19_341_616, 380)
    assert sum(block["macs"] for block in one["blocks"]) == one["macs"]


# ------------------------------------------------------------------ train


def test_train_on_a_folder_skips_what_is_no_image_and_says_so(cli, image_folder):
    folder = image_folder({"cat": 20, "dog": 20})
    (folder / "cat" / "notes.jpg").write_text("not an image")
    shown = cli("train", folder, *TINY_RUN, "--name", "pets", "--json")
    assert shown.status == 0
    summary = strict(shown.out)
    assert summary["run"] == "runs/train/pets" and summary["epochs"] == 1
    assert 0 <= summary["val_accuracy"] <= 1
    assert summary["skipped"] == [str(folder / "cat" / "notes.jpg")]
    assert "warning: Skipped 1 of 41 images" in shown.err
    assert (Path("runs/train/pets/labels.txt")).read_text() == "cat\ndog\n"


def test_train_help_documents_every_option_of_the_config(cli):
    text = " ".join(cli("train", "--help").out.split())
    for option in (
        "--learning-rate",
        "--stem-stride",
        "--bn-momentum",
        "--crop-scale",
        "--no-flip",
        "--label-smoothing",
    ):
        assert option in text
    assert "The peak, reached after warm-up" in text
    assert "[auto|float32|mixed_float16|mixed_bfloat16]" in text


def test_train_help_is_the_same_without_docstrings_and_imports_no_framework(cli, tmp_path):
    program = (
        "import sys; from keras_effnet.cli import main; main(['train', '--help']);"
        "sys.exit(','.join({'numpy', 'tensorflow', 'keras', 'jax', 'torch'} & set(sys.modules)) or 0)"
    )
    shown = subprocess.run(
        [sys.executable, "-OO", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == cli("train", "--help").out


def test_every_command_says_what_it_does_without_docstrings(tmp_path):
    program = (
        "from keras_effnet.cli.app import COMMANDS, cli;"
        "print([name for name in COMMANDS if not cli.get_command(None, name).help], bool(cli.help))"
    )
    shown = subprocess.run(
        [sys.executable, "-OO", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert shown.stdout == "[] True\n", shown.stderr


def test_options_given_outrank_the_config_file(cli, tmp_path):
    (tmp_path / "config.yaml").write_text("model: lite0\nepochs: 0\n")
    shown = cli("train", "digits", "--config", "config.yaml")
    assert shown.status == 2 and "epochs must be at least 1, got 0" in shown.err
    shown = cli("train", "digits", "--config", "gone.yaml")
    assert shown.status == 2 and "Config file gone.yaml does not exist" in shown.err


# ------------------------------------------------------------------ eval, export, benchmark, predict


def test_eval_of_a_run_needs_nothing_but_the_run(cli, trained):
    shown = cli("eval", trained.run_dir, "--per-class")
    assert shown.status == 0
    assert "on 269 images, top-5" in shown.out
    result, following = last_lines(shown.out)
    assert result.startswith(f"runs/eval/{trained.run_dir.stem}")
    assert following.startswith("keras-effnet predict IMAGE --model")
    folder = Path(result.split()[0])
    assert strict((folder / "results.json").read_text())["samples"] == 269
    with Image.open(folder / "confusion.png") as image:
        image.verify()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_eval_of_a_tflite_gives_the_accuracy_of_its_export(cli, exported, precision):
    result = exported[precision]
    summary = strict(cli("eval", result.path, "digits", "--json").out)
    assert summary["accuracy"] == pytest.approx(result.report.accuracy_tflite)
    assert summary["samples"] == 269 and len(summary["confusion"]) == 10


def test_eval_takes_the_split_that_is_named(cli, trained):
    summary = strict(cli("eval", trained.run_dir, "--split", "val", "--json").out)
    assert summary["samples"] == 270
    assert summary["accuracy"] == pytest.approx(trained.evaluation.accuracy)


def test_eval_json_is_json_also_where_a_class_has_no_images(cli, trained, digits, tmp_path):
    for part in ("train", "val", "test"):
        for label in range(10):
            folder = tmp_path / "data" / part / str(label)
            folder.mkdir(parents=True)
            for number, image in enumerate(digits.test.images[digits.test.labels == label][:4]):
                Image.fromarray(image).save(folder / f"{number}.png")
    for path in (tmp_path / "data/test/9").iterdir():
        path.write_bytes(b"")
    refused = cli("eval", trained.run_dir, tmp_path / "data")
    assert refused.status == 2 and "9" in refused.err
    shown = cli("eval", trained.run_dir, tmp_path / "data", "--json", "--skip-empty-classes")
    assert shown.status == 0
    assert strict(shown.out)["samples"] == 36


def test_export_writes_and_compares_every_precision_asked_for(cli, trained):
    shown = cli("export", trained.run_dir, "--quantize", "float16,int8", "--input-type", "uint8", "--name", "digits")
    assert shown.status == 0
    result, following = last_lines(shown.out)
    folder = Path(result.split()[0])
    assert folder == Path("runs/export/digits")
    assert {path.name for path in folder.glob("*.tflite")} == {"digits_float16.tflite", "digits_int8.tflite"}
    assert (folder / "labels.txt").read_text().split() == list("0123456789")
    assert "Ship digits_" in shown.out
    assert following == f"keras-effnet eval {folder}/digits_int8.tflite DATA"
    for precision in ("float16", "int8"):
        row = next(line for line in shown.out.splitlines() if line.split()[:1] == [precision])
        assert "MB" in row and "dB" in row and "ms" in row


def test_export_json_is_the_report(cli, trained):
    shown = cli("export", trained.run_dir, "--quantize", "none", "--out", "files", "--json")
    report = strict(shown.out)
    assert report["rows"][0]["quantization"] == "none"
    assert report == strict(Path("files/report.json").read_text())


def test_export_calibrates_on_a_folder_of_loose_images_of_no_class(cli, trained, digits, tmp_path):
    (tmp_path / "loose").mkdir()
    for number, image in enumerate(digits.train.images[:50]):
        Image.fromarray(image).save(tmp_path / f"loose/{number}.png")
    shown = cli("export", trained.run_dir, "--quantize", "int8", "--calibration", tmp_path / "loose", "--out", "files")
    assert shown.status == 0, shown.err
    assert [path.name for path in Path("files").glob("*.tflite")] == ["digits_int8.tflite"]


@pytest.mark.slow
def test_export_calibrates_on_a_folder_of_other_classes(cli, trained, digits, tmp_path):
    for parity in (0, 1):
        folder = tmp_path / "parity" / ("even", "odd")[parity]
        folder.mkdir(parents=True)
        for number, image in enumerate(digits.train.images[digits.train.labels % 2 == parity][:40]):
            Image.fromarray(image).save(folder / f"{number}.png")
    shown = cli("export", trained.run_dir, "--quantize", "int8", "--calibration", tmp_path / "parity", "--out", "files")
    assert shown.status == 0, shown.err
    row = next(line.split() for line in shown.out.splitlines() if line.split()[:1] == ["int8"])
    assert row[5] == "-"  # labels of other classes give no accuracy


def test_export_exits_with_3_when_a_file_is_refused_and_keeps_the_others(cli, fragile_model, smooth_images, tmp_path):
    fragile_model().save(tmp_path / "fragile.keras")
    (tmp_path / "loose").mkdir()
    for number, image in enumerate(smooth_images(60, 8)):
        Image.fromarray(image).save(tmp_path / f"loose/{number}.png")
    arguments = ["export", "fragile.keras", "--quantize", "none,int8", "--calibration", "loose"]
    shown = cli(*arguments, "--out", "files")
    assert shown.status == 3
    assert shown.err.startswith("error: The int8 file disagrees with the model") and shown.err.count("\n") == 1
    assert [path.name for path in Path("files").glob("*.tflite")] == ["fragile_none.tflite"]
    assert "refused" in shown.out
    shown = cli(*arguments, "--out", "again", "--json")
    assert shown.status == 3
    assert [row["quantization"] for row in strict(shown.out)["rows"]] == ["none", "int8"]


def test_benchmark_compares_files_with_the_processor_named(cli, exported):
    files = [exported[precision].path for precision in PRECISIONS]
    shown = cli("benchmark", *files, "--runs", "10")
    assert shown.status == 0
    assert all(path.name in shown.out for path in files)
    from keras_effnet.system.machine import cpu_name

    assert f"10 runs, 1 thread(s), {cpu_name()}" in last_lines(shown.out)[0]
    report = strict(cli("benchmark", files[0], "--runs", "5", "--threads", "2", "--json").out)
    assert report[str(files[0])]["median_ms"] > 0 and report[str(files[0])]["threads"] == 2


def test_benchmark_does_not_import_tensorflow(exported, tmp_path):
    code = (
        "import sys\nfrom keras_effnet.cli import main\n"
        f"main(['benchmark', {str(exported['none'].path)!r}, '--runs', '3'])\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_predict_names_digits_by_a_run_and_by_a_tflite(cli, trained, exported, digit_files):
    for model in (trained.run_dir, exported["int8"].path):
        shown = cli("predict", *digit_files, "--model", model, "--top", "2", "--json")
        assert shown.status == 0
        results = strict(shown.out)
        assert list(results) == [str(path) for path in digit_files]
        right = sum(results[str(path)][0][0] == path.stem[-1] for path in digit_files)
        assert right >= 10
        assert all(len(best) == 2 and best[0][1] >= best[1][1] for best in results.values())


def test_predict_takes_folders_and_prints_a_table(cli, trained, digit_files):
    shown = cli("predict", digit_files[0].parent, "--model", trained.run_dir)
    assert shown.status == 0
    assert all(path.name in shown.out for path in digit_files)
    assert last_lines(shown.out)[0].startswith("12 images classified by ")


def test_predict_takes_names_from_a_file(cli, trained, digit_files, tmp_path):
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    (tmp_path / "words.txt").write_text("\n".join(words))
    path = digit_files[0]
    results = strict(cli("predict", path, "--model", trained.run_dir, "--labels", "words.txt", "--json").out)
    plain = strict(cli("predict", path, "--model", trained.run_dir, "--json").out)
    assert results[str(path)][0][0] == words[int(plain[str(path)][0][0])]


# ------------------------------------------------------------------ checks, quickstart


@pytest.mark.slow
def test_checks_pass_on_a_machine_that_runs_the_tests(cli):
    shown = cli("checks", "--json")
    assert shown.status == 0
    checks = strict(shown.out)
    assert list(checks) == ["Python", "packages", "devices", "training step", "export and run"]
    assert all(check["ok"] for check in checks.values()), checks


def test_a_check_that_fails_is_named_and_the_exit_status_is_1(cli, monkeypatch):
    from keras_effnet.cli.commands import checks

    def broken():
        raise RuntimeError("no such device")

    monkeypatch.setattr(checks, "CHECKS", {"Python": checks._python, "devices": broken})
    shown = cli("checks")
    assert shown.status == 1
    assert "FAILED" in shown.out and "RuntimeError: no such device" in shown.out


@pytest.mark.slow
def test_a_precision_asked_for_twice_is_exported_once(cli, trained):
    shown = cli("export", trained.run_dir, "--quantize", "none,none", "--out", "files", "--json")
    assert [row["quantization"] for row in strict(shown.out)["rows"]] == ["none"]


def test_a_full_disk_is_named_with_what_to_do(cli, monkeypatch):
    import errno

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", "runs/x")

    monkeypatch.setattr("keras_effnet.system.run_folders.new_run", full)
    shown = cli("quickstart")
    assert shown.status == 2
    assert shown.err.strip().splitlines()[-1].startswith("error: Cannot write runs/x: No space left on device. Free")
