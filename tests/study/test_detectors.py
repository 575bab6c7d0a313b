"""Studies of detectors: their networks, average precision with its interval over images, and words about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from box_files import as_coco
from study_rows import cost, training

from keras_effnet.errors import UserError
from keras_effnet.study import costs, scaling_study
from keras_effnet.study import trial as trial_module
from keras_effnet.study.networks import Member, cost_warnings, family, progressive, scaled
from keras_effnet.study.protocol import Budget, Protocol
from keras_effnet.study.recommendation import CostLimit, recommend
from keras_effnet.study.report.tables import csv_tables
from keras_effnet.study.results import RESULTS_JSONL, read_results
from keras_effnet.study.statistics.answers import answer
from keras_effnet.study.statistics.comparisons import compare
from keras_effnet.study.statistics.two_studies import compare_studies
from keras_effnet.study.statistics.wording import worded
from keras_effnet.study.summary import seconds_to, summarize
from keras_effnet.system import jsonl


def test_detectors_have_their_own_sizes_and_those_of_the_rule():
    members = [*family(["det-lite0", "DET-D1"]), *scaled("det-d0", [-2, 0, 1])]
    assert [(each.name, each.image_size) for each in members] == [
        ("det-lite0", 320),
        ("det-d1", 640),
        ("det-d0-phi-2", 256),
        ("det-d0", 512),
        ("det-d0-phi+1", 640),
    ]
    details = [Protocol({}).config(each).detector for each in members]
    assert [(each.width, each.cells) for each in details] == [(64, 3), (88, 4), (32, 1), (64, 3), (88, 4)]
    assert {each.watched.title for each in members} == {"AP"} and cost_warnings(members) == []


def test_an_image_size_is_that_of_the_first_of_a_kind():
    assert [each.image_size for each in family(["det-lite0", "det-lite2", "det-d0", "det-d1"], 128)] == [
        128,
        192,  # 448 / 320 * 128 = 179
        128,
        160,
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: scaled("det-d0", [0, 1], ["depth"]), "from det-d0 and along all dimensions"),
        (lambda: scaled("det-lite0", [0, 1]), "from det-d0 and along all dimensions"),
        (lambda: scaled("det-d0", [-4]), "phi of a detector must lie in -3"),
        (lambda: family(["det-d9"]), "Did you mean"),
        (lambda: progressive("det-d0"), "one image size"),
    ],
)
def test_what_detectors_cannot_be_is_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        wrong()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--models", "b0"), "has boxes, and b0 is no detector: `keras-effnet study DATA --models det-lite0,det-d0`"),
        (("--models", "det-d0,b0"), "has boxes, and b0 is no detector"),
        (("--models", "det-d0", "--seconds", "9"), "The pace of detectors is not measured"),
    ],
)
def test_data_with_boxes_is_for_detectors(cli, tmp_path, options, message):
    as_coco(tmp_path / "boxes")
    shown = cli("study", tmp_path / "boxes", *options, "--test-split", "0", "--out", tmp_path / "runs")
    assert shown.status == 2 and message in shown.err and shown.err.count("error:") == 1
    assert not list((tmp_path / "runs").glob("*/*"))


def test_classes_are_not_for_detectors(cli, tmp_path):
    shown = cli("study", "digits", "--models", "det-lite0", "--out", tmp_path)
    assert shown.status == 2 and "det-lite0 is a detector, and digits has no boxes" in shown.err


# --- statistics

RNG = np.random.default_rng(1)


def rows(*figures: tuple[str, float, float]):
    """Rows of detectors whose AP is the mean of a figure of each of 72 images."""
    draws = [np.random.default_rng(0).integers(0, 72, 72) for _ in range(100)]
    found = []
    for name, macs, level in figures:
        found.append(cost(name, macs, macs / 1e6, model=name, axis="family") | {"metric": "AP", "classes": 3})
        for seed in range(3):
            images = np.clip(level + RNG.normal(0, 0.1, 72), 0, 1)
            found.append(
                training(name, seed, level, test_accuracy=float(images.mean()), test_images=72, metric="AP")
                | {"resampled": [float(images[chosen].mean()) for chosen in draws]}
            )
    return found


def test_answers_are_about_ap_and_not_accuracy():
    summaries = summarize(rows(("det-lite0", 1e8, 0.3), ("det-d0", 2e8, 0.5)))
    assert {each.metric for each in summaries} == {"AP"}
    told = answer(summaries)
    assert any(line.startswith("By AP, det-d0 is higher in AP: +") for line in told)
    assert "APs are those of 72 test images, by which nothing was chosen." in told
    told += compare_studies(("a", "b"), (summaries, summaries))
    assert not [line for line in told if "accura" in line]
    tables = csv_tables(rows(("det-lite0", 1e8, 0.3)))
    assert ",AP," in tables["networks.csv"] and "AP" in tables["trainings.csv"]


def test_equal_detectors_cannot_be_told_apart():
    summaries = summarize(rows(("det-lite0", 1e8, 0.4), ("det-d0", 2e8, 0.4)))
    assert any("cannot tell whether det-d0 is higher or lower in AP" in line for line in answer(summaries))


def test_the_error_over_images_is_that_of_resamples_of_the_same_images():
    rng = np.random.default_rng(2)
    draws = rng.integers(0, 400, (200, 400))
    first, change = rng.normal(0.5, 0.2, 400), rng.normal(0.02, 0.1, 400)  # of each image
    drawn = [[list(values[draws].mean(1))] * 2 for values in (first, first + change)]
    by_seed = ({0: 0.5, 1: 0.5}, {0: 0.52, 1: 0.52})
    found = compare("a", "b", by_seed, 400, drawn)
    assert found.image_error == pytest.approx(0.1 / 20, rel=0.15)  # what the networks share falls out
    assert compare("a", "b", by_seed, 400).image_error == pytest.approx((0.02 * 0.98 / 400) ** 0.5)


def test_a_study_without_a_training_says_so():
    assert answer([]) == ["No network has been trained to the end."]


def test_a_row_of_an_unknown_metric_is_refused(tmp_path):
    jsonl.append(tmp_path / RESULTS_JSONL, training("det-d0", 0, 0.5, curve=[], metric="mAP"))
    with pytest.raises(UserError, match="row 1: metric must be one of AP"):
        read_results(tmp_path)


def test_words_about_ap():
    assert worded("x is as accurate within 1 point", "AP") == "x is equal in AP within 1 point"
    assert worded("By accuracy, x is more accurate", "accuracy") == "By accuracy, x is more accurate"


def test_an_epoch_that_was_not_measured_reaches_no_target():
    curve = [{"val_accuracy": None, "seconds": 5.0}, {"val_accuracy": 0.5, "seconds": 5.0}]
    assert seconds_to(curve, 0.4) == 10


def test_no_detector_is_recommended():
    with pytest.raises(UserError, match="from studies of classifiers"):
        recommend([], family(["det-d0"]), CostLimit("macs", 1e9))


def test_resamples_of_perfect_detections_are_perfect():
    pytest.importorskip("faster_coco_eval", reason="average precision needs it")
    from keras_effnet.detection.precision import Truth
    from keras_effnet.detection.suppression import Detections
    from keras_effnet.evaluation.by_task.boxes import Scenes
    from keras_effnet.study.measurement.held_out_boxes import resampled_scores

    boxes, none = np.array([[0.0, 0.0, 20.0, 20.0]], "float32"), np.zeros((0, 4), "float32")
    right = Detections(boxes, np.array([0.9], "float32"), np.array([0]))
    missed = Detections(none, np.zeros(0, "float32"), np.zeros(0, int))
    truth = Truth(boxes, np.array([0]))
    perfect = resampled_scores(Scenes((truth,) * 3, (right,) * 3), 1)
    assert (perfect.ap, set(perfect.resampled), perfect.images) == (1.0, {1.0}, 3)
    half = resampled_scores(Scenes((truth,) * 4, (right, right, missed, missed)), 1)
    assert half.ap == pytest.approx(0.5, abs=0.02) and 0.15 < np.std(half.resampled) < 0.35  # binomial: 0.25


# --- a whole study

BACKBONE = str(Path(__file__).parent.parent / "support" / "tiny_detector.yaml")


@pytest.mark.soak  # tracing two detectors takes a minute
def test_a_study_of_detectors_measures_trains_and_reports(tmp_path, monkeypatch):
    pytest.importorskip("faster_coco_eval", reason="average precision needs it")
    pytest.importorskip("altair", reason="the report needs Altair")
    from engines import in_this_process

    from keras_effnet.study.measurement import held_out_boxes
    from keras_effnet.study.report import write

    for module in (trial_module, costs):
        monkeypatch.setattr(module, "limit_threads", lambda threads: None)
    monkeypatch.setattr(scaling_study, "engine", in_this_process)
    truth = {f"{number}.png": [("cat", 4, 6, 20, 30), ("dog", 20, 30, 40, 60)] for number in range(8)}
    as_coco(tmp_path / "boxes", {"train": truth, "val": dict(list(truth.items())[:3])})
    (member,) = scaled("det-d0", [-3], image_size=64)
    monkeypatch.setattr(held_out_boxes, "RESAMPLES", 5)
    small = {"backbone": BACKBONE, "bifpn_width": 8, "bifpn_cells": 1, "head_depth": 1}
    arguments = {"budget": Budget("epochs", 1), "options": {"batch_size": 4, "optimizer": "sgd", **small}, "seeds": 1}
    data = {"source": str(tmp_path / "boxes"), "test_split": 0}
    members = [member, replace(member, name="larger", base_size=96)]
    result = scaling_study.run(data, members, tmp_path / "study", **arguments)
    assert result.failures == {}
    kinds = [row["kind"] for row in result.rows]
    assert kinds.count("cost") == 2 and kinds.count("training") == 2 and "roofline" not in kinds
    for row in result.rows:
        assert row["metric"] == "AP"
        if row["kind"] == "training":
            assert 0 <= row["accuracy"] <= 1 and len(row["resampled"]) == 5
    page = write.write_report(tmp_path / "study").read_text()
    assert "What AP costs" in page and "What accuracy costs" not in page and "most accurate" not in page


def test_a_member_that_is_no_detector_is_unchanged():
    assert Member("b0", "family", 0.0, "b0").options["depth"] == 1.0 and family(["b0"])[0].image_size == 64
