"""Images with masks: layouts of folders, names of classes, unusable pairs, arrays and packs."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from keras_effnet.datasets import Masks, from_arrays
from keras_effnet.datasets.findings.data_identity import identity
from keras_effnet.datasets.loading import load
from keras_effnet.datasets.packing import pack
from keras_effnet.errors import UserError

SIZE = (6, 8)  # height, width


def mask_of(number: int) -> np.ndarray:
    """A mask with classes 0 to 2 and ignored pixels."""
    mask = np.zeros(SIZE, "uint8")
    mask[0, : 1 + number % 4] = 1
    mask[1] = 2
    mask[2, 0] = 255
    return mask


def write(images, masks, count=6, suffix="", extension="jpg", first=0):
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        Image.new("RGB", SIZE[::-1], (number, 0, 0)).save(images / f"{number}.{extension}")
        Image.fromarray(mask_of(number)).save(masks / f"{number}{suffix}.png")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "images", tmp_path / "masks")
    return tmp_path


@pytest.mark.parametrize(
    ("images", "masks", "suffix"),
    [
        ("images", "masks", ""),
        ("images", "masks", "_mask"),
        ("JPEGImages", "SegmentationClass", ""),
        ("train/images", "train/masks", ""),
        ("images/train", "masks/train", ""),
        ("train", "trainannot", "_L"),
    ],
)
def test_layouts_of_published_datasets_are_read(tmp_path, images, masks, suffix):
    write(tmp_path / images, tmp_path / masks, suffix=suffix)
    dataset = load(tmp_path, val_split=0.5)
    assert (dataset.task, dataset.class_names) == ("segmentation", ("0", "1", "2"))
    assert len(dataset.train) == len(dataset.val) == 3
    for part in (dataset.train, dataset.val):
        for place, path in enumerate(part.paths):
            number = int(path.rpartition("/")[2][:-4])
            np.testing.assert_array_equal(part.labels.read(place), mask_of(number))
    assert load(**dataset.origin).val.paths == dataset.val.paths


def test_splits_of_a_layout_are_kept_and_classes_have_the_names_of_the_list(tmp_path):
    write(tmp_path / "train/images", tmp_path / "train/masks")
    write(tmp_path / "valid/images", tmp_path / "valid/masks", count=2, first=6)
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\nbike\n")
    dataset = load(tmp_path)
    assert (len(dataset.train), len(dataset.val)) == (6, 2)
    assert dataset.class_names == ("sky", "road", "car", "bike")
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    with pytest.raises(UserError, match=r"\.png holds class 2, but .*classes.txt names 2 classes"):
        load(tmp_path)


def test_a_palette_keeps_its_class_numbers_and_black_and_white_are_two_classes(folder):
    palette = Image.fromarray(mask_of(1))
    palette = palette.convert("P")
    palette.putpalette([7, 8, 9] * 256)
    palette.putdata(mask_of(1).ravel().tolist())
    palette.save(folder / "masks/1.png")
    np.testing.assert_array_equal(Masks((str(folder / "masks/1.png"),)).read(0), mask_of(1))
    for path in (folder / "masks").iterdir():
        Image.fromarray(np.where(mask_of(0) == 1, 255, 0).astype("uint8")).save(path)
    dataset = load(folder)
    assert dataset.class_names == ("0", "1")
    np.testing.assert_array_equal(dataset.train.labels.read(0), mask_of(0) == 1)


def test_unusable_masks_are_skipped_by_name_and_too_many_are_refused(folder, caplog):
    (folder / "masks/0.png").unlink()
    (folder / "masks/1.png").write_bytes(b"no mask")
    Image.new("L", (3, 3)).save(folder / "masks/2.png")
    Image.new("RGB", SIZE[::-1]).save(folder / "masks/3.png")
    reasons = [item.reason for item in load(folder, val_split=0.5).skipped]
    assert "no mask" in reasons[0] and "is not a mask that can be decoded" in reasons[1]
    assert "a mask of 3 x 3 pixels for an image of 8 x 6" in reasons[2] and "holds colours (RGB)" in reasons[3]
    assert "Skipped 4 of 6 images that cannot be used" in caplog.text
    with pytest.raises(UserError, match="4 of 6 images cannot be used, more than the 3 allowed"):
        load(folder, max_bad_files=3)


def test_black_and_white_masks_with_a_few_grey_pixels_are_warned_of(tmp_path, caplog):
    write(tmp_path / "images", tmp_path / "masks")
    for number, mask in enumerate(sorted((tmp_path / "masks").iterdir())):
        values = np.zeros(SIZE, "uint8")
        values[3:] = 255
        values[0, 0] = 7 * (number == 4)
        Image.fromarray(values).save(mask)
    dataset = load(tmp_path)
    assert len(dataset.class_names) == 8
    assert re.search(r"black and white but for 1 of 288 pixels \(first in \S*4\.png: 7\), so their white", caplog.text)
    caplog.clear()
    masks = np.stack([dataset.train.labels.read(0)] * 4)
    masks[2, 0, 0] = 1
    from_arrays(np.zeros((4, *SIZE, 3), "uint8"), masks)
    assert "for 1 of 192 pixels (first in train[2]: 1)" in caplog.text
    caplog.clear()
    from_arrays(np.zeros((4, *SIZE, 3), "uint8"), np.stack([mask_of(place) for place in range(4)]))
    assert not caplog.text


def test_masks_without_a_pixel_of_a_class_are_called_void_whatever_names_are_given(tmp_path):
    write(tmp_path / "images/train", tmp_path / "masks/train")
    write(tmp_path / "images/val", tmp_path / "masks/val", count=2)
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    for mask in (tmp_path / "masks/val").iterdir():
        Image.new("L", SIZE[::-1], 255).save(mask)
    with pytest.raises(UserError, match=r"all pixels of the val masks are void \(255\), so there is no class\. Save"):
        load(tmp_path)
    with pytest.raises(UserError, match=r"arrays: all pixels of the train masks are void"):
        from_arrays(np.zeros((4, *SIZE, 3), "uint8"), np.full((4, *SIZE), 255), ["a", "b"])


def test_a_list_names_images_and_masks(folder):
    rows = [f"images/{number}.jpg,masks/{number}.png" for number in range(6)]
    (folder / "manifest.csv").write_text("\n".join(["path,mask", *rows]))
    assert load(folder).task == "segmentation"
    (folder / "manifest.csv").write_text("\n".join(["path,mask", *rows[:-1], "images/5.jpg,masks/none.png"]))
    with pytest.raises(UserError, match=r"line 7: .*none.png does not exist"):
        load(folder)
    (folder / "manifest.csv").write_text("\n".join(["path,mask", *rows, rows[0]]))
    with pytest.raises(UserError, match=r"line 8: .*is already listed on line 2"):
        load(folder)


def test_a_pack_holds_the_masks_at_the_size_of_its_images(folder, tmp_path):
    pack(folder, tmp_path / "pack")
    source, packed = load(folder, val_split=0.5), load(tmp_path / "pack", val_split=0.5)
    assert packed.task == "segmentation" and packed.class_names == source.class_names
    expected = {mask.tobytes() for mask in map(source.val.labels.read, range(3))}
    assert {packed.val.labels.read(place).tobytes() for place in range(3)} == expected
    for number in range(6):
        Image.new("RGB", (64, 48)).save(folder / f"images/{number}.jpg")
        Image.fromarray(mask_of(number)).resize((64, 48), Image.Resampling.NEAREST).save(folder / f"masks/{number}.png")
    pack(folder, tmp_path / "small", size=10)
    small = load(tmp_path / "small", val_split=0.5)
    assert next(iter(small.val.decoded())).shape[:2] == small.val.labels.read(0).shape == (12, 16)
    assert set(np.unique(small.val.labels.read(0))) <= {0, 1, 2, 255}


def test_changed_masks_are_other_data():
    masks = np.stack([mask_of(number) for number in range(4)])
    images = np.zeros((4, *SIZE, 3), "uint8")
    before = identity(from_arrays(images, masks, val_split=0.5))
    masks[0, 5, 5] = 1
    assert identity(from_arrays(images, masks, val_split=0.5))["labels"] != before["labels"]
