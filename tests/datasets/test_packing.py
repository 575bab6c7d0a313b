"""`keras-effnet pack`, and TFRecord shards written here and elsewhere: complete and unchanged, or absent."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_effnet.datasets.loading import load
from keras_effnet.datasets.packing import pack
from keras_effnet.datasets.stratification import stratified_shuffle
from keras_effnet.datasets.tfrecord import writer as shard_writer
from keras_effnet.datasets.tfrecord.stored_images import shrink
from keras_effnet.errors import UserError


@pytest.fixture
def images(tmp_path):
    """A folder of 36 images, three classes, every one different, at several sizes and formats."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("ant", "bee", "cat")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(12):
            height, width = 20 + 4 * number, 30 + label
            image = Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype("uint8"))
            image.save(tmp_path / "images" / name / f"{number:02d}{('.png', '.jpg')[number % 2]}")
    return tmp_path / "images"


def encoded(split) -> list[tuple[bytes, int]]:
    """Bytes with labels: of a stream in its order."""
    if isinstance(split.images, tuple):
        contents = [Path(path).read_bytes() for path in split.images]
    else:
        contents = list(split.images.read().as_numpy_iterator())
    return list(zip(contents, split.labels.tolist(), strict=True))


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


# ------------------------------------------------------------------ what goes in comes out


@pytest.mark.parametrize("seed", [0, 3])
def test_packed_images_have_the_classes_labels_bytes_and_division_of_their_source(images, tmp_path, seed):
    pack(images, tmp_path / "packed")
    source, packed = (load(folder, seed=seed, val_split=0.25) for folder in (images, tmp_path / "packed"))
    assert packed.class_names == source.class_names == ("ant", "bee", "cat") and packed.name == "images"
    assert len(packed.val) == 9 and packed.test is None
    cut = [load(folder, seed=seed, test_split=0.25) for folder in (images, tmp_path / "packed")]
    assert sorted(encoded(cut[0].test)) == sorted(encoded(cut[1].test)) and len(cut[0].test) == 9
    for part in ("train", "val"):
        assert sorted(encoded(getattr(packed, part))) == sorted(encoded(getattr(source, part)))


def test_a_pack_of_a_pack_is_divided_as_the_first_source_is(images, tmp_path):
    pack(images, tmp_path / "once", shards=2)
    pack(tmp_path / "once", tmp_path / "twice", seed=5)
    assert sorted(encoded(load(tmp_path / "twice").val)) == sorted(encoded(load(images).val))


def test_the_parts_of_a_source_stay_its_parts(image_folder, tmp_path):
    image_folder({"cat": 6, "dog": 4}, root="set/train")
    image_folder({"cat": 2, "dog": 1}, root="set/val")
    folder = image_folder({"cat": 1, "dog": 3}, root="set/test").parent
    pack(folder, tmp_path / "packed")
    dataset = load(tmp_path / "packed")
    assert [np.bincount(part.labels).tolist() for part in (dataset.train, dataset.val, dataset.test)] == [
        [6, 4],
        [2, 1],
        [1, 3],
    ]
    assert dataset.train.mirror


def test_digits_are_packed_without_loss_and_never_to_be_mirrored(tmp_path, digits):
    pack("digits", tmp_path / "packed")
    packed = load(tmp_path / "packed")
    assert not packed.test.mirror and packed.class_names == digits.class_names
    seen = {image.tobytes(): int(label) for image, label in zip(packed.test.decoded(), packed.test.labels, strict=True)}
    assert seen == {image.tobytes(): int(n) for image, n in zip(digits.test.images, digits.test.labels, strict=True)}


def test_other_programs_find_the_usual_features(images, tmp_path):
    pack(images, tmp_path / "packed")
    record = next(iter(tf.data.TFRecordDataset(str(tmp_path / "packed/train-00000.tfrecord")).as_numpy_iterator()))
    feature = tf.train.Example.FromString(record).features.feature
    label = feature["image/class/label"].int64_list.value[0]
    text = feature["image/class/text"].bytes_list.value[0].decode()
    name = feature["image/filename"].bytes_list.value[0].decode()
    assert text == ("ant", "bee", "cat")[label]
    assert feature["image/encoded"].bytes_list.value[0] == (images / text / name).read_bytes()


