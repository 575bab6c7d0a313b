"""Defects of data may be tolerated by every command that refuses them: its message names the options."""

from __future__ import annotations

import pytest

from keras_effnet import datasets, study
from keras_effnet.errors import UserError
from keras_effnet.search import halving

DEFECTS = ("--max-bad-files", "3", "--skip-empty-classes")


@pytest.mark.parametrize("name", ["train", "eval", "export", "pack", "study", "search"])
def test_a_command_that_trains_or_reads_labels_has_both_options(cli, name):
    shown = cli(name, "--help").out
    assert "--max-bad-files" in shown and "--skip-empty-classes" in shown


@pytest.mark.parametrize(
    ("command", "place", "function"),
    [(["study", "photos", "--phi", "0"], study, "run"), (["search", "photos"], halving, "grid_search")],
    ids=["study", "search"],
)
@pytest.mark.parametrize(
    ("given", "added"),
    [((), {}), (DEFECTS, {"max_bad_files": 3, "skip_empty_classes": True})],
    ids=["default", "tolerant"],
)
def test_trainings_of_a_study_load_their_data_with_what_was_given(
    cli, monkeypatch, command, place, function, given, added
):
    seen = []

    def stop(*, data, **_):
        seen.append(data)
        raise UserError("far enough")

    monkeypatch.setattr(place, function, stop)
    assert cli(*command, *given).err.strip().endswith("far enough")
    assert seen == [{"source": "photos", "test_split": 0.1} | added]


@pytest.mark.parametrize("given", [(), DEFECTS], ids=["default", "tolerant"])
def test_an_export_calibrates_with_what_was_given(cli, monkeypatch, toy_model, tmp_path, given):
    seen = []

    def stop(source, **options):
        seen.append((source, options))
        raise UserError("far enough")

    toy_model().save(tmp_path / "toy.keras")
    monkeypatch.setattr(datasets, "load", stop)
    shown = cli("export", "toy.keras", "--calibration", "photos", *given)
    assert shown.err.strip().endswith("far enough")
    tolerated = {"max_bad_files": 3, "skip_empty_classes": True} if given else {}
    assert seen == [("photos", {"image_size": 8} | tolerated)]


def test_a_resumed_study_keeps_what_it_tolerates(cli):
    assert "A resumed study keeps its data" in cli("study", "--resume", "runs/study/photos", *DEFECTS).err
