"""Lists of images: what is read, what is left out and said, and what is silently no image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keras_effnet.datasets.listing import tree
from keras_effnet.datasets.listing.images import class_folders, describe, list_images


def made(root: Path, *names: str) -> Path:
    """Empty files at these places below a folder."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def relative(paths, root: Path) -> list[str]:
    return [path.removeprefix(f"{root}/") for path in paths]


def left_out(listing, root: Path) -> dict[str, str]:
    return {path.removeprefix(f"{root}/"): kind for path, kind in listing.left_out}


def test_images_are_listed_sorted_at_any_depth_and_other_files_are_not(tmp_path):
    for name in ("b.JPG", "a.png", "deep/er/c.jpeg", "notes.txt", "labels.csv", "d.psd"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    names = [path.removeprefix(f"{tmp_path}/") for path in list_images(tmp_path).images]
    assert names == ["a.png", "b.JPG", "deep/er/c.jpeg"]


@pytest.mark.parametrize("hidden", [".a.jpg", "._a.jpg", ".thumbnails/a.jpg", "cat/.ipynb_checkpoints/a.jpg"])
def test_hidden_files_and_what_lies_in_hidden_folders_are_left_out(tmp_path, hidden):
    (tmp_path / hidden).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / hidden).touch()
    (tmp_path / "seen.jpg").touch()
    assert list_images(tmp_path).images == (str(tmp_path / "seen.jpg"),)


JUNK = ["__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information", "__pycache__"]


@pytest.mark.parametrize("junk", [*JUNK, ".Trashes", ".ipynb_checkpoints"])
def test_system_and_hidden_folders_are_no_classes_and_are_named(tmp_path, junk):
    made(tmp_path, "cat/1.jpg", f"{junk}/2.jpg", f"cat/deep/{junk}/3.jpg")
    found = class_folders(tmp_path)
    assert found.images == {"cat": (str(tmp_path / "cat/1.jpg"),)}
    kind = "system folder" if junk in JUNK else "hidden folder"
    assert left_out(found, tmp_path) == {junk: kind, f"cat/deep/{junk}": kind}


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", "._1.jpg", "notes.txt", "labels.csv"])
def test_files_that_are_no_images_are_not_mentioned(tmp_path, name):
    made(tmp_path, f"cat/{name}", "cat/1.jpg", name)
    assert class_folders(tmp_path).left_out == ()


def test_hidden_images_and_images_beside_class_folders_are_named(tmp_path):
    made(tmp_path, "cat/1.jpg", "cat/.2.jpg", "loose.png")
    found = class_folders(tmp_path)
    assert left_out(found, tmp_path) == {"cat/.2.jpg": "hidden image", "loose.png": "image outside the class folders"}


# --- links, pipes and folders that may not be read


def test_linked_folders_are_read_once_and_circular_links_are_named(tmp_path):
    made(tmp_path, "elsewhere/2.jpg", "photos/cat/1.jpg", "photos/dog/3.jpg")
    root = tmp_path / "photos"
    (root / "cat" / "a").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "b").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "self").symlink_to(".")
    (root / "cat" / "up").symlink_to("..")
    (tmp_path / "elsewhere" / "back").symlink_to(root / "cat")
    found = class_folders(root)
    assert relative(found.images["cat"], root) == ["cat/1.jpg", "cat/a/2.jpg"]
    assert left_out(found, root) == {
        "cat/b": "repeated link",
        "cat/self": "circular link",
        "cat/up": "circular link",
        "cat/a/back": "repeated link",
    }


def test_a_folder_is_read_under_its_own_name_and_not_through_a_link_beside_it(tmp_path):
    made(tmp_path, "z/deep/1.jpg")
    (tmp_path / "a").symlink_to("z/deep")
    listing = list_images(tmp_path)
    assert relative(listing.images, tmp_path) == ["z/deep/1.jpg"] and left_out(listing, tmp_path) == {
        "a": "repeated link"
    }


def test_broken_links_and_pipes_with_the_name_of_an_image_are_named_and_others_are_not(tmp_path):
    made(tmp_path, "cat/1.jpg")
    for name in ("2.jpg", "notes.txt", "loop.png"):
        (tmp_path / "cat" / name).symlink_to("gone" if name != "loop.png" else "loop.png")
    (tmp_path / "dog").symlink_to("gone")
    os.mkfifo(tmp_path / "cat" / "3.jpg")
    os.mkfifo(tmp_path / "cat" / "control")
    found = class_folders(tmp_path)
    assert set(found.images) == {"cat"} and len(found.images["cat"]) == 1
    links = dict.fromkeys(("dog", "cat/2.jpg", "cat/loop.png"), "broken link")
    assert left_out(found, tmp_path) == links | {"cat/3.jpg": "pipe or device"}


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    made(tmp_path, "cat/1.jpg", "cat/private/2.jpg")
    scandir = os.scandir

    def refusing(path):
        if Path(path).name == "private":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(tree.os, "scandir", refusing)
    listing = list_images(tmp_path)
    assert relative(listing.images, tmp_path) == ["cat/1.jpg"]
    assert left_out(listing, tmp_path) == {"cat/private": "unreadable folder"}


def test_paths_are_joined_as_pathlib_joins_them(tmp_path, monkeypatch):
    made(tmp_path, "cat/1.jpg", "2.jpg")
    monkeypatch.chdir(tmp_path)
    assert list_images(".").images == ("2.jpg", "cat/1.jpg")
    assert list_images("./cat/").images == ("cat/1.jpg",)


def test_a_description_counts_by_kind_and_names_five_of_each(tmp_path):
    made(tmp_path, *(f"cat/.{index}.jpg" for index in range(7)), "__MACOSX/1.jpg")
    text = describe(class_folders(tmp_path).left_out, tmp_path)
    names, rest = text.split(" (", 1)[1].split("), ")
    assert text.startswith("7 hidden images (") and names.count("cat/.") == 5 and names.endswith(", ...")
    assert rest == "1 system folder (__MACOSX)."
