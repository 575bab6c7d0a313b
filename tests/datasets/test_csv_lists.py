"""Images listed in a CSV file: columns, classes, splits, and errors that name the row."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from keras_effnet.cli.export_inputs import export_images
from keras_effnet.datasets.loading import load
from keras_effnet.errors import UserError
from keras_effnet.preprocessing import ImageSpec


@pytest.fixture
def listed(tmp_path):
    """Function that writes a list, and an image for every name in `files`."""

    def write(text: str, files="abcdefgh", name: str = "manifest.csv"):
        folder = tmp_path / "set"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for file in files:
            Image.new("RGB", (9, 9)).save(folder / f"images/{file}.png")
        (folder / name).write_text(text, encoding="utf-8")
        return folder

    return write


def rows(*labels: str) -> str:
    return "".join(f"images/{file}.png,{label}\n" for file, label in zip("abcdefgh", labels, strict=False))


def contents(split) -> dict[str, int]:
    return {path.rsplit("/", 1)[-1][0]: int(label) for path, label in zip(split.images, split.labels, strict=True)}


def test_a_list_gives_paths_labels_and_splits(listed):
    splits = ("train", "train", "val", "Validation", "test", "", "valid", "test")
    text = "path,label,split\n" + "".join(
        f"images/{file}.png,{label},{split}\n"
        for file, label, split in zip("abcdefgh", "dcdcdcdc", splits, strict=True)
    )
    folder = listed(text)
    for source in (folder, folder / "manifest.csv"):
        dataset = load(source)
        assert dataset.class_names == ("c", "d") and dataset.name == "set"
        assert contents(dataset.train) == {"a": 1, "b": 0, "f": 0}
        assert contents(dataset.val) == {"c": 1, "d": 0, "g": 1}
        assert contents(dataset.test) == {"e": 1, "h": 0}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file,label\nimages/a.png,Smith, John\n", r"line 2: 'John' is beyond the columns.*contain a comma in quotes"),
        ("file;label\nimages/a.png;x;y\n", r"line 2: 'y' is beyond the columns.*contain a semicolon in quotes"),
        ("file,label,Label\nimages/a.png,x,y\n", "has two columns named 'label'"),
        (
            "images/a.png,cat\nimages/b.png,dog\n",
            r"has no header: its first line is images/a\.png,cat\. Add .*path,label",
        ),
    ],
)
def test_cells_that_have_no_column_of_their_own_are_refused(listed, text, told):
    with pytest.raises(UserError, match=told):
        load(listed(text) / "manifest.csv")


@pytest.mark.parametrize("end", ["\r", "\r\n", ",,\n", "\n\n"])
def test_line_ends_of_spreadsheets(listed, end):
    dataset = load(listed(("file,label\n" + rows(*"xyxyxyxy")).replace("\n", end)))
    assert dataset.class_names == ("x", "y") and len(dataset.train) + len(dataset.val) == 8


def test_a_list_without_splits_is_divided_and_loads_again(listed, monkeypatch):
    folder = listed("file;class\n" + rows(*"xyxyxyxy").replace(",", ";"))
    monkeypatch.chdir(folder)
    dataset = load("manifest.csv", val_split=0.5, seed=3)
    assert np.bincount(dataset.train.labels).tolist() == np.bincount(dataset.val.labels).tolist() == [2, 2]
    monkeypatch.chdir("/")
    assert load(**dataset.origin).val.images == dataset.val.images


def test_numbers_are_classes_in_their_order(listed):
    dataset = load(listed("path,label\n" + rows("10", "9", "10", "9", "2", "2")), val_split=0.5)
    assert dataset.class_names == ("2", "9", "10")
    assert contents(dataset.train) | contents(dataset.val) == {"a": 2, "b": 1, "c": 2, "d": 1, "e": 0, "f": 0}


def test_numbers_index_the_names_beside_the_list(listed):
    folder = listed("path,label\n" + rows(*"10101010"))
    (folder / "labels.txt").write_text("cat\ndog\n")
    dataset = load(folder)
    assert dataset.class_names == ("cat", "dog") and {**contents(dataset.train), **contents(dataset.val)}["a"] == 1
    (folder / "labels.txt").write_text("cat\n")
    with pytest.raises(UserError, match="label 1 is beyond the 1 classes"):
        load(folder)


CLASSES = "index,wnid,name,file\n0,n01,tench,\n1,n02,goldfish,images/a.png\n2,n03,shark,images/b.png\n"


@pytest.mark.parametrize("name", ["labels.csv", "manifest.csv"])
def test_a_class_list_with_an_image_here_and_there_is_to_measure_with(listed, name):
    folder = listed(CLASSES, name=name)
    dataset = load(folder)
    assert dataset.class_names == ("n01", "n02", "n03")
    assert contents(dataset.held_out) == {"a": 1, "b": 2}
    assert len(dataset.train) == len(dataset.val) == 0


def test_a_class_list_calibrates_on_other_images_than_it_compares_on(listed):
    rows = [f"{number},{file},images/{file}.png" for number, file in enumerate("abcdefgh")]
    text = "\n".join(["index,name,file", *rows])
    network = SimpleNamespace(image_spec=ImageSpec(8), class_names=tuple("abcdefgh"), task="classification")
    folder = listed(text, name="labels.csv")
    calibration, held_out, notes = export_images(network, folder, samples=4, seed=0, defects={"max_bad_files": 0})
    assert notes == [f"{folder} has no split: 4 images to calibrate on, 4 others to compare on."]
    assert contents(calibration) == {"a": 0, "c": 2, "e": 4, "g": 6}
    assert contents(held_out) == {"b": 1, "d": 3, "f": 5, "h": 7}


def test_a_class_list_with_enough_images_is_to_train_with(listed):
    text = "index,name,file\n" + "".join(f"{n % 2},{'xy'[n % 2]},images/{f}.png\n" for n, f in enumerate("abcdefgh"))
    dataset = load(listed(text, name="labels.csv"), val_split=0.25)
    assert dataset.class_names == ("x", "y") and dataset.test is None
    assert (len(dataset.train), len(dataset.val)) == (6, 2)


def test_a_label_file_beside_class_folders_is_left_alone(image_folder):
    folder = image_folder({"cat": 5, "dog": 5})
    (folder / "labels.csv").write_text("file,label\ncat/000.png,x\ncat/001.png,y\n")
    assert load(folder).class_names == ("cat", "dog")


def test_files_that_cannot_be_decoded_are_left_out(listed):
    folder = listed("path,label\n" + rows(*"xyxyxyxy"))
    (folder / "images/c.png").write_bytes(b"no image")
    dataset = load(folder)
    assert [item.path.rsplit("/", 1)[-1] for item in dataset.skipped] == ["c.png"]
    assert sorted({**contents(dataset.train), **contents(dataset.val)}) == list("abdefgh")
    with pytest.raises(UserError, match="1 of 8 images cannot be decoded"):
        load(folder, max_bad_files=0)


def test_a_class_none_of_whose_files_can_be_decoded_is_refused_or_left_out(listed):
    folder = listed("path,label\n" + rows(*"xyzxyzxy"))
    for name in "cf":
        (folder / f"images/{name}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="no usable image of class 'z' for train: none of its 2 files"):
        load(folder)
    data = load(folder, skip_empty_classes=True)
    assert data.class_names == ("x", "y") and len(data.train) + len(data.val) == 6


def test_a_list_for_evaluation_may_lose_all_images_of_a_class(listed):
    folder = listed("path,label,split\n" + "".join(f"images/{n}.png,{n},test\n" for n in "abc"))
    (folder / "images/b.png").write_bytes(b"no image")
    data = load(folder)
    assert data.class_names == tuple("abc") and data.held_out.labels.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\nimages/a.png,x\nimages/gone.png,y\n", r"line 3: .*images/gone\.png does not exist"),
        ("path,label\nimages/a.png,x\nimages/b.png,\n", r"line 3: no label is given for images/b\.png"),
        ("path,label\nimages/a.png,x\n,y\n", "line 3: the file name is missing"),
        ("path,label\nimages/a.png,x\nimages/a.png,y\n", "line 3: images/a.png is already listed on line 2"),
        ("path,label,split\nimages/a.png,x,trian\n", r"line 2: Unknown split 'trian'\. Did you mean 'train'"),
        ("path,lable\nimages/a.png,x\n", "no column 'label' or 'class'. Did you mean 'label' instead of 'lable'"),
        ("pth,label\nimages/a.png,x\n", "no column 'path' or 'file'. Did you mean 'path' instead of 'pth'"),
        ("path,label\nimages/a.png,x\nimages/b.png,x\n", r"only one class \(x\)"),
        ("path,label\n", "lists no images"),
        ("", "no column 'path'"),
        ("path,label\nimages/a.png,x\nimages/b.png,y\n", "no usable image of class 'x' for val"),
        ("index,name,file\n0,x,images/a.png\n2,z,\n", "lists no class 1"),
        (
            "index,name,file\n0,x,images/a.png\nq,z,\n",
            "line 3: a class index must be an integer from 0, got 'q'",
        ),
        ("index,name,file\n0,x,images/a.png\n0,z,\n", "line 3: class 0 was named 'x' before, not 'z'"),
        ("index,name,file\n0,x,images/a.png\n1,x,\n", "two classes the same name, 'x'"),
    ],
)
def test_a_faulty_list_is_refused_with_its_line_in_one_line(listed, text, message):
    with pytest.raises(UserError, match=message) as caught:
        load(listed(text))
    assert "\n" not in str(caught.value)


def test_a_list_that_is_no_text_is_refused(listed):
    folder = listed("path,label\n")
    (folder / "manifest.csv").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(UserError, match=r"manifest\.csv is not text in UTF-8: byte 0 is 0xff"):
        load(folder)


@pytest.mark.images
def test_the_sample_of_imagenet_is_a_class_list(images_root):
    dataset = load(images_root / "imagenet-sample-300")
    assert len(dataset.class_names) == 1000 and len(dataset.held_out) == 300
    for path, label in zip(dataset.held_out.images, dataset.held_out.labels, strict=True):
        assert f"/{dataset.class_names[label]}_" in path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"path,label\n{'a' * 140_000}.png,cat\n", "manifest.csv, line 1: field larger than field limit.* not closed"),
        ('path,label\na.png,cat\n"b.png,dog\nc.png,dog\n', "line 4: a quote that was opened before is not closed"),
        (f"path,label\n{'a' * 5000},cat\n", "line 2: .* does not exist"),
        ("path,label\n\0.png,cat\n", "manifest.csv"),
        ("path,index,name\n,999999999999,cat\n,0,dog\n", "lists no class 1"),
        (f"path,index,name\n,{'9' * 5000},cat\n", "class index must be an integer from 0, got '999"),
    ],
)
def test_cells_without_bounds_are_refused_in_one_line(listed, text, message):
    with pytest.raises(UserError, match=message) as caught:
        load(listed(text))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
