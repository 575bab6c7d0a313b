"""Checks of a data set: planted faults are found and located, and sound data has none."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from keras_effnet.datasets.checking import check_data
from keras_effnet.datasets.findings.fingerprints import Fingerprint, fingerprint, group_duplicates
from keras_effnet.datasets.splits import ImageDataset, Split


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def clean(tmp_path, smooth_images):
    """Six training, three validation images of two classes, all different, 80 pixels square."""
    images = iter(smooth_images(18, 80, seed=3))
    for split, count in (("train", 6), ("val", 3)):
        for name in ("cat", "dog"):
            for number in range(count):
                write(tmp_path / "data" / split / name / f"{number}.png", next(images))
    return tmp_path / "data"


def names(group, root):
    return sorted(member.name.removeprefix(f"{root}/") for member in group.members)


def test_sound_data_has_nothing_to_find(clean):
    report = check_data(clean, image_size=80)
    assert report.groups == () and report.unreadable == ()
    assert report.counts == {"train": (6, 6), "val": (3, 3)}
    assert report.checked == report.total == 18
    assert report.leaked == {"val": 0} and report.imbalance == 1 and set(report.class_weights.values()) == {1.0}
    assert report.modes == {"PNG RGB": 18}


def test_a_copied_file_in_validation_is_an_exact_leak(clean):
    shutil.copy(clean / "train/cat/2.png", clean / "val/cat/again.png")
    report = check_data(clean)
    (group,) = report.leaks
    assert group.exact and not group.contradicts
    assert names(group, clean) == ["train/cat/2.png", "val/cat/again.png"]
    assert report.leaked == {"val": 1}


def test_a_test_set_leaks_into_validation_too(smooth_images):
    images = smooth_images(12, 32)
    parts = [Split(images[start : start + 4], np.array([0, 1, 0, 1], "int32")) for start in (0, 4, 7)]
    report = check_data(ImageDataset("arrays", ("a", "b"), *parts))  # the last of val is the first of test
    assert report.leaked == {"val": 0, "test": 1}


CHANGES = {
    "recompressed": lambda image: (image, {"quality": 30}),
    "halved": lambda image: (image.resize((40, 40), Image.Resampling.LANCZOS), {"quality": 90}),
    "enlarged": lambda image: (image.resize((200, 190), Image.Resampling.BICUBIC), {"quality": 90}),
    "a little darker": lambda image: (ImageEnhance.Brightness(image).enhance(0.96), {"quality": 90}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_a_near_leak(clean, change):
    with Image.open(clean / "train/dog/4.png") as image:
        changed, options = CHANGES[change](image)
        changed.save(clean / "val/dog/again.jpg", **options)
    (group,) = check_data(clean).leaks
    assert not group.exact and names(group, clean) == ["train/dog/4.png", "val/dog/again.jpg"]
    assert check_data(clean, near_duplicates=False).groups == ()


def test_the_same_image_under_two_classes_contradicts(clean):
    shutil.copy(clean / "train/cat/0.png", clean / "train/dog/also.png")
    report = check_data(clean)
    assert [names(group, clean) for group in report.contradictions] == [["train/cat/0.png", "train/dog/also.png"]]
    assert report.leaks == ()


def test_unreadable_files_are_listed_and_counted_apart(clean):
    (clean / "train/cat/torn.png").write_bytes((clean / "train/cat/0.png").read_bytes()[:200])
    report = check_data(clean)
    (bad,) = report.unreadable
    assert bad.path.endswith("train/cat/torn.png") and bad.reason
    assert report.counts["train"] == (6, 6) and report.checked == report.total == 19


def test_flat_images_of_different_colours_are_not_the_same():
    flats = [fingerprint(np.full((50, 50, 3), level, "uint8")) for level in (20, 60, 100, 140, 180, 220)]
    assert len({item.hash for item in flats}) == 1  # the hash alone cannot tell them apart
    assert group_duplicates(flats) == []


def test_dark_images_of_different_things_are_not_the_same(smooth_images):
    dark = [fingerprint((image // 32).astype("uint8")) for image in smooth_images(12, 64, seed=5)]
    assert group_duplicates(dark) == []


def test_twins_are_found_across_the_tiles_of_the_table():
    rng = np.random.default_rng(0)
    count = 6000  # more than the tiles' sides
    hashes = rng.integers(0, 2**63, count, dtype=np.uint64)
    blank = np.zeros((16, 16, 3), "uint8")
    planted = [(0, 5999), (511, 512), (3, 4097), (700, 4800), (5000, 5001)]
    for number, (one, other) in enumerate(planted):
        hashes[other] = hashes[one] ^ np.uint64((1 << (number + 2)) - 1)  # 2, 3, 4, 5, 6 bits apart
    hashes[90] = hashes[80] ^ np.uint64(0b1111111)  # 7
    prints = [Fingerprint(index.to_bytes(4), int(code), blank, 9, 9, "") for index, code in enumerate(hashes)]
    # Independent: every pair, by Python's own count of bits.
    assert [int(hashes[a] ^ hashes[b]).bit_count() for a, b in planted] == [2, 3, 4, 5, 6]
    assert group_duplicates(prints) == sorted(map(list, planted))


def test_many_equal_images_are_one_group_and_take_no_table():
    same = fingerprint(np.zeros((9, 9, 3), "uint8"))
    began = time.process_time()
    assert group_duplicates([same] * 50_000) == [list(range(50_000))]
    assert time.process_time() - began < 10


def test_lopsided_classes_get_the_weights_that_balance_them(clean):
    for number in range(4):
        (clean / f"train/dog/{number}.png").unlink()
    report = check_data(clean)
    assert report.counts["train"] == (6, 2) and report.imbalance == 3
    assert report.class_weights == {0: pytest.approx(8 / 12, abs=1e-4), 1: pytest.approx(2.0)}


def test_sizes_are_smallest_median_and_largest(clean, smooth_images):
    write(clean / "train/cat/wide.png", smooth_images(1, 200, seed=8)[0][:20])
    sizes = check_data(clean, image_size=96).sizes
    assert sizes.width == (80, 80, 200) and sizes.height == (20, 80, 80) and sizes.aspect == (1, 1, 10)
    assert (sizes.tiny, sizes.below) == (1, 19)


def test_arrays_are_looked_at_as_files_are(smooth_images):
    images = smooth_images(8, 24, seed=2)
    images[7] = images[1]
    labels = np.array([0, 1, 0, 1], "int32")
    report = check_data(ImageDataset("arrays", ("a", "b"), Split(images[:4], labels), Split(images[4:], labels)))
    (group,) = report.groups
    assert [member.name for member in group.members] == ["train[1]", "val[3]"] and group.exact


def test_a_sample_says_that_it_is_one(clean):
    report = check_data(clean, max_images=9)
    assert report.checked == 9 and report.total == 18


def test_the_command_writes_its_report_and_is_strict_when_asked(cli, clean):
    done = cli("check-data", clean, "--image-size", 80)
    assert done.status == 0 and "Result:" in done.out and "keras-effnet train" in done.out
    shutil.copy(clean / "train/cat/2.png", clean / "val/dog/again.png")
    done = cli("check-data", clean, "--out", "found", "--json")
    written = json.loads(done.out)
    folder = clean.parent / written["run"]
    assert done.status == 0 and written["leaked"] == {"val": 1} and written["groups"][0]["contradicts"]
    kept = {path.name for path in folder.iterdir()}
    assert {"report.md", "report.json", "classes.png", "images.png", "copies.png"} <= kept
    text = (folder / "report.md").read_text()
    assert "## Leaks" in text and "val/dog/again.png" in text
    strict = cli("check-data", clean, "--strict")
    assert strict.status == 3 and "1 held-out images" in strict.err


@pytest.mark.images
def test_real_images_have_no_leak(images_root):
    report = check_data(images_root / "tiny-imagenet-10", max_images=600, image_size=64)
    assert report.unreadable == () and report.leaks == () and report.sizes.width == (64, 64, 64)