def test_shards_are_many_if_asked_and_each_holds_its_share_of_every_class(images, tmp_path):
    packed = pack(images, tmp_path / "packed", shards=3)
    index = json.loads((tmp_path / "packed/index.json").read_text())
    assert packed.shards == 3 and [shard["count"] for shard in index["splits"]["train"]] == [12, 12, 12]
    with np.load(tmp_path / "packed/records.npz") as records:
        labels = records["train_labels"].reshape(3, 12)
    for shard in labels:
        assert np.abs(np.bincount(shard, minlength=3) - 4).max() <= 1


def test_a_shard_ends_when_it_has_enough_bytes(images, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_writer, "SHARD_BYTES", 30_000)
    packed = pack(images, tmp_path / "packed")
    index = json.loads((tmp_path / "packed/index.json").read_text())
    sizes = [shard["bytes"] for shard in index["splits"]["train"]]
    assert packed.shards == len(sizes) > 1 and packed.bytes == sum(sizes)
    assert all(30_000 <= size < 50_000 for size in sizes[:-1])
    assert sorted(encoded(load(tmp_path / "packed").val)) == sorted(encoded(load(images).val))


def test_a_mixed_order_is_seeded_and_spreads_every_class_evenly():
    labels = np.repeat([0, 1], [90, 30])
    order = stratified_shuffle(labels, seed=0)
    assert sorted(order) == list(range(120))
    assert order.tolist() != stratified_shuffle(labels, seed=1).tolist()
    assert np.abs(labels[order].reshape(6, 20).sum(axis=1) - 5).max() <= 1


# ------------------------------------------------------------------ shrinking


def test_only_what_is_larger_than_training_needs_is_shrunk(images, tmp_path):
    packed = pack(images, tmp_path / "packed", size=24)
    source = {contents for folder in "abc" for contents, _ in encoded(load(images).train) + encoded(load(images).val)}
    dataset = load(tmp_path / "packed")
    kept = 0
    for contents, _ in encoded(dataset.train) + encoded(dataset.val):
        image = Image.open(io.BytesIO(contents))
        assert min(image.size) <= 28  # round(1.15 * 24)
        if contents in source:
            kept += 1
        else:
            assert image.format == "JPEG" and min(image.size) == 28
    # The narrower sides are 20, 24, 28 and, from there on, the width of 30 to 32.
    assert kept == 9 and packed.shrunk == 27


def test_a_shrunk_image_is_antialiased_and_keeps_its_shape():
    stripes = np.zeros((120, 200, 3), "uint8")
    stripes[:, ::2] = 255
    buffer = io.BytesIO()
    Image.fromarray(stripes).save(buffer, "PNG")
    contents, changed = shrink(buffer.getvalue(), stripes, 48)
    small = np.asarray(Image.open(io.BytesIO(contents)))
    assert changed and small.shape == (48, 80, 3)
    # Stripes of one pixel blur to their mean; taking every so manieth pixel would leave black and white.
    assert np.abs(small[4:-4, 4:-4].astype(int) - 127).max() < 20
    assert shrink(buffer.getvalue(), stripes, 120) == (buffer.getvalue(), False)


# ------------------------------------------------------------------ faults


def test_bad_images_are_left_out_counted_and_listed(images, tmp_path):
    (images / "ant/00.png").write_bytes(b"no image")
    (images / "bee/01.jpg").write_bytes(b"")
    packed = pack(images, tmp_path / "packed")
    assert packed.images == 34 and len(packed.skipped) == 2
    dataset = load(tmp_path / "packed")
    assert sorted(Path(item.path).name for item in dataset.skipped) == ["00.png", "01.jpg"]
    assert all(item.reason for item in dataset.skipped)
    assert sorted(encoded(dataset.val)) == sorted(encoded(load(images).val))


def test_too_many_bad_images_leave_nothing_behind(images, tmp_path):
    (images / "ant/00.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1 of 36 images cannot be decoded, more than the 0 allowed.*00\.png"):
        pack(images, tmp_path / "packed", max_bad_files=0)
    assert not (tmp_path / "packed").exists()


