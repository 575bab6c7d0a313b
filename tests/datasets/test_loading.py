"""Datasets: the embedded digits, cluttered scenes of them, and folders, good and bad."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from keras_effnet.datasets import digits as embedded
from keras_effnet.datasets.digits import clutter
from keras_effnet.datasets.loading import load
from keras_effnet.datasets.splits import Split
from keras_effnet.datasets.stratification import stratified_split
from keras_effnet.errors import UserError


def keys(split: Split) -> set[bytes]:
    return {image.tobytes() for image in split.images}


# ------------------------------------------------------------------ digits


def test_digits_are_scikit_learns_1797_in_three_parts(digits):
    assert digits.class_names == tuple("0123456789")
    assert (len(digits.train), len(digits.val), len(digits.test)) == (1258, 270, 269)
    assert digits.train.images.shape == (1258, 8, 8, 3) and digits.train.images.dtype == np.uint8
    assert digits.held_out is digits.test


def test_digits_are_the_images_of_the_source_with_their_labels(digits):
    source = load_digits()
    pixels = (source.images * 255 / 16).round().astype("uint8")
    labels = {image.tobytes(): label for image, label in zip(pixels, source.target, strict=True)}
    for split in (digits.train, digits.val, digits.test):
        for image, label in zip(split.images, split.labels, strict=True):
            assert (image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all()
            assert labels[image[..., 0].tobytes()] == label


def test_digits_no_image_is_in_two_parts(digits):
    parts = [keys(part) for part in (digits.train, digits.val, digits.test)]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    total = len({image.tobytes() for image in load_digits().images})
    assert sum(map(len, parts)) == total


def test_digits_every_class_is_divided_alike(digits):
    totals = np.bincount(load_digits().target)
    for part, share in ((digits.train, 0.7), (digits.val, 0.15), (digits.test, 0.15)):
        assert np.abs(np.bincount(part.labels) - share * totals).max() <= 1


def test_digits_the_seed_decides_the_parts(digits):
    np.testing.assert_array_equal(load("digits", seed=0).train.images, digits.train.images)
    assert keys(load("digits", seed=1).test) != keys(digits.test)


def test_digits_are_never_to_be_mirrored(digits):
    assert not digits.train.mirror and not digits.val.mirror and not digits.test.mirror


def test_a_stratified_split_is_a_permutation_with_the_same_shares_of_each_class():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    train, val = stratified_split(labels, (0.8, 0.2), seed=0)
    assert sorted([*train, *val]) == list(range(160))
    assert np.bincount(labels[val]).tolist() == [20, 10, 2]


def test_a_sample_is_seeded_without_repetition_and_keeps_labels_with_images():
    split = Split(np.arange(50, dtype="uint8").reshape(50, 1, 1, 1), np.arange(50))
    sample = split.sample(20, seed=1)
    assert len(set(sample.labels)) == 20
    np.testing.assert_array_equal(sample.images.ravel(), sample.labels)
    np.testing.assert_array_equal(sample.labels, split.sample(20, seed=1).labels)
    assert sample.labels.tolist() != split.sample(20, seed=2).labels.tolist()
    assert split.sample(99) is split


# ------------------------------------------------------------------ cluttered digits


def shrink(images: np.ndarray) -> np.ndarray:
    count, size = images.shape[:2]
    return images.astype("float64").reshape(count, size // 2, 2, size // 2, 2, 3).mean(axis=(2, 4))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_a_seed_gives_the_same_scenes_at_any_resolution(digits):
    small, large = (clutter(digits.train, 40, size, seed=5) for size in (64, 128))
    other = clutter(digits.train, 40, 64, seed=6)
    np.testing.assert_array_equal(small.labels, large.labels)
    assert correlation(small.images, shrink(large.images)) > 0.9
    assert correlation(other.images, shrink(large.images)) < 0.5


def test_scenes_are_the_same_for_the_same_seed(digits):
    np.testing.assert_array_equal(clutter(digits.val, 9, 48, seed=2).images, clutter(digits.val, 9, 48, seed=2).images)


@pytest.mark.parametrize("size", [32, 50, 96])
def test_scenes_come_at_any_size(digits, size):
    scenes = clutter(digits.test, 5, size, seed=0)
    assert scenes.images.shape == (5, size, size, 3) and scenes.images.dtype == np.uint8
    assert not scenes.mirror


def test_the_label_of_a_scene_is_that_of_its_whole_digit():
    # Each label is one flat grey, so that it shows where a patch came from. The whole digit covers at least a
    # sixteenth of the canvas, a fragment at most a fortieth.
    greys = np.arange(25, 255, 25, dtype="uint8")
    glyphs = np.broadcast_to(greys[:, None, None, None], (10, 8, 8, 3)).copy()
    scenes = clutter(Split(glyphs, np.arange(10)), 300, 128, seed=0)
    areas = np.stack([(scenes.images[..., 0] == grey).sum(axis=(1, 2)) for grey in greys], axis=1)
    assert np.mean(areas.argmax(axis=1) == scenes.labels) > 0.95


def test_no_handwriting_of_one_part_appears_in_the_scenes_of_another(monkeypatch):
    sources = []

    def few(digits, count, size, seed):
        sources.append((keys(digits), count, seed))
        return clutter(digits, 80, size, seed)

    monkeypatch.setattr(embedded, "clutter", few)
    dataset = load("digits-cluttered", image_size=40)
    (train, val, test), counts, seeds = zip(*sources, strict=True)
    assert not train & val and not train & test and not val & test
    assert counts == (5000, 1000, 1000) and len(set(seeds)) == 3
    assert dataset.train.images.shape == (80, 40, 40, 3) and dataset.name == "digits-cluttered"


# ------------------------------------------------------------------ folders


def test_class_folders_are_split_alike_by_class(image_folder):
    dataset = load(image_folder({"cat": 20, "dog": 10}))
    assert dataset.class_names == ("cat", "dog") and dataset.test is None
    assert np.bincount(dataset.train.labels).tolist() == [16, 8]
    assert np.bincount(dataset.val.labels).tolist() == [4, 2]
    assert not set(dataset.train.images) & set(dataset.val.images)
    assert dataset.train.mirror and dataset.held_out is dataset.val


def test_the_labels_of_a_folder_follow_its_class_folders(image_folder):
    dataset = load(image_folder({"cat": 5, "ant": 5, "dog": 5}))
    assert dataset.class_names == ("ant", "cat", "dog")
    for part in (dataset.train, dataset.val):
        for path, label in zip(part.images, part.labels, strict=True):
            assert f"/{dataset.class_names[label]}/" in path


def test_the_share_held_out_can_be_set(image_folder):
    folder = image_folder({"cat": 10, "dog": 10})
    assert len(load(folder, val_split=0.5).val) == 10
    for share in (0, 1, 1.5):
        with pytest.raises(UserError, match="val_split must lie between 0 and 1"):
            load(folder, val_split=share)


def test_test_images_are_cut_from_the_training_images_if_asked_for(image_folder):
    folder = image_folder({"cat": 20, "dog": 10})
    dataset = load(folder, test_split=0.2)
    parts = (dataset.train, dataset.val, dataset.test)
    assert [np.bincount(part.labels).tolist() for part in parts] == [[13, 6], [3, 2], [4, 2]]
    assert len({path for part in parts for path in part.images}) == 30
    again = load(**dataset.origin)
    assert [getattr(again, part).images for part in ("train", "val", "test")] == [part.images for part in parts]
    assert load(folder, test_split=0.2, seed=1).test.images != dataset.test.images
    assert load(folder, test_split=0.02).test is None  # less than an image of each class
    with pytest.raises(UserError, match="test_split must be 0 or lie"):
        load(folder, test_split=1)
    with pytest.raises(UserError, match=r"images: test_split=0\.99 leaves no image to train on; lower it\."):
        load(folder, test_split=0.99)
    with pytest.raises(UserError, match=r"'cat' for train; add some, hold out a smaller share \(val_split"):
        load(folder, val_split=0.99)
    with pytest.raises(UserError, match=r"'cat' for val; add some, or hold out a larger share \(val_split"):
        load(folder, val_split=0.01)


def test_the_split_of_a_folder_is_seeded(image_folder):
    folder = image_folder({"cat": 20, "dog": 20})
    assert load(folder, seed=3).val.images == load(folder, seed=3).val.images
    assert load(folder, seed=3).val.images != load(folder, seed=4).val.images


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_train_and_val_folders_are_taken_as_they_are(image_folder, name):
    image_folder({"cat": 6, "dog": 4}, root="set/train")
    folder = image_folder({"cat": 2, "dog": 1}, root=f"set/{name}").parent
    dataset = load(folder)
    assert np.bincount(dataset.train.labels).tolist() == [6, 4]
    assert np.bincount(dataset.val.labels).tolist() == [2, 1]
    assert all(f"/{name}/" in path for path in dataset.val.images)


def test_a_test_folder_is_held_out_and_never_split_off_from(image_folder):
    image_folder({"cat": 10, "dog": 10}, root="set/train")
    folder = image_folder({"cat": 3, "dog": 3}, root="set/test").parent
    dataset = load(folder)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (16, 4, 6)
    assert dataset.held_out is dataset.test


def test_a_train_folder_alone_is_split(image_folder):
    folder = image_folder({"cat": 10, "dog": 10}, root="set/train").parent
    dataset = load(folder)
    assert dataset.class_names == ("cat", "dog") and len(dataset.val) == 4


def test_classes_that_differ_between_train_and_val_are_named(image_folder):
    image_folder({"cat": 2, "dog": 2}, root="set/train")
    folder = image_folder({"cat": 2, "dgo": 2}, root="set/val").parent
    with pytest.raises(UserError, match="train and val have different classes; in one only: dgo, dog"):
        load(folder)


def test_hidden_folders_are_no_class(image_folder):
    folder = image_folder({"cat": 5, "dog": 5, ".cache": 5})
    assert load(folder).class_names == ("cat", "dog")


def test_what_is_left_out_of_a_folder_is_kept_with_the_data_and_warned_of_in_one_line(image_folder, caplog):
    folder = image_folder({"cat": 5, "dog": 5}, root="photos/train").parent
    image_folder({"cat": 2, "dog": 2}, root="photos/val")
    for name in ("__MACOSX/train", "train/@eaDir", "val/cat/.ipynb_checkpoints", "unlabelled"):
        (folder / name).mkdir(parents=True)
    (folder / "train" / "1.png").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "keras_effnet"):
        data = load(folder)
    assert data.class_names == ("cat", "dog") and data.skipped == ()
    assert {(item.path.removeprefix(f"{folder}/"), item.kind) for item in data.left_out} == {
        ("__MACOSX", "system folder"),
        ("train/@eaDir", "system folder"),
        ("val/cat/.ipynb_checkpoints", "hidden folder"),
        ("unlabelled", "folder outside train, val"),
        ("train/1.png", "image outside the class folders"),
    }
    (line,) = caplog.messages
    assert line.startswith(f"Left out of {folder}: 2 system folders (__MACOSX, train/@eaDir), ")
    assert data.folds(2)[0].left_out == data.left_out


def test_one_class_only_is_refused(image_folder):
    with pytest.raises(UserError, match=r"only one class \(cat\); a classifier needs at least two"):
        load(image_folder({"cat": 3}))


def test_a_json_file_beside_one_folder_of_images_is_named(image_folder):
    folder = image_folder({"images": 3})
    (folder / "boxes.json").write_text("{")
    with pytest.raises(UserError, match=rf"If boxes\.json has boxes, name that file: {folder}/boxes\.json$"):
        load(folder)
    with pytest.raises(UserError, match=rf"{folder}/boxes\.json is damaged: it is not JSON"):
        load(folder / "boxes.json")


def test_an_empty_folder_is_refused_with_the_layout_that_is_wanted(tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match=r"nothing is empty\. Put images in one folder per class: nothing/cat/1\.jpg"):
        load(tmp_path / "nothing")


def test_an_empty_class_folder_is_named(image_folder):
    folder = image_folder({"cat": 3, "dog": 3, "emu": 0})
    with pytest.raises(UserError, match=r"class folders without images: emu\. Remove them or add images"):
        load(folder)


def test_loose_images_are_refused_with_the_layout_that_is_wanted(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"holds images but no class folders\. Put images in one folder per class"):
        load(tmp_path)


def test_a_missing_folder_a_file_and_a_typo_each_get_their_own_message(tmp_path):
    (tmp_path / "file.zip").touch()
    with pytest.raises(UserError, match="gone does not exist"):
        load(tmp_path / "gone")
    with pytest.raises(UserError, match="is a file; data is a folder of class folders"):
        load(tmp_path / "file.zip")
    with pytest.raises(UserError, match="Did you mean 'digits'"):
        load("digit")


# ------------------------------------------------------------------ bad files


@pytest.fixture
def folder_with_two_bad_files(image_folder):
    folder = image_folder({"cat": 10, "dog": 10})
    (folder / "cat" / "000.png").write_bytes(b"")
    (folder / "dog" / "list.jpg").write_text("milk, eggs\n")
    return folder


def test_bad_files_up_to_the_limit_are_skipped_listed_and_warned_of(folder_with_two_bad_files, caplog):
    with caplog.at_level(logging.WARNING, "keras_effnet"):
        dataset = load(folder_with_two_bad_files, max_bad_files=2)
    names = ["000.png", "list.jpg"]
    assert [item.path.rsplit("/", 1)[-1] for item in dataset.skipped] == names
    assert len(dataset.train) + len(dataset.val) == 19
    used = {*dataset.train.images, *dataset.val.images}
    assert not used & {item.path for item in dataset.skipped}
    assert "Skipped 2 of 21 images" in caplog.text and all(name in caplog.text for name in names)


def test_bad_files_beyond_the_limit_stop_with_their_names(folder_with_two_bad_files):
    with pytest.raises(UserError, match="2 of 21 images cannot be decoded, more than the 1 allowed") as caught:
        load(folder_with_two_bad_files, max_bad_files=1)
    message = str(caught.value)
    assert "000.png" in message and "list.jpg" in message and "--max-bad-files" in message
    assert "\n" not in message


def test_a_long_list_of_bad_files_is_cut(image_folder):
    folder = image_folder({"cat": 12, "dog": 3})
    for path in (folder / "cat").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError) as caught:
        load(folder)
    assert "12 of 15" in str(caught.value) and str(caught.value).endswith("; ...")


def test_a_class_that_loses_all_its_images_is_named(image_folder):
    folder = image_folder({"cat": 4, "dog": 1})
    (folder / "dog" / "000.png").write_bytes(b"")
    with pytest.raises(UserError, match="no usable image of class 'dog'"):
        load(folder)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_class_that_cannot_be_decoded_in_one_split_is_named_with_that_split(image_folder, split):
    folders = {name: image_folder({"cat": 3, "dog": 2}, root=f"photos/{name}") for name in ("train", "val", "test")}
    for path in (folders[split] / "dog").iterdir():
        path.write_bytes(b"")
    message = rf"photos: no usable image of class 'dog' for {split}: none of its 2 files.*--skip-empty-classes"
    with pytest.raises(UserError, match=message):
        load(folders["train"].parent)


def test_empty_classes_are_left_out_on_request_and_the_labels_move_up(image_folder, caplog):
    folders = {
        "train": image_folder({"ant": 3, "bee": 3, "cat": 0, "dog": 3, "emu": 3}, root="photos/train"),
        "val": image_folder({"ant": 2, "cat": 2, "dog": 2, "emu": 2}, root="photos/val"),
        "test": image_folder({"ant": 2, "bee": 2, "cat": 2, "dog": 0, "emu": 2}, root="photos/test"),
    }
    for path in (folders["train"] / "ant").iterdir():
        path.write_bytes(b"")
    with caplog.at_level(logging.WARNING, "keras_effnet"):
        data = load(folders["train"].parent, skip_empty_classes=True)
    assert data.class_names == ("dog", "emu") and data.origin["skip_empty_classes"] is True
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1] and data.val.labels.tolist() == [0, 0, 1, 1]
    assert data.test is not None and data.test.labels.tolist() == [1, 1]  # a class may be without test images
    assert all("/emu/" in path for path in data.test.paths) and len(data.skipped) == 3
    left_out = "Left out 3 of 5 classes, which are empty: ant, bee, cat; 13 images of theirs are not used."
    assert left_out in caplog.text
    again = load(**data.origin)
    assert again.class_names == data.class_names and again.train.images == data.train.images


def test_data_of_one_class_besides_empty_ones_is_refused(image_folder):
    with pytest.raises(UserError, match=r"images: fewer than two classes remain without the empty ones \(cat, dog\)"):
        load(image_folder({"cat": 0, "dog": 0, "emu": 3}), skip_empty_classes=True)


def test_the_check_can_be_left_out(folder_with_two_bad_files):
    assert load(folder_with_two_bad_files, max_bad_files=0, check=False).skipped == ()


# ------------------------------------------------------------------ origin


def test_the_origin_of_digits_loads_the_same_again():
    first = load("digits", seed=7)
    again = load(**first.origin)
    np.testing.assert_array_equal(first.train.images, again.train.images)
    np.testing.assert_array_equal(first.test.labels, again.test.labels)


def test_the_origin_of_cluttered_digits_holds_the_size(monkeypatch):
    monkeypatch.setattr(embedded, "clutter", lambda digits, count, size, seed: clutter(digits, 80, size, seed))
    first = load("digits-cluttered", seed=7, image_size=48)
    again = load(**first.origin)
    np.testing.assert_array_equal(first.train.images, again.train.images)
    assert again.train.images.shape[1] == 48


def test_the_origin_of_a_folder_holds_the_split_and_any_working_directory(image_folder, monkeypatch, tmp_path):
    folder = image_folder({"cat": 20, "dog": 20})
    monkeypatch.chdir(folder.parent)
    first = load(folder.name, seed=7, val_split=0.3, max_bad_files=3)
    monkeypatch.chdir("/")
    again = load(**first.origin)
    assert len(again.val) == 12
    assert [path.rsplit("/", 1)[-1] for path in first.val.images] == [p.rsplit("/", 1)[-1] for p in again.val.images]


# ------------------------------------------------------------------ real images


@pytest.mark.images
def test_the_ten_class_image_set_loads_whole(images_root):
    dataset = load(images_root / "tiny-imagenet-10")
    assert len(dataset.class_names) == 10 and dataset.skipped == ()
    assert np.bincount(dataset.train.labels).tolist() == [500] * 10
    assert np.bincount(dataset.val.labels).tolist() == [50] * 10
