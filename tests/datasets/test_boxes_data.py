"""Data with boxes: `load` tells every format by its files, and all of them give the same boxes."""

import numpy as np
import pytest
import tensorflow as tf
from box_files import CLASSES, FORMATS, SIZE, TRUTH, as_coco, draw
from PIL import Image

from keras_effnet import datasets
from keras_effnet.datasets.findings.data_identity import identity
from keras_effnet.datasets.labels.boxes import Boxes, ImageBoxes, join
from keras_effnet.datasets.packing import pack
from keras_effnet.errors import UserError


def assert_true(split, files):
    assert [path.replace("\\", "/").rpartition("/")[2] for path in split.paths] == list(files)
    assert split.labels.sizes.tolist() == [list(SIZE)] * len(files)
    for index, boxes in enumerate(files.values()):
        found = split.labels.of(index)
        assert [CLASSES[label] for label in found.classes] == [box[0] for box in boxes]
        np.testing.assert_allclose(found.boxes, np.reshape([box[1:] for box in boxes], (-1, 4)), atol=1e-3)


@pytest.mark.parametrize("task", [None, "detection"])
@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_every_format_is_told_by_its_files(write, task, tmp_path):
    data = datasets.load(write(tmp_path), task=task)
    assert (data.task, data.class_names) == ("detection", CLASSES)
    assert_true(data.train, TRUTH["train"])
    assert_true(data.val, TRUTH["val"])
    assert data.origin["task"] == "detection"


def test_a_coco_file_alone_is_divided(tmp_path):
    as_coco(tmp_path, {"train": {f"{name}.png": [("cat", 0, 0, 9, 9)] for name in "abcde"}})
    data = datasets.load(tmp_path / "annotations" / "instances_train.json")
    assert (len(data.train), len(data.val)) == (4, 1)


def test_two_coco_files_of_a_split_are_refused(tmp_path):
    folder = as_coco(tmp_path) / "annotations"
    (folder / "instances_train2.json").write_text((folder / "instances_train.json").read_text())
    with pytest.raises(UserError, match=r"instances_train2\.json are both annotations for train"):
        datasets.load(tmp_path)


def test_a_folder_without_boxes_names_what_is_expected(tmp_path):
    draw(tmp_path / "cat", ["a.png"])
    with pytest.raises(UserError, match=r"has no boxes; the task detection takes boxes of COCO \(\.json\)"):
        datasets.load(tmp_path, task="detection")


def test_annotations_without_a_box_are_refused(tmp_path):
    draw(tmp_path, ["a.png"])
    (tmp_path / "boxes.csv").write_text("TRAIN,a.png,,,,,,,,,\n")
    with pytest.raises(UserError, match="no box in any of its 1 images"):
        datasets.load(tmp_path / "boxes.csv")


def test_images_that_cannot_be_decoded_are_skipped(tmp_path):
    source = as_coco(tmp_path)
    whole = (tmp_path / "train" / "b.png").read_bytes()
    (tmp_path / "train" / "b.png").write_bytes(whole[:-30])
    data = datasets.load(source)
    assert [file.path.rpartition("/")[2] for file in data.skipped] == ["b.png"]
    assert_true(data.train, {name: boxes for name, boxes in TRUTH["train"].items() if name != "b.png"})


def test_boxes_do_not_serve_other_tasks(tmp_path):
    with pytest.raises(UserError, match="boxes"):
        datasets.load(as_coco(tmp_path), task="multilabel", val_split=0.3)


def test_scenes_of_digits_have_boxes_at_any_size(monkeypatch):
    monkeypatch.setattr("keras_effnet.datasets.annotations.reading._SCENES", {"train": 5, "val": 2, "test": 2})
    data = datasets.load("digits-scenes", image_size=48)
    assert data.train.pixels.shape == (5, 48, 48, 3) and len(data.class_names) == 10
    assert data.train.labels.boxes.max() <= 48 and len(data.train.labels.boxes) >= 5
    assert datasets.load("digits-scenes", image_size=48, seed=1).train.pixels.tobytes() != data.train.pixels.tobytes()