def test_a_class_that_cannot_be_decoded_is_not_packed(images, tmp_path):
    bees = [*(images / "bee").iterdir()]
    for path in bees:
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match="no usable image of class 'bee' for train: none of its"):
        pack(images, tmp_path / "packed", max_bad_files=len(bees))
    assert not (tmp_path / "packed").exists()
    packed = pack(images, tmp_path / "packed", max_bad_files=len(bees), skip_empty_classes=True)
    dataset = load(tmp_path / "packed")
    assert "bee" not in dataset.class_names and packed.classes == len(dataset.class_names)
    assert len(packed.skipped) == len(bees)
    wanted = load(images, max_bad_files=len(bees), skip_empty_classes=True)
    assert dataset.class_names == wanted.class_names and sorted(encoded(dataset.val)) == sorted(encoded(wanted.val))


def failing_writer(monkeypatch, error, after: int):
    """The writer raises at the `after`th record."""
    write, calls = shard_writer.ShardWriter.write, []

    def fail(self, record):
        calls.append(record)
        if len(calls) > after:
            raise error
        write(self, record)

    monkeypatch.setattr(shard_writer.ShardWriter, "write", fail)


DISK_FULL = (
    OSError(errno.ENOSPC, "No space left on device"),
    tf.errors.ResourceExhaustedError(None, None, "x.tfrecord; No space left on device"),
)


@pytest.mark.parametrize("error", DISK_FULL, ids=["python", "tensorflow"])
def test_a_full_disk_is_named_and_leaves_nothing_behind(images, tmp_path, monkeypatch, error):
    failing_writer(monkeypatch, error, after=9)
    with pytest.raises(UserError, match=r"disk of .*packed is full after 9 of 36 images .* all of it was removed"):
        pack(images, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("surprise")], ids=repr)
def test_an_interruption_leaves_an_earlier_pack_as_it_was(images, tmp_path, monkeypatch, error):
    pack(images, tmp_path / "packed", shards=2)
    before = {path.name: path.read_bytes() for path in (tmp_path / "packed").iterdir()}
    failing_writer(monkeypatch, error, after=9)
    with pytest.raises(type(error)):
        pack(images, tmp_path / "packed", overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "packed").iterdir()} == before


def test_a_fault_while_files_are_moved_leaves_no_shards_without_an_index(images, tmp_path, monkeypatch):
    (tmp_path / "packed").mkdir()
    replace, moved = shard_writer.Path.replace, []

    def fail(self, target):
        if self.name == "index.json":
            raise OSError(errno.EIO, "Input/output error")
        moved.append(self.name)
        return replace(self, target)

    monkeypatch.setattr(shard_writer.Path, "replace", fail)
    with pytest.raises(UserError, match=r"Cannot write .*packed: Input/output error"):
        pack(images, tmp_path / "packed")
    assert moved == ["records.npz", "train-00000.tfrecord"]  # the index is last: what has one is whole
    assert names(tmp_path / "packed") == []


def killed_while_writing(out):
    (out / ".partial").mkdir(parents=True)
    (out / ".partial/train-00000.tfrecord").write_bytes(b"half of a rec")


def killed_while_moving(out):
    pack(out.parent / "images", out, shards=4)
    (out / ".partial").mkdir()
    (out / "index.json").rename(out / ".partial/index.json")


@pytest.mark.parametrize("killed", [killed_while_writing, killed_while_moving])
def test_after_a_kill_nothing_is_read_and_the_next_run_starts_over(images, tmp_path, killed):
    out = tmp_path / "packed"
    killed(out)
    with pytest.raises(UserError, match="was not completed; run `keras-effnet pack DATA"):
        load(out)
    pack(images, out)
    assert names(out) == ["index.json", "records.npz", "train-00000.tfrecord"]
    assert len(load(out).train) + len(load(out).val) == 36


def test_an_earlier_pack_is_replaced_only_if_asked(images, tmp_path):
    out = tmp_path / "packed"
    pack(images, out, shards=3)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"already holds packed images\. Replace them with --overwrite"):
        pack(images, out)
    pack(images, out, overwrite=True)
    assert names(out) == ["index.json", "notes.txt", "records.npz", "train-00000.tfrecord"]


def test_a_folder_of_other_things_is_never_replaced(images, tmp_path):
    for overwrite in (False, True):
        with pytest.raises(UserError, match="is not empty and not a packed folder"):
            pack(images, images, overwrite=overwrite)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file; shards are written to a folder"):
        pack(images, tmp_path / "file")


