"""Checks of labels, values and masks: planted faults are found, counted and drawn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from keras_effnet.cli.commands import check_data as command
from keras_effnet.datasets.checking import check_data
from keras_effnet.datasets.loading import from_arrays


@pytest.fixture
def images(smooth_images):
    return smooth_images(12, 40, seed=5)


def rows(report):
    return {name: (count, note) for name, count, note in command.findings(report)}


def test_two_classes_are_checked_like_any_number(images):
    data = from_arrays(images, np.arange(12) % 2, ["no", "yes"], task="binary", val_split=0.5)
    report = check_data(data, near_duplicates=False)
    assert report.task == "binary" and report.counts == {"train": (3, 3), "val": (3, 3)}
    assert report.to_dict()["class_weights"] == {0: 1.0, 1: 1.0}


def test_labels_are_counted_alone_and_together(images):
    flags = np.array([[1, 1, 0]] * 5 + [[1, 0, 1]] * 3 + [[0, 0, 0]] * 2, "float32")
    val = (images[10:], np.array([[1, 1, 0], [1, 0, 1]], "float32"))
    images[9] = images[0]  # the same image, with other labels
    report = check_data(from_arrays(images[:10], flags, ["day", "road", "snow"], val=val, task="multilabel"))
    assert report.counts == {"train": (8, 5, 3), "val": (1 + 1, 1, 1)} and report.checked == 12
    assert report.labels.details["together"] == [[10, 6, 4], [6, 6, 0], [4, 0, 4]]
    found = rows(report)
    assert found["without a label"][0] == 2 and found["several labels"] == (10, "up to 2 on one image")
    assert found["largest label"] == (8, "smallest 3, ratio 2.67")
    assert {member.class_name for member in report.contradictions[0].members} == {"day|road", "no label"}
    assert list(map(len, report.examples.values())) == [4, 4, 3] and "class_weights" not in report.to_dict()


def test_labels_that_are_always_on_the_same_images_are_named(images):
    flags = np.array([[1, 1, 0], [0, 0, 1]] * 6, "float32")
    report = check_data(from_arrays(images, flags, ["a", "b", "c"], task="multilabel", val_split=0.5))
    assert rows(report)["inseparable labels"] == (6, "a and b are on the same images")


def test_outliers_and_values_beyond_those_trained_on_are_found(images):
    train = np.array([1, 2, 3, 4, 5, 6, 7, 8, 400], "float32")
    data = from_arrays(images[:9], train, ["weight"], val=(images[9:], np.array([-1.5, 3, 4])), task="regression")
    report = check_data(data)
    found = rows(report)
    assert found["outliers"][0] == 1  # 400; the fences of 1..8 and 400 are 3 - 12 and 7 + 12
    assert report.labels.details["values"]["weight"]["fences"] == [-9.0, 19.0]
    assert found["out of range"] == (1, "weight of val beyond 1 to 400 of train")
    header, table = report.labels.tables["Values"]
    assert dict(zip(header, table[0], strict=True)) == {
        "value": "weight",
        "split": "train",
        "smallest": "1",
        "median": "5",
        "largest": "400",
        "mean": "48.44",
        "deviation": "124.3",
        "outliers": 1,
    }
    assert sum(report.labels.details["values"]["weight"]["histogram"]["train"]) == 9
    assert next(iter(report.examples)) == "1: 1" and len(report.examples) == 9


@pytest.fixture
def masked(tmp_path, images):
    """Eight sound pairs, of which one is empty and one partly ignored, and a pair of each kind of defect."""
    for folder in ("images", "masks"):
        (tmp_path / "scenes" / folder).mkdir(parents=True)
    (tmp_path / "scenes/classes.txt").write_text("ground\nroof\n")
    for number, pixels in enumerate(images):
        mask = np.zeros((40, 40), "uint8")
        mask[:10] = number != 0
        mask[10:20] = 255 if number == 1 else 0
        mask = {9: mask[:20], 10: mask * 5}.get(number, mask)
        Image.fromarray(images[2] if number == 3 else pixels).save(tmp_path / f"scenes/images/{number:02}.png")
        if number == 3:
            mask[:30] = 1  # the image of 2 with another mask
        if number != 11:
            Image.fromarray(mask).save(tmp_path / f"scenes/masks/{number:02}.png")
    return tmp_path / "scenes"


def test_pairs_without_a_usable_mask_are_counted_by_defect(masked):
    report = check_data(masked, val_split=0.3)
    found = rows(report)
    assert (report.task, report.total, found["unusable"][0]) == ("segmentation", 12, 3)
    assert {name: count for name, (count, _) in found.items() if name.startswith("- ")} == {
        "- no mask": 1,
        "- mask of another size": 1,
        "- unknown value in a mask": 1,
    }
    assert any(bad.reason == "value 5, but classes.txt names 2 classes" for bad in report.unreadable)


def test_pixels_are_counted_by_class_and_masks_without_one_named(masked):
    report = check_data(masked, val_split=0.3)
    found, details = rows(report), report.labels.details
    roof = 7 * 400 + 1200  # pixels
    assert details["pixels"] == {"ground": 9 * 1600 - 400 - roof, "roof": roof} and details["ignored_pixels"] == 400
    assert found["empty masks"] == (1, "of class ground alone") and found["all ignored"][0] == 0
    assert found["ignored pixels"] == (1, "2.8% of all pixels")
    assert len(report.contradictions) == 1


@pytest.mark.parametrize(("kind", "figure"), [("masks", "classes.png"), ("values", "values.png")])
def test_the_command_writes_the_report_and_figures_of_the_task(kind, figure, masked, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = masked
    if kind == "values":
        source = masked / "values.csv"
        lines = [f"images/{number:02}.png,{number / 2}" for number in range(12)]
        source.write_text("path,weight\n" + "\n".join(lines) + "\n")
    arguments = [str(source), "--json", "--out", str(tmp_path / "runs"), "--val-split", "0.3"]
    result = CliRunner().invoke(command.command, arguments, catch_exceptions=False)
    found = json.loads(result.stdout)
    written = {path.name for path in next((tmp_path / "runs/check-data").iterdir()).iterdir()}
    assert result.exit_code == 0 and {"report.md", "report.json", figure, "images.png"} <= written
    assert found["task"] == {"masks": "segmentation", "values": "regression"}[kind]


def test_masks_are_drawn_over_the_images_of_the_sheet(masked):
    report = check_data(masked, val_split=0.3)
    tile = report.examples["train 3"][0]
    red = tile[:20].astype(int).mean(axis=(0, 1))
    assert red[0] > red[1]  # class 1 is tinted dark red