def several(count):
    rng = np.random.default_rng(0)
    images = [
        ImageBoxes(rng.random((n, 4)), rng.integers(0, 3, n), np.zeros(n, bool)) for n in rng.integers(0, 4, count)
    ]
    return Boxes.of_images(images, [(8, 9)] * count)


def test_boxes_are_selected_and_joined_by_image():
    whole = several(9)
    parts = join(whole[:4], whole[4:])
    assert whole.contents() == parts.contents()
    assert whole[np.array([7, 2])].of(1).boxes.tolist() == whole.of(2).boxes.tolist()
    assert len(whole[:0]) == 0


def test_folds_and_identity_know_boxes(tmp_path):
    data = datasets.load(as_coco(tmp_path))
    folds = data.folds(2)
    assert sorted(path for fold in folds for path in fold.val.paths) == sorted(data.train.paths + data.val.paths)
    assert identity(data)["classes"] == {"cat": {"train": 2, "val": 0}, "dog": {"train": 1, "val": 1}}
    assert identity(data)["labels"] != identity(folds[0])["labels"]


def test_arrays_have_boxes_too():
    labels, images = several(10), np.zeros((10, 8, 9, 3), "uint8")
    data = datasets.from_arrays(images, labels)
    assert data.task == "detection" and data.class_names == ("0", "1", "2")
    assert sum(len(part.labels.boxes) for part in (data.train, data.val)) == len(labels.boxes)
    with pytest.raises(UserError, match="beyond the 2 class names"):
        datasets.from_arrays(images, labels, ["a", "b"])
    with pytest.raises(UserError, match=r"Boxes\.of_images"):
        datasets.from_arrays(images, np.zeros(10, int), task="detection")


def in_order(split):
    """Pixels and boxes of a split, sorted by the pixels."""
    images = [pixels.tobytes() for pixels in split.decoded()]
    places = sorted(range(len(images)), key=images.__getitem__)
    return [(images[place], *(part.tolist() for part in split.labels.of(place))) for place in places]


def test_packed_boxes_equal_those_of_the_source(tmp_path):
    truth = {"train": TRUTH["train"], "val": TRUTH["val"]}
    as_coco(tmp_path / "pets", truth)
    for number, path in enumerate(sorted((tmp_path / "pets").rglob("*.png"))):  # told apart by their pixels
        Image.new("RGB", SIZE[::-1], (number, 0, 0)).save(path)
    pack(tmp_path / "pets", tmp_path / "packed")
    source, packed = datasets.load(tmp_path / "pets"), datasets.load(tmp_path / "packed")
    assert packed.task == "detection" and packed.class_names == CLASSES
    for split in ("train", "val"):
        assert in_order(getattr(packed, split)) == in_order(getattr(source, split))
        assert getattr(packed, split).labels.sizes.tolist() == getattr(source, split).labels.sizes.tolist()


def test_packed_boxes_shrink_with_their_images_and_have_the_usual_features(tmp_path):
    pack(as_coco(tmp_path / "pets"), tmp_path / "packed", size=16)  # sides of 40 x 60 pixels become 18 x 27
    packed = datasets.load(tmp_path / "packed")
    assert packed.val.labels.sizes.tolist() == [[18, 27]]
    assert packed.val.labels.boxes == pytest.approx(np.array([[8, 12, 24, 48]]) * 0.45)
    assert next(packed.val.decoded()).shape == (18, 27, 3)
    shard = str(tmp_path / "packed/val-00000.tfrecord")
    record = next(tf.data.TFRecordDataset(shard).as_numpy_iterator())
    features = tf.train.Example.FromString(record).features.feature
    assert features["image/object/bbox/xmax"].float_list.value == pytest.approx([48 / 60])
    assert features["image/object/class/text"].bytes_list.value == [b"dog"]
    assert features["image/height"].int64_list.value == [18]


def test_packed_scenes_are_the_generated_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_effnet.datasets.annotations.reading._SCENES", {"train": 5, "val": 2, "test": 2})
    pack("digits-scenes", tmp_path / "packed")
    source, packed = datasets.load("digits-scenes"), datasets.load(tmp_path / "packed")
    assert [in_order(part) for part in (packed.train, packed.test)] == [
        in_order(part) for part in (source.train, source.test)
    ]
    assert not packed.train.mirror
