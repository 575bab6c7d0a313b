"""`eval` and `predict` of every task but classification, on files whose right answers are known."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_effnet.cli.evaluations.findings import Subject
from keras_effnet.cli.evaluations.segments import find_segments
from keras_effnet.datasets.splits import Split
from keras_effnet.evaluation import plots
from keras_effnet.evaluation.by_task import drawings
from keras_effnet.export import export_tflite
from keras_effnet.inference import artifacts, naming
from keras_effnet.preprocessing import ImageSpec

SIZE = 8


def save(folder: Path, units: int, activation: str | None, names: str = "", tflite: bool = False) -> Path:
    """Write a network whose outputs are the mean red, green and blue of an image, less 0.5 where a sigmoid follows."""
    image = keras.Input((SIZE, SIZE, 3))
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, keras.layers.Dense(units, activation=activation)(mean), name="means")
    scale, shift = (20, -10) if activation else (1, 0)
    model.layers[-1].set_weights([scale * np.eye(3)[:, :units], np.full(units, shift)])
    folder.mkdir(exist_ok=True)
    if names:
        (folder / "labels.txt").write_text(names)
    ImageSpec(SIZE, 0.0, 1.0).save(folder / "image_spec.json")
    if tflite:
        labels = names.split() if names else None
        export_tflite(model, folder / "model.tflite", image_spec=ImageSpec(SIZE, 0.0, 1.0), labels=labels)
    model.save(folder / "model.keras")
    return folder / "model.keras"


def paint(path: Path, *pixel: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIZE, SIZE), pixel).save(path)
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def evaluated(cli, *args) -> tuple[dict, Path]:
    shown = cli("eval", *args, "--json")
    assert shown.status == 0, shown.err
    summary = json.loads(shown.out)
    return summary, Path(summary["run"])


@pytest.fixture
def reddish(tmp_path) -> Path:
    """Images in the folders other and red; one of each lies in the wrong one."""
    for part in ("train", "val"):
        for number in range(4):
            paint(tmp_path / f"data/{part}/other/{number}.png", 20 + 20 * number, 0, 0)
            paint(tmp_path / f"data/{part}/red/{number}.png", 140 + 30 * number, 0, 0)
    paint(tmp_path / "data/val/other/wrong.png", 150, 0, 0)
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def drawn(monkeypatch) -> None:
    """Draws nothing: the charts are tested on their own."""
    for module, names in (
        (drawings, ("precision_recall", "bars", "scatter", "mask_rows")),
        (plots, ("confusion_matrix", "reliability", "image_grid")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, lambda *args: Path(args[-1]).write_bytes(b"drawn"))


@pytest.fixture(scope="module")
def binary(tmp_path_factory) -> Path:
    """A binary network as .keras and .tflite."""
    return save(tmp_path_factory.mktemp("binary"), 1, "sigmoid", "other\nred\n", tflite=True)


def test_a_binary_network_is_measured_by_its_decisions(cli, binary, reddish):
    summary, folder = evaluated(cli, binary, reddish)
    assert summary["task"] == "binary" and summary["samples"] == 9
    assert summary["confusion"] == [[4, 1], [0, 4]] and summary["precision"] == 0.8
    assert summary["auc"] == pytest.approx(19 / 20)  # wrong.png is redder than one of the four
    rows = {Path(row["image"]).name: row for row in rows_of(folder / "predictions.csv") if "other" in row["image"]}
    assert (rows["wrong.png"]["true"], rows["wrong.png"]["predicted"]) == ("other", "red")
    assert float(rows["wrong.png"]["probability_of_red"]) == pytest.approx(1 / (1 + np.exp(10 - 20 * 150 / 255)), 1e-4)
    stricter, _ = evaluated(cli, binary, reddish, "--threshold", 0.9)
    assert stricter["confusion"] == [[5, 0], [1, 3]]
    by_file, _ = evaluated(cli, binary.with_suffix(".tflite"), reddish)
    assert by_file["confusion"] == summary["confusion"] and by_file["auc"] == summary["auc"]
    shown = cli("eval", binary, reddish)
    assert "accuracy 88.89% on 9 images, 4 of them red; AUC 0.95" in shown.out
    files = ("confusion", "precision_recall", "reliability", "worst")
    assert all((folder / f"{name}.png").read_bytes() == b"drawn" for name in files)


def test_a_file_of_one_output_knows_the_names_of_both_classes(binary, tmp_path):
    file = binary.with_suffix(".tflite")
    assert naming.class_names(artifacts.load(file)) == ["other", "red"]
    alone = shutil.copy(file, tmp_path / "model.tflite")  # the metadata knows what the output is the score of
    assert naming.class_names(artifacts.load(alone)) == ["not red", "red"]


def test_labels_are_measured_one_by_one(cli, tmp_path):
    model = save(tmp_path / "labels", 3, "sigmoid", "red\ngreen\nblue\n")
    truth = [((200, 200, 0), (1, 1, 0)), ((0, 220, 0), (0, 1, 0)), ((0, 0, 0), (0, 0, 0)), ((150, 0, 0), (0, 0, 1))]
    lines = ["path,split,red,green,blue"]
    for part in ("train", "val"):
        for number, (pixel, flags) in enumerate(truth):
            paint(tmp_path / f"data/{part}{number}.png", *pixel)
            lines.append(f"{part}{number}.png,{part},{','.join(map(str, flags))}")
    (tmp_path / "data/labels.csv").write_text("\n".join(lines) + "\n")
    summary, folder = evaluated(cli, model, tmp_path / "data")
    red, green, blue = summary["labels"]
    assert (red["label"], red["precision"], red["recall"], red["auc"]) == ("red", 0.5, 1, 1)
    assert 255 * red["best_threshold"] > 150 or red["best_f1"] == 1
    assert (green["f1"], blue["recall"], blue["precision"]) == (1, 0, None)
    assert summary["exact"] == 0.75 and summary["accuracy"] == pytest.approx(10 / 12)
    assert [row["label"] for row in rows_of(folder / "thresholds.csv")] == ["red", "green", "blue"]
    rows = rows_of(folder / "predictions.csv")
    assert [(row["true"], row["predicted"]) for row in rows][::3] == [("red|green", "red|green"), ("blue", "red")]
    shown = cli("eval", model, tmp_path / "data", "--per-class")
    assert f"mAP {summary['mean_ap']:.1%} on 4 images and 3 labels" in shown.out and "optimistic" in shown.out


def test_values_are_measured_in_their_unit(cli, tmp_path):
    model = save(tmp_path / "values", 1, None, "redness\n")
    lines = ["path,split,redness"]
    for part in ("train", "val"):
        for number in range(5):
            paint(tmp_path / f"data/{part}{number}.png", 51 * number, 0, 0)
            lines.append(f"{part}{number}.png,{part},{0.2 * number + (0.1 if number == 4 else 0)}")
    (tmp_path / "data/labels.csv").write_text("\n".join(lines) + "\n")
    summary, folder = evaluated(cli, model, tmp_path / "data")
    (value,) = summary["values"]
    assert value["value"] == "redness" and value["mae"] == pytest.approx(0.02, 1e-4)
    assert value["bias"] == pytest.approx(-0.02, 1e-4)
    assert value["max_error"] == pytest.approx(0.1, 1e-4)
    row = rows_of(folder / "predictions.csv")[-1]
    assert float(row["true_redness"]) == pytest.approx(0.9, 1e-4) and float(row["predicted_redness"]) == pytest.approx(
        0.8, 1e-4
    )
    shown = cli("eval", model, tmp_path / "data", "--per-class")
    assert "redness: mean absolute error 0.02" in shown.out
    assert "--threshold would have no effect" in cli("eval", model, tmp_path / "data", "--threshold", 0.4).err


def test_masks_are_measured_by_iou_and_drawn_worst_first(monkeypatch, tmp_path):
    pixels = np.zeros((3, 4, 4, 3), "uint8")
    pixels[1, :2], pixels[2] = 255, 255
    truth = np.zeros((3, 4, 4), "int32")
    truth[1], truth[2] = 1, 1
    part = Split(pixels, np.arange(3))

    def predict(images):
        return np.eye(2)[(np.asarray(images)[..., 0] > 100).astype(int)]

    subject = Subject(tmp_path, ["dark", "light"], part, ImageSpec(4), predict)
    monkeypatch.setattr(Subject, "read", lambda self, chosen: (pixels[chosen], truth[chosen]))
    sheets = []
    monkeypatch.setattr(drawings, "mask_rows", lambda *args: sheets.append(args))
    found = find_segments([(predict(pixels), truth)], subject)
    assert found.summary["mean_iou"] == pytest.approx((16 / 24 + 24 / 32) / 2)
    assert [row[0] for row in found.tables["per_image.csv"].rows] == [1, 0, 2]
    found.drawings["worst.png"](tmp_path / "worst.png")
    assert sheets[0][3] == ["image 1  IoU 25.0%", "image 0  IoU 100.0%", "image 2  IoU 100.0%"]
    assert sheets[0][2].tolist() == predict(pixels).argmax(axis=-1)[[1, 0, 2]].tolist()


def test_embeddings_are_refused_in_one_line(cli, tmp_path):
    image = keras.Input((SIZE, SIZE, 3))
    keras.Model(image, keras.layers.GlobalAveragePooling2D()(image)).save(tmp_path / "model.keras")
    shown = cli("eval", tmp_path / "model.keras", tmp_path)
    assert shown.status == 2 and "is embedding, which labels do not measure; `keras-effnet predict" in shown.err


# ------------------------------------------------------------------ predict


def predicted(cli, *args) -> dict:
    shown = cli("predict", *args, "--json")
    assert shown.status == 0, shown.err
    return json.loads(shown.out)


def test_predict_decides_by_the_threshold(cli, binary, tmp_path):
    image = paint(tmp_path / "a.png", 150, 0, 0)
    share = 1 / (1 + np.exp(10 - 20 * 150 / 255))
    ((first, likely), (second, rest)) = predicted(cli, image, "--model", binary)[str(image)]
    assert (first, second) == ("red", "other") and [likely, rest] == pytest.approx([share, 1 - share], 1e-4)
    assert predicted(cli, image, "--model", binary, "--threshold", 0.9)[str(image)][0][0] == "other"
    assert f"red {share:.1%}" in cli("predict", image, "--model", binary).out
    assert "--top would have no effect" in cli("predict", image, "--model", binary, "--top", 1).err


def test_predict_lists_the_labels_above_the_threshold(cli, tmp_path):
    model = save(tmp_path / "labels", 3, "sigmoid", "red\ngreen\nblue\n")
    image, dark = paint(tmp_path / "a.png", 200, 0, 250), paint(tmp_path / "b.png", 0, 0, 0)
    assert [name for name, _ in predicted(cli, image, "--model", model)[str(image)]] == ["blue", "red"]
    assert cli("predict", image, dark, "--model", model, "--output", "out.csv").status == 0
    rows = rows_of(Path("out.csv"))
    assert [row["labels"] for row in rows] == ["blue|red", ""] and float(rows[0]["green"]) < 0.01
    line = json.loads(cli("predict", dark, "--model", model, "--format", "jsonl").out)
    assert line["labels"] == [] and set(line["probabilities"]) == {"red", "green", "blue"}


def test_predict_decides_by_the_thresholds_of_the_run_unless_one_is_given(cli, tmp_path):
    model = save(tmp_path / "labels", 3, "sigmoid", "red\ngreen\nblue\n")
    image = paint(tmp_path / "a.png", 200, 0, 250)
    table = tmp_path / "labels/thresholds.csv"
    table.write_text("label,threshold\nblue,1\nred,0.5\ngreen,0\n")
    assert [name for name, _ in predicted(cli, image, "--model", model)[str(image)]] == ["red", "green"]
    named = predicted(cli, image, "--model", model, "--threshold", 0.5)[str(image)]
    assert [name for name, _ in named] == ["blue", "red"]
    table.write_text("label,threshold\nblue,0.5\nred,half\n")
    assert "remove it to decide at a probability of 0.5" in cli("predict", image, "--model", model).err
    table.write_text("label,threshold\nblue,0.5\nred,0.5\n")
    assert "has no threshold of 'green'" in cli("predict", image, "--model", model).err


def test_predict_gives_values_their_names(cli, tmp_path):
    model = save(tmp_path / "values", 1, None, "redness\n")
    image = paint(tmp_path / "a.png", 102, 0, 0)
    assert predicted(cli, image, "--model", model)[str(image)]["redness"] == pytest.approx(0.4, 1e-4)
    assert "redness 0.4" in cli("predict", image, "--model", model).out
    assert "would hold embeddings, but the task" in cli("predict", image, "--model", model, "--output", "x.npy").err


def test_predict_writes_embeddings_as_an_array(cli, tmp_path):
    pixels = keras.Input((SIZE, SIZE, 3))
    keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(pixels)).save(tmp_path / "model.keras")
    images = [paint(tmp_path / f"images/{red}.png", red, 0, 7) for red in (10, 20)]
    shown = cli("predict", tmp_path / "images", "--model", tmp_path / "model.keras", "--output", "vectors.npy")
    assert shown.status == 0 and "2 images embedded" in shown.out, shown.err
    assert np.load("vectors.npy").tolist() == [[10, 0, 7], [20, 0, 7]]
    assert Path("vectors.txt").read_text().split() == [str(image) for image in images]
    assert predicted(cli, images[0], "--model", tmp_path / "model.keras")[str(images[0])] == [10, 0, 7]


def test_predict_writes_masks_with_a_palette_and_over_the_image(cli, tmp_path):
    image = keras.Input((SIZE, SIZE, 3))
    convolution = keras.layers.Conv2D(2, 1, activation="softmax")
    model = keras.Model(image, convolution(image))
    convolution.set_weights([np.array([[[[0, 1], [0, 0], [0, 0]]]]), np.array([0, -100])])
    (tmp_path / "net").mkdir()
    model.save(tmp_path / "net/model.keras")
    (tmp_path / "net/labels.txt").write_text("dark\nred\n")
    pixels = np.zeros((SIZE, SIZE, 3), "uint8")
    pixels[:2, :, 0] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    answer = predicted(cli, tmp_path / "a.png", "--model", tmp_path / "net/model.keras")[str(tmp_path / "a.png")]
    assert answer["shares"] == {"dark": 0.75, "red": 0.25}
    with Image.open(answer["mask"]) as mask, Image.open(answer["overlay"]) as over:
        assert mask.mode == "P" and np.array_equal(np.asarray(mask), pixels[..., 0] // 200)
        assert mask.getpalette()[3:6] == [128, 0, 0] and over.getpixel((0, 0)) == (164, 0, 0)
    shown = cli("predict", tmp_path / "a.png", "--model", tmp_path / "net/model.keras")
    assert "1 image segmented" in shown.out and "a_mask.png: dark 75.0%, red 25.0%" in shown.out


# ------------------------------------------------------------------ explain


def test_explain_shows_the_evidence_for_a_decision_or_a_label(cli, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "explanation", lambda *args: drawn.append(args))
    pixels = keras.Input((SIZE, SIZE, 3))
    features = keras.layers.Conv2D(3, 1, name="features")
    mean = keras.layers.GlobalAveragePooling2D()(features(pixels))
    image = paint(tmp_path / "a.png", 200, 0, 0)
    for units, names, label in ((1, "other\nred\n", "red"), (3, "red\ngreen\nblue\n", "green")):
        model = keras.Model(pixels, keras.layers.Dense(units, activation="sigmoid")(mean))
        features.set_weights([np.eye(3)[None, None], np.zeros(3)])
        model.layers[-1].set_weights([0.02 * np.eye(3)[:, :units], np.full(units, -1)])
        (tmp_path / str(units)).mkdir()
        model.save(tmp_path / f"{units}/model.keras")
        (tmp_path / f"{units}/labels.txt").write_text(names)
        shown = cli("explain", image, "--model", tmp_path / f"{units}/model.keras", "--label", label, "--json")
        assert shown.status == 0, shown.err
        found = json.loads(shown.out)[str(image)]
        assert found["class"] == label
        assert found["probability"] == pytest.approx(1 / (1 + np.exp(-3 if label == "red" else 1)), 1e-3)
    assert drawn[0][1].max() == 1 and drawn[1][1].max() == 0  # no green in the image


def test_explain_refuses_values_in_one_line(cli, tmp_path):
    model = save(tmp_path / "values", 1, None, "redness\n")
    shown = cli("explain", paint(tmp_path / "a.png", 1, 2, 3), "--model", model)
    assert shown.status == 2 and "Heat maps are of classes and labels, and the task of" in shown.err