def test_an_index_from_elsewhere_cannot_remove_files_of_other_folders(images, tmp_path):
    out = tmp_path / "packed"
    pack(images, out)
    (tmp_path / "precious.txt").write_text("mine")
    index = json.loads((out / "index.json").read_text())
    index["splits"]["train"].append({"file": "../precious.txt", "count": 0, "bytes": 4})
    (out / "index.json").write_text(json.dumps(index))
    pack(images, out, overwrite=True)
    assert (tmp_path / "precious.txt").exists()


def test_damage_to_packed_images_is_found_before_they_are_read(images, tmp_path):
    pack(images, tmp_path / "whole", shards=2)

    def damaged(change):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(tmp_path / "whole", tmp_path / "copy")
        change(tmp_path / "copy")
        with pytest.raises(UserError) as caught:
            load(tmp_path / "copy")
        return str(caught.value)

    assert "train-00001.tfrecord is missing" in damaged(lambda folder: (folder / "train-00001.tfrecord").unlink())
    assert "has 3 bytes where" in damaged(lambda folder: (folder / "train-00000.tfrecord").write_bytes(b"abc"))
    assert "is damaged" in damaged(lambda folder: (folder / "records.npz").write_bytes(b"abc"))
    assert "is damaged" in damaged(lambda folder: (folder / "records.npz").unlink())
    later = json.dumps(json.loads((tmp_path / "whole/index.json").read_text()) | {"version": 2})
    assert "later version" in damaged(lambda folder: (folder / "index.json").write_text(later))


@pytest.mark.parametrize(("option", "value"), [("size", 2), ("shards", 0)])
def test_senseless_numbers_are_refused(images, tmp_path, option, value):
    with pytest.raises(UserError, match=f"{option} must be at least"):
        pack(images, tmp_path / "packed", **{option: value})


SMALL_DISK = """
mount -t tmpfs -o size=60k none "$0" && "$1" -m keras_effnet pack "$2" "$0/packed"
code=$?
ls -A "$0"
exit $code
"""


