"""Paths in files that are shared or moved."""

from __future__ import annotations

from pathlib import Path

import pytest

from keras_effnet.system.portable_paths import located, located_values, portable, portable_values, without_home


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "home" / "alice"
    folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.mark.parametrize(
    ("path", "folder", "text"),
    [
        ("home/alice/photos", "home/alice/runs/train/x", "../../../photos"),
        ("home/alice/runs/x/photos", "home/alice/runs/x", "./photos"),
        ("home/alice/photos", "shared/runs/x", "~/photos"),  # "../../home/alice" would tell the name
        ("data/photos", "shared/runs/x", "../../../data/photos"),
    ],
)
def test_a_path_is_relative_or_has_no_home_and_is_found_again(home, tmp_path, path, folder, text):
    assert portable(tmp_path / path, tmp_path / folder) == text
    assert located(text, tmp_path / folder) == str(tmp_path / path)


def test_folders_that_share_only_the_root_are_written_as_they_are(home, tmp_path):
    text = portable("/srv/photos", tmp_path)
    assert text == "/srv/photos" == located(text, tmp_path)


def test_names_are_no_paths(tmp_path):
    for name in ("digits", "tfds:imagenette", "b0"):
        assert located(name, tmp_path) == name


def test_a_relative_path_starts_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert portable("photos", tmp_path / "runs") == "../photos"


@pytest.mark.parametrize("moved", ["together", "alone", "alone, and the data are gone"])
def test_what_was_moved_is_found(home, moved):
    photos, run = home / "work" / "photos", home / "work" / "runs" / "x"
    photos.mkdir(parents=True)
    run.mkdir(parents=True)
    (values,), last_seen = portable_values([{"source": str(photos), "seed": 0}], run, lambda key, _: key == "source")
    assert values == {"source": "../../photos", "seed": 0} and last_seen == {"../../photos": "~/work/photos"}
    (home / "work").rename(home / "moved")
    if moved != "together":
        (home / "moved" / "runs").rename(home / "runs")
        (home / "moved").rename(home / ("work" if moved == "alone" else "elsewhere"))
    where = {"together": ("moved/runs/x", "moved/photos"), "alone": ("runs/x", "work/photos")}
    folder, expected = where.get(moved, ("runs/x", "photos"))
    assert located_values(values, home / folder, last_seen) == {"source": str(home / expected), "seed": 0}


@pytest.mark.parametrize("value", ["/", "/proc/nowhere"])
def test_without_a_home_folder_paths_are_absolute(tmp_path, monkeypatch, value):
    monkeypatch.setenv("HOME", value)
    assert without_home(tmp_path) == str(tmp_path.resolve())
