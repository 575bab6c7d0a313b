"""Tasks of CSV lists: told by the columns, or named; errors that name line and cell; stratified splits."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from keras_effnet.datasets import from_arrays
from keras_effnet.datasets.labels.csv_table import read_table
from keras_effnet.datasets.labels.csv_tasks import told_task
from keras_effnet.datasets.labels.kinds import KINDS
from keras_effnet.datasets.loading import load
from keras_effnet.datasets.packing import pack
from keras_effnet.errors import UserError
from keras_effnet.study.trial import load_data

FILES = "abcdefgh"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("listed")
    for place, file in enumerate(FILES):
        Image.new("RGB", (9, 9), (place, 0, 0)).save(folder / f"{file}.png")
    return folder


@pytest.fixture
def listed(images):
    """Function from a header and the cells of each row, after the path, to a CSV file."""

    def write(header: str, *cells: str):
        rows = [f"{file}.png,{cell}" for file, cell in zip(FILES, cells, strict=False)]
        (images / "list.csv").write_text("\n".join([f"path,{header}", *rows]), encoding="utf-8")
        return images / "list.csv"

    return write


def contents(dataset) -> dict[str, list[float]]:
    pairs = [
        (path, label)
        for part in (dataset.train, dataset.val)
        for path, label in zip(part.paths, part.labels, strict=True)
    ]
    return {path[-5]: np.atleast_1d(label).tolist() for path, label in pairs}


@pytest.mark.parametrize(
    ("header", "cells", "task", "names", "of_c"),
    [
        ("label", ["x", "y"] * 4, "classification", ("x", "y"), [0]),
        ("label", ["fish|water", "water", "water|fish", ""] * 2, "multilabel", ("fish", "water"), [1, 1]),
        ("label", ["0|1", "1", "1|10", "10"] * 2, "multilabel", ("0", "1", "10"), [0, 1, 1]),
        ("Cat,dog", ["1,0", "1,1", "0,1", "0,0"] * 2, "multilabel", ("Cat", "dog"), [0, 1]),
        ("Cat,dog", ["1,0", "0,1"] * 4, "classification", ("Cat", "dog"), [0]),
        ("dog", ["1", "0"] * 4, "binary", ("not dog", "dog"), [1]),
        ("label", ["1.5", "2", "-3e1", "4"] * 2, "regression", ("label",), [-30]),
        ("price,rooms", ["1.5,2", "2,3", "3,1", "4,2"] * 2, "regression", ("price", "rooms"), [3, 1]),
        ("label,price", ["x,1.5", "y,2"] * 4, "classification", ("x", "y"), [0]),
    ],
)
def test_the_columns_of_a_list_tell_its_task(listed, header, cells, task, names, of_c):
    dataset = load(listed(header, *cells), val_split=0.5)
    assert (dataset.task, dataset.class_names) == (task, names)
    assert contents(dataset)["c"] == pytest.approx(of_c)
    assert dataset.origin.get("task", "classification") == task


@pytest.mark.parametrize(
    ("header", "cells", "wanted", "names", "of_c"),
    [
        ("label", ["x", "y"] * 4, "multilabel", ("x", "y"), [1, 0]),
        ("label", ["x", "y"] * 4, "binary", ("x", "y"), [0]),
        ("label", ["7", "2"] * 4, "regression", ("label",), [7]),
        ("dog", ["1", "0"] * 4, "regression", ("dog",), [1]),
        ("Cat,dog", ["1,0", "0,1"] * 4, "multilabel", ("Cat", "dog"), [1, 0]),
    ],
)
def test_a_task_that_is_named_decides_how_the_columns_are_read(listed, header, cells, wanted, names, of_c):
    dataset = load(listed(header, *cells), val_split=0.5, task=wanted)
    assert (dataset.task, dataset.class_names) == (wanted, names)
    assert contents(dataset)["c"] == of_c
    assert load(**dataset.origin).task == wanted


@pytest.mark.parametrize(
    ("header", "cells", "task", "message"),
    [
        ("cat,dog", ["1,0", "0,2"] * 4, "multilabel", r"list.csv, line 3, column 'dog': '2' is neither 0 nor 1"),
        ("cat,dog", ["1,0", ",1"] * 4, "multilabel", r"line 3, column 'cat': '' is neither 0 nor 1"),
        ("cat,dog", ["1,1", "0,1"] * 4, "classification", r"line 2: 2 of the columns are 1.*--task multilabel"),
        ("cat,dog", ["0,1"] * 8, "multilabel", r"no usable image of label 'cat' for train"),
        ("label", ["x"] * 8, "multilabel", r"only one label \(x\).*--task binary"),
        ("label", ["", ""] * 4, "multilabel", r"no labels"),
        ("label", ["1", "two"] * 4, "regression", r"line 3, column 'label': 'two' is not a finite number"),
        ("label", ["1.5", ""] * 4, "regression", r"line 3, column 'label': the number is missing"),
        ("value", ["1.5", "-1e16"] * 4, None, r"line 3, column 'value': -1e16 is beyond 1e\+15: give .* larger unit"),
        ("value", ["1.5", "nan"] * 4, None, r"line 3, column 'value': 'nan' is not a finite number"),
        ("label", ["x", "y", "z"] * 2, "binary", r"takes exactly two classes, but .* has 3: x, y, z"),
        ("label", ["x", "y"] * 4, "segmentation", r"no column 'mask'"),
        ("lable", ["0", "1"] * 4, None, r"no column 'label' or 'class'. Did you mean 'label' instead of 'lable'"),
        ("note", ["old", "new"] * 4, None, r"no column 'label' or 'class'"),
        ("label", ["x", "y"] * 4, "depth", r"Unknown task 'depth'"),
    ],
)
def test_a_cell_that_does_not_fit_the_task_is_named_in_one_line(listed, header, cells, task, message):
    with pytest.raises(UserError, match=message) as caught:
        load(listed(header, *cells), val_split=0.5, task=task)
    assert "\n" not in str(caught.value)


MANY = 60


@pytest.mark.parametrize(
    ("header", "cells", "odd", "task", "warning"),
    [
        ("cat,dog", ["1,0", "1,1"], "0,2", "regression", "line 9, column 'dog': '2' is neither 0 nor 1; by 1 such of"),
        ("dog", ["1", "0"], "7", "regression", "'7' is neither 0 nor 1; by 1 such of 60 .* rather than binary"),
        ("id,cat,dog", ["3,1,0", "4,1,1"], "5,0,1", "regression", "column 'id': '3' is neither 0 nor 1; by 60 such"),
        ("cat,dog", ["1,0", "0,1"], "1,1", "multilabel", "line 9: 2 of its columns are 1; by 1 such of 60 the task is"),
        ("label", ["7", "2"], "2.5", "regression", "column 'label': '2.5' is no class number; by 1 such of 60"),
        ("label", ["7.5", "2.5"], "n/a", "classification", "'n/a' is no number; by 1 such of 60 the task is class"),
        ("label", ["x", "y"], "x|y", "multilabel", r"'x\|y' stands for several labels; by 1 such of 60"),
        ("label", ["1.5", "2"], "3", "regression", None),
        ("price,rooms", ["1.5,2", "2,1"], "0,1", "regression", None),
        ("price,pool", ["1.5,0", "2,1"], "0,1", "regression", None),
        ("cat,dog", ["1,0", "0,1"], "0,1", "classification", None),
        ("label", ["x", "y"], "y", "classification", None),
    ],
)
def test_a_task_that_few_cells_decide_is_warned_of(tmp_path, caplog, header, cells, odd, task, warning):
    rows = cells * (MANY // 2)
    rows[7] = odd
    path = tmp_path / "list.csv"
    path.write_text("\n".join([f"path,{header}", *(f"{place}.png,{row}" for place, row in enumerate(rows))]))
    assert told_task(read_table(path)) == task
    assert caplog.text == "" if warning is None else re.search(warning, caplog.text)
    assert warning is None or f"say --task {task}." in caplog.text


def test_a_decimal_comma_is_named(images):
    path = images / "comma.csv"
    path.write_text("path;value\na.png;1,5\nb.png;2\n")
    with pytest.raises(UserError, match=r"line 2, column 'value': '1,5' is not a finite number; write decimals with a"):
        load(path, task="regression")


def test_data_of_another_kind_are_refused_for_a_task(image_folder):
    folder = image_folder({"cat": 5, "dog": 5})
    assert load(folder, task="binary").task == "binary"
    with pytest.raises(UserError, match="one class per image, but the task multilabel takes a CSV file"):
        load(folder, task="multilabel")
    with pytest.raises(UserError, match="no images with masks"):
        load(folder, task="segmentation")
    with pytest.raises(UserError, match="binary takes exactly two classes, but digits has 10"):
        load("digits", task="binary")


def test_studies_refuse_other_tasks_in_one_line(listed):
    source = listed("label", *["x|y", "y", "x", ""] * 2)
    protocol, member = SimpleNamespace(data={"source": str(source), "val_split": 0.5}), SimpleNamespace(image_size=32)
    with pytest.raises(UserError, match=r"any number of labels per image \(task multilabel\).*keras-effnet train"):
        load_data(protocol, member)


# ------------------------------------------------------------------ splits


def test_every_combination_of_labels_is_held_out_in_proportion_and_rare_ones_are_pooled():
    rng = np.random.default_rng(0)
    flags = np.repeat([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]], (100, 60, 40, 20), axis=0)
    rare = np.array([[1, 0, 1]] * 4 + [[0, 1, 1]] * 3 + [[1, 1, 1]] * 3)
    labels = rng.permutation(np.concatenate([flags, rare])).astype("float32")
    dataset = from_arrays(np.zeros((len(labels), 2, 2, 3), "uint8"), labels)
    assert dataset.task == "multilabel"
    np.testing.assert_allclose(dataset.val.labels.sum(axis=0), labels.sum(axis=0) / 5, atol=1)
    assert len(set(KINDS["multilabel"].strata(labels).tolist())) == 5


def test_numbers_are_held_out_over_their_whole_range():
    values = np.random.default_rng(0).exponential(size=200).astype("float32")
    dataset = from_arrays(np.zeros((200, 2, 2, 3), "uint8"), values)
    assert dataset.task == "regression" and dataset.train.labels.shape == (160, 1)
    ranks = np.searchsorted(np.sort(values), dataset.val.labels[:, 0])
    assert np.bincount(ranks // 20).tolist() == [4] * 10
    assert [len(fold.val) for fold in dataset.folds(5)] == [40] * 5


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        (np.eye(4), None, "pass class numbers"),
        (np.eye(4, dtype=int) * 2, None, r"labels have shape \(4, 4\) and hold 2, neither 0 nor 1"),
        (np.full((4, 2), 2.0), "multilabel", "range from 2 to 2; expected 0 and 1"),
        (np.ones((4, 1)), "multilabel", "have one column"),
        (np.array([1, np.nan, 2, 3]), "regression", "NaN or infinite"),
        (np.array([1, 1e300, 2, 3]), "regression", r"labels reach 1e\+300, beyond 1e\+15"),
        (np.zeros((3, 2, 2), int), None, r"masks have shape \(3, 2, 2\)"),
        (np.zeros((4, 2, 3), int), None, r"masks have shape \(4, 2, 3\), expected \(4, 2, 2\)"),
        (np.full((4, 2, 2), 300), None, "masks range from 300 to 300"),
        (np.zeros((4, 2, 2), int), None, "All masks are of one class"),
        (np.zeros((4, 2, 2)), None, "masks are of type float64"),
    ],
)
def test_arrays_that_do_not_fit_their_task_are_refused(labels, task, message):
    with pytest.raises(UserError, match=message):
        from_arrays(np.zeros((4, 2, 2, 3), "uint8"), labels, task=task)


def test_an_array_of_flags_with_one_other_value_is_warned_of(caplog):
    labels = np.ones((4, 3))
    labels[2, 1] = 2
    assert from_arrays(np.zeros((4, 2, 2, 3), "uint8"), labels).task == "regression"
    assert "labels[2, 1] is 2, neither 0 nor 1; by 1 such of 12 the task is regression" in caplog.text


# ------------------------------------------------------------------ packs


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("cat,dog", ["1,0", "1,1", "0,1", "0,0"] * 2),
        ("price,rooms", ["1.5,2", "2,3", "3,1", "4,2"] * 2),
        ("dog", ["1", "0"] * 4),
    ],
)
def test_a_pack_has_the_task_the_labels_and_the_splits_of_its_source(listed, tmp_path, header, cells):
    source = load(listed(header, *cells), val_split=0.5)
    pack(listed(header, *cells), tmp_path / "pack")
    packed = load(tmp_path / "pack", val_split=0.5)
    assert (packed.task, packed.class_names) == (source.task, source.class_names)
    for part in ("train", "val"):
        expected, got = (
            sorted(
                (int(image[0, 0, 0]), np.atleast_1d(label).tolist())
                for image, label in zip(split.decoded(), split.labels, strict=True)
            )
            for split in (getattr(source, part), getattr(packed, part))
        )
        assert got == expected
    with pytest.raises(UserError, match="but the task segmentation takes"):
        load(tmp_path / "pack", task="segmentation")