@pytest.mark.slow  # starts TensorFlow anew
def test_a_small_disk_that_runs_full_gives_one_line_and_stays_empty(images, tmp_path):
    (tmp_path / "disk").mkdir()
    private = ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*private, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    done = subprocess.run(
        [*private, "sh", "-c", SMALL_DISK, str(tmp_path / "disk"), sys.executable, str(images)],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stdout == ""
    error = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(error) == 1 and "packed is full after" in error[0] and "Free some space" in error[0]


# ------------------------------------------------------------------ the command


def test_the_command_packs_and_says_what_to_type_next(cli, images, tmp_path):
    (images / "cat/00.png").write_bytes(b"no image")
    shown = cli("pack", images, "my packed", "--size", 24, "--shards", 2)
    assert shown.status == 0
    lines = shown.out.strip().splitlines()
    assert lines[0] == "35 images of 3 classes, 27 downscaled, 1 skipped (listed in index.json)."
    assert lines[1].startswith("Result: my packed (2 shards, 0.") and lines[1].endswith(" MB)")
    assert lines[2] == "Next:   keras-effnet train 'my packed' --image-size 24"
    again = cli("pack", images, "my packed")
    assert again.status == 2 and "--overwrite" in again.err
    as_json = json.loads(cli("pack", images, "my packed", "--overwrite", "--json").out)
    assert as_json["changes"] is None
    assert as_json["images"] == 35 and [Path(path).name for path in as_json["skipped"]] == ["00.png"]
    (images / "cat/00.png").unlink()
    assert (
        "The data have changed since the pack that was replaced: class 'cat' had 12 train, now 11 train.\n"
        in cli("pack", images, "my packed", "--overwrite").out
    )


# ------------------------------------------------------------------ shards of others


def example(**features) -> bytes:
    def feature(value):
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    named = {name.replace("__", "/"): feature(value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString()


def write_records(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def png(grey: int) -> bytes:
    return tf.io.encode_png(np.full((4, 5, 3), grey, "uint8")).numpy()


def of_class(label: int, grey: int, **more) -> bytes:
    return example(image__encoded=png(grey), image__class__label=label, **more)


def test_shards_of_others_are_scanned_for_their_labels(tmp_path):
    folder = tmp_path / "shards"
    for shard in range(2):
        write_records(folder / f"train-{shard:05d}-of-00002", [of_class(1 + n % 3, 10 * shard + n) for n in range(6)])
    write_records(folder / "validation-00000-of-00001", [of_class(1 + n % 3, 100 + n) for n in range(3)])
    dataset = load(folder)
    assert dataset.class_names == ("1", "2", "3") and dataset.test is None
    greys = [int(image[0, 0, 0]) for image in dataset.train.decoded()]
    assert greys == [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15]
    assert dataset.train.labels.tolist() == [0, 1, 2] * 4
    assert dataset.val.labels.tolist() == [0, 1, 2]
    assert load(**dataset.origin).train.labels.tolist() == dataset.train.labels.tolist()


def test_the_classes_of_shards_have_the_names_in_them_or_beside_them(tmp_path):
    words = (b"crane", b"crane", b"dog")
    write_records(
        tmp_path / "shards/all.tfrecord", [of_class(n % 3, n, image__class__text=words[n % 3]) for n in range(12)]
    )
    assert load(tmp_path / "shards").class_names == ("crane (0)", "crane (1)", "dog")
    (tmp_path / "shards/labels.txt").write_text("bird\nmachine\ndog\n")
    assert load(tmp_path / "shards").class_names == ("bird", "machine", "dog")


def test_bad_images_in_shards_are_left_out(tmp_path):
    records = [of_class(n % 2, n) for n in range(10)]
    records[3] = example(image__encoded=b"no image", image__class__label=1, image__filename=b"odd.jpg")
    write_records(tmp_path / "shards/a.tfrecord", records[:2])
    write_records(tmp_path / "shards/b.tfrecord", records[2:])
    dataset = load(tmp_path / "shards")
    assert [item.path for item in dataset.skipped] == [f"{tmp_path}/shards/b.tfrecord: odd.jpg"]
    seen = {}
    for part in (dataset.train, dataset.val):
        seen |= {int(image[0, 0, 0]): int(n) for image, n in zip(part.decoded(), part.labels, strict=True)}
    assert seen == {n: n % 2 for n in range(10) if n != 3}
    with pytest.raises(UserError, match="1 of 10 images cannot be decoded"):
        load(tmp_path / "shards", max_bad_files=0)


def test_a_class_that_cannot_be_decoded_in_shards_is_refused_or_left_out(tmp_path):
    bad = [example(image__encoded=b"no image", image__class__label=1, image__filename=b"odd.jpg")] * 2
    write_records(tmp_path / "shards/a.tfrecord", [*bad, *(of_class(2 * (n % 2), n) for n in range(8))])
    with pytest.raises(UserError, match="no usable image of class '1' for train: none of its 2 files"):
        load(tmp_path / "shards")
    data = load(tmp_path / "shards", skip_empty_classes=True)
    assert data.class_names == ("0", "2") and sorted({*data.train.labels, *data.val.labels}) == [0, 1]


def test_a_test_set_that_keeps_its_labels_secret_is_left_out(tmp_path):
    write_records(tmp_path / "shards/train.tfrecord", [of_class(n % 2, n) for n in range(10)])
    write_records(tmp_path / "shards/test.tfrecord", [of_class(-1, n) for n in range(4)])
    assert load(tmp_path / "shards").test is None


def test_other_records_are_refused_with_what_they_hold(tmp_path):
    folder = tmp_path / "shards"
    write_records(folder / "a.tfrecord", [example(image=png(0), label=1)])
    with pytest.raises(
        UserError, match=r"has no image/encoded with image/class/label; its records hold image, label\."
    ):
        load(folder)
    write_records(folder / "a.tfrecord", [of_class(0, 1), of_class(-1, 1)])
    with pytest.raises(UserError, match="the train records hold images without a label"):
        load(folder)
    write_records(folder / "a.tfrecord", [])
    with pytest.raises(UserError, match="the train records hold no images"):
        load(folder)
    write_records(folder / "a.tfrecord", [of_class(0, n) for n in range(9)])
    with pytest.raises(UserError, match=r"only one class \(0\)"):
        load(folder)
    (folder / "a.tfrecord").write_bytes((folder / "a.tfrecord").read_bytes()[:-5])
    with pytest.raises(UserError, match=r"a\.tfrecord cannot be read as TFRecords of images"):
        load(folder)


def test_shards_of_others_can_be_packed(tmp_path):
    write_records(tmp_path / "shards/all.tfrecord", [of_class(n % 2, n) for n in range(20)])
    pack(tmp_path / "shards", tmp_path / "packed")
    assert encoded(load(tmp_path / "packed").val) == encoded(load(tmp_path / "shards").val)
