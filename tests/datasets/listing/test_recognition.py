"""Which files are images: by extension without opening them, otherwise by content."""

from __future__ import annotations

import builtins
from pathlib import Path

import pytest
from PIL import Image

from keras_effnet.datasets.checking import check_data
from keras_effnet.datasets.listing import recognition
from keras_effnet.datasets.listing.recognition import IMAGE, kind_of
from keras_effnet.datasets.loading import load

PSD, HEIC = b"8BPS\0\1" + bytes(20), b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>'


@pytest.fixture
def png(tmp_path) -> bytes:
    Image.new("RGB", (4, 4)).save(tmp_path / "source.png")
    return (tmp_path / "source.png").read_bytes()


@pytest.fixture
def without_heif(monkeypatch):
    monkeypatch.setattr(recognition, "_read_formats", lambda: recognition.READ_FORMATS - {recognition.HEIF})
    monkeypatch.setattr(recognition, "_read_extensions", lambda: recognition.READ_EXTENSIONS - {".heic"})


def kind(folder: Path, name: str, content: bytes) -> str | None:
    (folder / name).write_bytes(content)
    return kind_of(str(folder / name))


@pytest.mark.parametrize("name", ["photo", "photo.JPG_large", "photo.psd", "photo.2024", "photo.heic"])
def test_images_are_recognised_whatever_they_are_called(tmp_path, png, without_heif, name):
    assert kind(tmp_path, name, png) == IMAGE


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.psd", PSD, "PSD image"),
        ("a", PSD, "PSD image"),
        ("a.svg", SVG, "SVG image"),
        ("a.heic", HEIC, "HEIF image"),
        ("a", HEIC, "HEIF image"),
        ("a.tga", b"\0\0\2", "TGA image"),  # without a signature
        ("a.nef", b"", "camera raw image"),
        (".a.jpg", b"", "hidden image"),
    ],
)
def test_images_that_are_not_read_are_named_by_their_format(tmp_path, without_heif, name, content, expected):
    assert kind(tmp_path, name, content) == expected


@pytest.mark.parametrize("name", ["a.jpg.bak", "a.jpg~", "a.jpg.part", "a.crdownload"])
def test_copies_and_unfinished_downloads_are_named_and_not_read(tmp_path, png, name):
    assert kind(tmp_path, name, png) == "temporary or backup image"


@pytest.mark.parametrize("name", ["notes", "LICENSE", "a.bak", "a.dat", "._a.jpg", "list.unknown"])
def test_other_files_are_no_images(tmp_path, name):
    assert kind(tmp_path, name, b"milk, eggs\n") is None


def test_files_of_known_extensions_are_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(builtins, "open", pytest.fail)
    assert {kind_of(f"{tmp_path}/{name}") for name in ("a.jpg", "b.PNG", "c.webp")} == {IMAGE}
    assert {kind_of(f"{tmp_path}/{name}") for name in ("a.txt", "b.CSV", "c.json", ".DS_Store", "._a.jpg")} == {None}


def test_a_file_that_may_not_be_read_is_named(tmp_path):
    assert kind_of(f"{tmp_path}/gone") == "unreadable file"


def test_a_folder_of_wrongly_named_images_is_loaded_and_counts_the_others(image_folder, without_heif, caplog):
    folder = image_folder({"cat": 6, "dog": 6})
    for index, path in enumerate(sorted(folder.glob("*/*.png"))):
        path.rename(path.with_suffix(("", ".jpg", ".JPG_large", ".psd")[index % 4]))
    for index in range(7):
        (folder / "cat" / f"layers{index}.psd").write_bytes(PSD)
    (folder / "dog" / "phone.heic").write_bytes(HEIC)
    data = load(folder)
    assert len(data.train) + len(data.val) == 12 and data.skipped == () and len(data.left_out) == 8
    (line,) = caplog.messages
    named = ", ".join(f"cat/layers{index}.psd" for index in range(5))
    assert f": 7 PSD images ({named}, ...), 1 HEIF image (dog/phone.heic)." in line
    assert line.endswith("HEIF images are read with: pip install 'keras-effnet[heif]'.")
    report = check_data(data, near_duplicates=False)
    assert report.left_out == data.left_out
    assert report.to_dict()["left_out"][0] == {"path": str(folder / "cat" / "layers0.psd"), "kind": "PSD image"}
