"""`eval` and `predict` as they are used: on folders, by .keras and .tflite, with every file that they write."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_effnet.cli.commands import predict as predict_command
from keras_effnet.cli.commands.eval import _first_other
from keras_effnet.cli.evaluations.classes import draw_worst, show_classes
from keras_effnet.cli.evaluations.findings import Subject
from keras_effnet.cli.export_inputs import export_images
from keras_effnet.config.run_record import RunRecord
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.datasets.findings.data_identity import save_identity
from keras_effnet.datasets.loading import load
from keras_effnet.datasets.splits import Split
from keras_effnet.evaluation import plots
from keras_effnet.export import export_tflite
from keras_effnet.inference import artifacts, image_files
from keras_effnet.preprocessing import ImageSpec

COLOURS = ("blue", "green", "red")  # of the channels from the last to the first


def colour_model(softmax: bool = True) -> keras.Model:
    """Classifies 8x8 images by their strongest colour, with a confidence that grows with it. Not trained."""
    image = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(image)
    x = keras.layers.Dense(3, activation="softmax" if softmax else None)(x)
    model = keras.Model(image, x, name="colours")
    model.layers[-1].set_weights([np.eye(3)[::-1] * 0.05 - 0.01, np.zeros(3)])
    return model


@pytest.fixture(scope="module")
def colours(tmp_path_factory) -> Path:
    """The colour network with its names, as .keras and as .tflite."""
    folder = tmp_path_factory.mktemp("model")
    model = colour_model()
    model.save(folder / "colours.keras")
    export_tflite(model, folder / "colours.tflite", image_spec=ImageSpec(8, 0.0, 1.0))
    (folder / "labels.txt").write_text("\n".join(COLOURS) + "\n")
    ImageSpec(8, 0.0, 1.0).save(folder / "image_spec.json")
    return folder


def paint(path: Path, colour: str, strength: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixel = [20, 20, 20]
    pixel[2 - COLOURS.index(colour)] += strength
    Image.new("RGB", (12, 9), tuple(pixel)).save(path)


@pytest.fixture
def labelled(tmp_path) -> Path:
    """15 images in folders of their colour; three lie in the wrong one, of rising strength."""
    data = tmp_path / "data"
    for part in ("train", "val", "test"):
        for colour in COLOURS:
            for number in range(4):
                paint(data / part / colour / f"{number}.png", colour, 40 + 30 * number)
    paint(data / "test/red/weak.png", "green", 30)
    paint(data / "test/red/strong.png", "blue", 200)
    paint(data / "test/blue/middling.png", "green", 90)
    return data


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


# ------------------------------------------------------------------ eval


def run_eval(cli, *args) -> tuple[dict, Path]:
    shown = cli("eval", *args, "--json")
    assert shown.status == 0, shown.err
    summary = json.loads(shown.out)
    return summary, Path(summary["run"])


def test_eval_counts_the_mistakes_that_are_there(cli, colours, labelled):
    summary, folder = run_eval(cli, colours / "colours.keras", labelled)
    assert summary["samples"] == 15 and summary["accuracy"] == pytest.approx(12 / 15)
    assert summary["confusion"] == [[4, 1, 0], [0, 4, 0], [1, 1, 4]]
    assert summary["most_confused"][0] == {"true": "blue", "predicted": "green", "count": 1}
    assert summary["scores"] == "probabilities" and sum(summary["reliability"]["counts"]) == 15
    by_class = {row["class"]: row for row in rows_of(folder / "per_class.csv")}
    assert by_class["red"] == {"class": "red", "precision": "1", "recall": "0.666667", "f1": "0.8", "images": "6"}
    assert float(by_class["green"]["precision"]) == pytest.approx(4 / 6, abs=1e-6)
    stored = json.loads((folder / "results.json").read_text())
    assert stored == {key: value for key, value in summary.items() if key != "run"}


def test_predictions_csv_is_what_the_network_says_of_each_file(cli, colours, labelled):
    _, folder = run_eval(cli, colours / "colours.keras", labelled)
    rows = rows_of(folder / "predictions.csv")
    assert len(rows) == 15
    artifact = artifacts.load(colours / "colours.keras")
    expected = artifact.predict(np.concatenate([image_files.image(row["image"], ImageSpec(8)) for row in rows]))
    for row, probabilities in zip(rows, expected, strict=True):
        assert row["true"] == Path(row["image"]).parent.name
        assert row["predicted"] == COLOURS[probabilities.argmax()]
        assert float(row["probability"]) == pytest.approx(probabilities.max(), rel=1e-5)
        assert float(row["probability_of_true"]) == pytest.approx(probabilities[COLOURS.index(row["true"])], rel=1e-4)


def test_keras_and_tflite_of_one_network_give_the_same_table(cli, colours, labelled):
    (keras_summary, keras_run), (tflite_summary, tflite_run) = (
        run_eval(cli, colours / name, labelled) for name in ("colours.keras", "colours.tflite")
    )
    assert rows_of(keras_run / "per_class.csv") == rows_of(tflite_run / "per_class.csv")
    for key in ("accuracy", "confusion", "precision", "f1", "most_confused"):
        assert keras_summary[key] == tflite_summary[key]
    assert keras_summary["ece"] == pytest.approx(tflite_summary["ece"], abs=1e-5)
    assert keras_summary["nll"] == pytest.approx(tflite_summary["nll"], abs=1e-5)


def test_the_size_of_a_batch_changes_nothing(cli, colours, labelled):
    whole, _ = run_eval(cli, colours / "colours.keras", labelled)
    parts, _ = run_eval(cli, colours / "colours.keras", labelled, "--batch-size", "4")
    assert parts["confusion"] == whole["confusion"] and parts["nll"] == pytest.approx(whole["nll"], rel=1e-5)


@pytest.fixture
def drawn(monkeypatch) -> list:
    """What is given to the contact sheet, in place of drawing it."""
    calls = []
    monkeypatch.setattr(plots, "image_grid", lambda images, titles, path: calls.append((images, titles)))
    return calls


def test_the_contact_sheet_begins_with_the_most_confident_mistake(cli, colours, labelled, drawn):
    shown = cli("eval", colours / "colours.keras", labelled)
    assert "the most confident of 3 mistakes" in shown.out
    ((images, titles),) = drawn
    assert [title.split("  ")[0] for title in titles] == ["red\nas blue", "blue\nas green", "red\nas green"]
    strengths = [image.mean(axis=(0, 1)).max() - 20 for image in images]  # the image is that of the title
    assert strengths == pytest.approx([200, 90, 30])
    shares = [float(title.split("  ")[1].rstrip("%")) for title in titles]
    assert shares == sorted(shares, reverse=True)


def test_a_source_that_keeps_its_own_order_gets_the_right_titles(drawn, monkeypatch, tmp_path):
    """Streams give what was selected in the order of the stream, not in that asked for."""
    from keras_effnet.evaluation.metrics import collect_outcomes

    selected = Split.select
    monkeypatch.setattr(Split, "select", lambda self, indices: selected(self, np.sort(indices)))
    pixels = np.stack([np.full((8, 8, 3), 10 * number, "uint8") for number in range(6)])
    scores = np.array([[0.4, 0.6], [0.1, 0.9], [0.9, 0.1], [0.3, 0.7], [0.2, 0.8], [0.55, 0.45]])
    part = Split(pixels, np.zeros(6, "int32"))
    outcomes = collect_outcomes([(scores, part.labels)])
    subject = Subject(tmp_path, ["a", "b"], part, ImageSpec(8), lambda images: scores)
    draw_worst(outcomes, subject, tmp_path / "worst.png")
    assert [image.mean() for image in drawn[0][0]] == [10, 40, 30, 0]


def test_without_mistakes_the_least_certain_answers_are_shown(cli, colours, labelled, drawn):
    shown = cli("eval", colours / "colours.keras", labelled, "--split", "val")
    assert "No mistakes; worst.png shows the least confident" in shown.out and "confused" not in shown.out
    ((images, titles),) = drawn
    assert len(titles) == 12 and not any("\n" in title for title in titles)
    # Of each colour one is as strong as of the others: the weakest, which are the least certain, come first.
    assert [float(image.max()) for image in images] == [60] * 3 + [90] * 3 + [120] * 3 + [150] * 3


def test_every_image_of_eval_is_one(cli, colours, labelled):
    _, folder = run_eval(cli, colours / "colours.tflite", labelled)
    for name in ("confusion.png", "reliability.png", "worst.png"):
        with Image.open(folder / name) as image:
            image.verify()


def test_a_network_of_logits_is_calibrated_by_its_softmax(cli, colours, labelled, tmp_path):
    expected, _ = run_eval(cli, colours / "colours.keras", labelled)
    colour_model(softmax=False).save(colours / "logits.keras")
    shown = cli("eval", colours / "logits.keras", labelled)
    assert "outputs logits; probabilities are computed by softmax" in shown.out
    summary, _ = run_eval(cli, colours / "logits.keras", labelled)
    assert summary["scores"] == "logits"
    assert [summary["ece"], summary["nll"]] == pytest.approx([expected["ece"], expected["nll"]], rel=1e-4)
    image = labelled / "test/red/0.png"
    by_logits, by_softmax = (
        json.loads(cli("predict", image, "--model", colours / f"{name}.keras", "--json").out)[str(image)]
        for name in ("logits", "colours")
    )
    assert [name for name, _ in by_logits] == [name for name, _ in by_softmax]
    assert [share for _, share in by_logits] == pytest.approx([share for _, share in by_softmax], rel=1e-4)


def test_of_many_classes_the_table_shows_the_worst_and_the_best(capsys):
    classes = [
        {"class": f"c{number}", "precision": 1.0, "recall": 1.0, "f1": number / 30, "images": 1} for number in range(30)
    ]
    classes.append({"class": "absent", "precision": 0.0, "recall": float("nan"), "f1": 0.0, "images": 0})
    show_classes(classes)
    words = capsys.readouterr().out.split()
    shown = [word for word in words if word[0] == "c" and word[1:].isdigit()]
    assert shown == [f"c{number}" for number in (*range(10), *range(20, 30))] and "absent" not in words
    show_classes(classes[:20])
    assert "worst" not in capsys.readouterr().out


def test_the_first_class_that_differs_is_named_behind_those_that_a_message_shows():
    names = ["a", "b", "c", "d", "e"]
    assert _first_other(names, ["a", "b", "c", "D", "e"]) == ": number 3 is 'd' of the model, 'D' of the data"
    assert not _first_other(names, names[:4])


def test_eval_and_export_warn_of_a_run_whose_data_have_changed(image_folder, cli, toy_model, tmp_path, caplog):
    images = image_folder({"cat": 6, "dog": 6})
    toy_model(classes=2).save(tmp_path / "net.keras")
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    save_identity(load(images), tmp_path)
    RunRecord({"source": str(images)}, TrainConfig()).save(tmp_path)
    (images / "cat/005.png").unlink()
    assert "held out now may have been trained on" in cli("eval", "net.keras").err
    caplog.clear()
    export_images(artifacts.load("net.keras"), None, 4, 0, {})
    assert "held out now may have been trained on" in caplog.text


# ------------------------------------------------------------------ predict


@pytest.fixture
def gallery(tmp_path) -> Path:
    """A folder with images on two levels."""
    folder = tmp_path / "gallery"
    for number in range(5):
        paint(folder / f"{number}.png", COLOURS[number % 3], 50 + 20 * number)
    paint(folder / "deep/er/5.png", "blue", 120)
    return folder


def test_csv_json_and_json_lines_say_the_same_as_the_network(cli, colours, gallery):
    model = colours / "colours.keras"
    for name in ("out.csv", "out.json", "out.jsonl"):
        shown = cli("predict", gallery, "--model", model, "--top", "2", "--output", name, "--batch-size", "4")
        assert shown.status == 0 and f"6 images classified by {model} in {name}" in shown.out, shown.err
        assert not Path(f"{name}.part").exists()
    by_csv = rows_of(Path("out.csv"))
    by_json = json.loads(Path("out.json").read_text())
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    paths = [row["path"] for row in by_csv]
    assert paths == list(by_json) == [line["path"] for line in lines]
    assert paths == [str(gallery / name) for name in ("0.png", "1.png", "2.png", "3.png", "4.png", "deep/er/5.png")]
    pixels = np.concatenate([image_files.image(path, ImageSpec(8)) for path in paths])
    expected = colour_model().predict(pixels, verbose=0)
    for row, line, probabilities in zip(by_csv, lines, expected, strict=True):
        order = np.argsort(-probabilities)[:2]
        wanted = [COLOURS[index] for index in order]
        assert [row["class_1"], row["class_2"]] == wanted and len(row) == 5
        assert [float(row["probability_1"]), float(row["probability_2"])] == pytest.approx(
            probabilities[order].tolist(), rel=1e-5
        )
        assert [answer["class"] for answer in line["predictions"]] == wanted
        assert by_json[row["path"]] == [[answer["class"], answer["probability"]] for answer in line["predictions"]]


def test_stdout_holds_nothing_but_the_form_asked_for(cli, colours, gallery):
    plain = cli("predict", gallery, "--model", colours / "colours.keras", "--json").out
    assert cli("predict", gallery, "--model", colours / "colours.keras", "--format", "json").out == plain
    assert plain == json.dumps(json.loads(plain), indent=2) + "\n"
    table = cli("predict", gallery, "--model", colours / "colours.keras", "--format", "csv").out
    assert [row["path"] for row in csv.DictReader(table.splitlines())] == list(json.loads(plain))
    lines = cli("predict", gallery, "--model", colours / "colours.keras", "--format", "jsonl").out.splitlines()
    assert [json.loads(line)["path"] for line in lines] == list(json.loads(plain))


def test_a_file_takes_the_form_that_is_named_whatever_its_suffix(cli, colours, gallery):
    arguments = ["predict", gallery, "--model", colours / "colours.keras", "--output", "out.txt"]
    shown = cli(*arguments)
    assert shown.status == 2 and "end it in .csv, .json, .jsonl, or use --format" in shown.err
    assert cli(*arguments, "--format", "jsonl").status == 0
    assert len(Path("out.txt").read_text().splitlines()) == 6


def test_an_output_that_cannot_be_written_is_refused_before_anything_runs(cli, gallery):
    shown = cli("predict", gallery, "--model", "gone.keras", "--output", "nowhere/out.csv")
    assert shown.status == 2 and "Cannot write nowhere/out.csv" in shown.err


def test_broken_images_are_named_in_the_end_and_the_others_are_predicted(cli, colours, gallery):
    (gallery / "2.png").write_bytes(b"\x89PNG no more")
    (gallery / "empty.jpg").touch()
    shown = cli("predict", gallery, "gone.png", "--model", colours / "colours.keras", "--json", "--batch-size", "2")
    assert shown.status == 0
    assert [Path(path).name for path in json.loads(shown.out)] == ["0.png", "1.png", "3.png", "4.png", "5.png"]
    skipped = [line for line in shown.err.splitlines() if line.startswith("warning: skipped: ")]
    assert len(skipped) == 3
    assert "2.png is not an image that can be decoded" in skipped[0] and "empty.jpg" in skipped[1]
    assert "gone.png does not exist" in skipped[2]


@pytest.mark.parametrize("form", ["table", "csv", "json", "jsonl"])
def test_where_no_image_can_be_read_nothing_is_written(cli, colours, tmp_path, form):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/a.png").write_text("text")
    shown = cli("predict", "broken", "--model", colours / "colours.keras", "--format", form)
    assert shown.status == 2 and shown.out == "" and "is not an image that can be decoded" in shown.err
    shown = cli("predict", "broken", "--model", colours / "colours.keras", "--output", "out.json")
    assert shown.status == 2 and not list(tmp_path.glob("out.json*"))


def test_an_empty_folder_is_refused(cli, colours, tmp_path):
    (tmp_path / "empty").mkdir()
    shown = cli("predict", "empty", "--model", colours / "colours.keras", "--output", "out.csv")
    assert shown.status == 2 and "No images in empty" in shown.err


def test_an_image_named_twice_is_predicted_once(cli, colours, gallery):
    shown = cli("predict", gallery / "0.png", gallery, "--model", colours / "colours.keras", "--format", "csv")
    assert len(shown.out.splitlines()) == 1 + 6


def test_a_long_table_is_cut_and_all_of_it_lies_in_a_file(cli, colours, gallery, monkeypatch):
    monkeypatch.setattr(predict_command, "SHOWN", 4)
    shown = cli("predict", gallery, "--model", colours / "colours.keras")
    assert "3.png" in shown.out and "4.png" not in shown.out
    assert "... and 2 more in runs/predict/colours/predictions.csv." in shown.out
    assert len(rows_of(Path("runs/predict/colours/predictions.csv"))) == 6


def test_answers_that_are_no_numbers_are_refused(cli, gallery, colours):
    model = colour_model()
    model.layers[-1].set_weights([np.full((3, 3), np.nan), np.zeros(3)])
    model.save(colours / "nan.keras")
    shown = cli("predict", gallery, "--model", colours / "nan.keras", "--output", "out.csv")
    assert shown.status == 2 and "NaN or infinite values for 6 of 6" in shown.err and not Path("out.csv").exists()


@pytest.fixture
def interrupted(monkeypatch):
    """Stops `predict` before its third batch, as Ctrl-C does."""
    batches = image_files.image_batches

    def stopping(*args):
        for number, batch in enumerate(batches(*args)):
            if number == 2:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(image_files, "image_batches", stopping)


@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_ctrl_c_keeps_what_is_done_and_the_file_that_was_there(cli, colours, gallery, interrupted, form):
    Path(f"out.{form}").write_text("precious")
    shown = cli(
        "predict", gallery, "--model", colours / "colours.keras", "--batch-size", "2", "--output", f"out.{form}"
    )
    assert shown.status == 130
    assert f"interrupted after 4 of 6 images; the finished rows are in out.{form}.part." in shown.err
    assert Path(f"out.{form}").read_text() == "precious"
    part = Path(f"out.{form}.part")
    done = {
        "csv": lambda: [row["path"] for row in rows_of(part)],
        "json": lambda: list(json.loads(part.read_text())),
        "jsonl": lambda: [json.loads(line)["path"] for line in part.read_text().splitlines()],
    }[form]()
    assert [Path(path).name for path in done] == ["0.png", "1.png", "2.png", "3.png"]


def test_json_on_stdout_is_whole_also_after_ctrl_c(cli, colours, gallery, interrupted):
    shown = cli("predict", gallery, "--model", colours / "colours.keras", "--batch-size", "2", "--json")
    assert shown.status == 130 and len(json.loads(shown.out)) == 4


def test_a_killed_process_leaves_every_line_that_it_wrote(tmp_path):
    script = (
        "import time\nfrom pathlib import Path\nfrom keras_effnet.inference.writers import written_to\n"
        "with written_to(Path('out.csv'), 'csv') as write:\n"
        "    [write(f'{n}.png', [('cat', 0.5)]) for n in range(3)]\n"
        "    Path('ready').touch()\n    time.sleep(60)\n"
    )
    root = str(Path(__file__).resolve().parents[3])
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=os.environ | {"PYTHONPATH": root})
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "ready").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert [row["path"] for row in rows_of(tmp_path / "out.csv.part")] == ["0.png", "1.png", "2.png"]
    assert not (tmp_path / "out.csv").exists()
