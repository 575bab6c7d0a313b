"""Damaged images: the pipeline decodes all that the check accepts, without a crash, a hang or unbounded memory.

Run as a script this file is the child process that reads the damaged images, so that a crash of a decoder in C is a
failed test and not the end of the tests.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from image_files import HEIGHT, WIDTH, image_files, png_chunk
from PIL import Image

from keras_effnet.system.machine import peak_resident_bytes

SEED = 20260117
BY_PILLOW = ("tiff", "avif", "jpeg2000", "ppm", "heif")
FORMATS = ("jpeg", "png", "gif", "bmp", "webp", *BY_PILLOW)


def originals() -> dict[str, bytes]:
    """Kind, of which the first word is the format, -> a sound file: all that TensorFlow decodes, some by Pillow."""
    files = image_files()
    first = {kind.split()[0]: kind for kind in reversed(files)}
    return {
        kind: content
        for kind, content in files.items()
        if kind.split()[0] not in BY_PILLOW or kind in (first[kind.split()[0]], "tiff turned")
    }


def originals_by_pillow() -> dict[str, bytes]:
    """All kinds of the formats that Pillow alone decodes."""
    return {kind: content for kind, content in image_files().items() if kind.split()[0] in BY_PILLOW}


# --- damage: functions from bytes, a random generator, the format and another file to bytes


def _flip(data, rng, *_):
    for _ in range(rng.choice((1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _overwrite(data, rng, *_):
    data[rng.randrange(len(data))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    return data


def _overwrite_head(data, rng, *_):
    data[rng.randrange(min(len(data), 64))] = rng.randrange(256)
    return data


def _truncate(data, rng, *_):
    return data[: rng.randrange(len(data))]


def _insert(data, rng, *_):
    place = rng.randrange(len(data))
    return data[:place] + rng.randbytes(rng.randrange(1, 40)) + data[place:]


def _delete(data, rng, *_):
    place = rng.randrange(len(data))
    return data[:place] + data[place + rng.randrange(1, 40) :]


def _swap(data, rng, *_):
    length = rng.randrange(1, max(2, len(data) // 4))
    first, second = sorted(rng.randrange(len(data)) for _ in range(2))
    one, two = data[first : first + length], data[second : second + length]
    data[second : second + length], data[first : first + length] = one, two
    return data


def _duplicate(data, rng, *_):
    start, place = rng.randrange(len(data)), rng.randrange(len(data))
    return data[:place] + data[start : start + rng.randrange(1, 200)] + data[place:]


def _resize_header(data, rng, kind, _):
    """Other dimensions in the header, from zero to far beyond any memory."""
    if kind == "ppm":
        return bytearray(re.sub(rb"4[08]", lambda _: b"%d" % rng.choice((0, 1, 47, 4000, 10**9)), data, count=2))
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    width = re.search(rb"\0\x01[\3\4]\0\x01\0{3}", data)  # the entry of a TIFF; that of the height follows
    place, form = {
        "tiff": (width.end() if width else 0, "<I"),
        "avif": (data.find(b"ispe") + 8, ">I"),
        "heif": (data.find(b"ispe") + 8, ">I"),
        "jpeg2000": (data.find(b"\xff\x51") + 6, ">I"),
        "jpeg": (frame + 5, ">H"),
        "png": (16, ">I"),
        "gif": (6, "<H"),
        "bmp": (18, "<I"),
        "webp": (24 if data[12:16] == b"VP8X" else 26, "<H"),
    }[kind]
    size, step = struct.calcsize(form), 12 if kind == "tiff" else struct.calcsize(form)
    sides = (0, 1, WIDTH - 1, WIDTH + 1, 255, 4000, 60000, 65535, 256 ** min(size, 4) - 1)
    for offset in rng.choice(((0,), (step,), (0, step))):
        data[place + offset : place + offset + size] = struct.pack(form, rng.choice(sides) % 256**size)
    return data


def _splice(data, rng, _, other):
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def _right_checksums(data: bytes) -> bytes:
    """A damaged PNG with checksums that fit the damage: without them no decoder looks any further."""
    out, place = data[:8], 8
    while place + 12 <= len(data):
        length = min(int.from_bytes(data[place : place + 4], "big"), len(data) - place - 12)
        out += png_chunk(data[place + 4 : place + 8], data[place + 8 : place + 8 + length])
        place += 12 + length
    return out


def _damage_pixels(data, rng, kind, other):
    """What a PNG says of its pixels, damaged before it is compressed: otherwise zlib's checksum refuses nearly all."""
    if kind != "png" or data.count(b"IDAT") != 1:
        return _flip(data, rng)
    start = data.index(b"IDAT") + 4
    length = int.from_bytes(data[start - 8 : start - 4], "big")
    try:
        pixels = bytearray(zlib.decompress(bytes(data[start : start + length])))
    except zlib.error:
        return data
    # Other values are other pixels; more or fewer of them are hardly ever an image.
    pixels = rng.choice((*(_flip, _overwrite) * 3, _truncate, _insert, _delete, _swap))(pixels, rng)
    return data[: start - 8] + png_chunk(b"IDAT", zlib.compress(bytes(pixels))) + data[start + length + 4 :]


DAMAGE = (
    *(_flip, _overwrite, _overwrite_head, _truncate, _insert, _delete),
    *(_swap, _duplicate, _resize_header, _splice, _damage_pixels),
)
# Of a PNG little else than its pixels can be damaged so that a decoder takes it.
WEIGHTS = {"png": [10 if damage is _damage_pixels else 1 for damage in DAMAGE]}
NAMES = {damage: damage.__name__.strip("_") for damage in DAMAGE}
# What a decoder can be relied on to notice, and what it hardly can: most of a BMP is pixels, of which any will do.
TELLS = {("jpeg", "truncate"), ("bmp", "truncate"), ("webp", "truncate"), ("webp", "delete")}
TELLS |= {(form, damage) for form in ("avif", "heif", "ppm") for damage in ("truncate", "delete")}
TELLS |= {("jpeg2000", name) for name in ("truncate", "insert", "delete", "duplicate", "splice")}
TELLS |= {("heif", "resize_header")}
TELLS |= {("png", name) for name in NAMES.values() if name != "damage_pixels"}
TELLS_NOT = {("ppm", "duplicate"), ("bmp", "flip"), ("bmp", "overwrite"), ("bmp", "damage_pixels")}


def damaged(index: int, seed: int, files: dict[str, bytes]) -> tuple[str, tuple[str, ...], bytes]:
    """The kind of one damaged file, what was done to it, and its bytes: the same for the same index and seed."""
    rng = random.Random(seed * 1_000_003 + index)
    kind = list(files)[index % len(files)]
    form, data = kind.split()[0], bytearray(files[kind])
    chosen = rng.choices(DAMAGE, WEIGHTS.get(form), k=rng.choice((1, 1, 1, 2, 4)))
    for damage in chosen:
        if len(data) > 40:
            data = bytearray(damage(data, rng, form, rng.choice(list(files.values()))))
    right = form == "png" and rng.random() < 0.7
    return kind, tuple(map(NAMES.get, chosen)), _right_checksums(bytes(data)) if right else bytes(data)


def labels(kind: str, damage: tuple[str, ...]) -> list[str]:
    """What a damaged file counts for: its kind, and the damage and the format that met if nothing else was done."""
    return [kind, *(label for name in damage[:1] if len(damage) == 1 for label in (name, f"{name}, {kind.split()[0]}"))]


# --- the child


def _windows(contents):
    """One image in windows at its corners and in its middle, which reach or miss whatever is broken, at every scale."""
    import tensorflow as tf

    from keras_effnet.datasets.decoding import decode_window

    places = tf.constant([(0, 0, 1), (0, 0, 0.3), (0, 1, 0.3), (1, 0, 0.3), (1, 1, 0), (0.5, 0.5, 0.2)])

    def window(place, target):
        def box(shape):
            extent = tf.maximum(tf.cast(tf.cast(shape, tf.float32) * place[2], tf.int32), 1)
            begin = tf.cast(tf.cast(shape - extent, tf.float32) * place[:2], tf.int32)
            return tf.concat([begin, extent], axis=0)

        return tf.shape(decode_window(contents, box, target).pixels)

    # The whole image is decoded at 1/8 for a target of 1 and at 1/4 for 5, a window of 12 pixels at 1/4 for 1. A loop
    # over the places is one sixth of the graph, which took longer to optimize than all images took to read.
    return [tf.map_fn(partial(window, target=target), places, fn_output_signature=tf.int32) for target in (None, 1, 5)]


def child_by_pillow(seed: int, start: int, stop: int) -> None:
    """Decodes damaged files of the formats that TensorFlow does not read, without TensorFlow; prints counts as JSON."""
    from keras_effnet.datasets.image_formats.pillow_decoder import decode_with_pillow

    files, slowest = originals_by_pillow(), 0.0
    counts = {"refused": Counter(), "decoded": Counter()}
    for index in range(start, stop):
        kind, damage, content = damaged(index, seed, files)
        began = time.process_time()
        try:
            assert decode_with_pillow(content).shape[2:] == (3,)
            result = "decoded"
        except ValueError as error:
            assert str(error)
            result = "refused"
        slowest = max(slowest, time.process_time() - began)
        counts[result].update(labels(kind, damage))
    peak = peak_resident_bytes() >> 20
    print(json.dumps(counts | {"peak_mib": peak, "slowest": slowest}))


def child(seed: int, start: int, stop: int, folder: Path) -> None:
    """Writes damaged images, loads them as a dataset, reads all that were not left out; prints counts as JSON."""
    import tensorflow as tf

    from keras_effnet import datasets
    from keras_effnet.pipeline.batches import image_pipeline
    from keras_effnet.preprocessing import ImageSpec

    def passes(part):
        yield image_pipeline(part, spec, 1, training=True, cache=False)  # one by one, so that none is left over
        yield image_pipeline(part, spec, 8, training=True, cache=True)
        yield image_pipeline(part, spec, 8)
        yield tf.data.Dataset.from_tensor_slices(list(part.images)).map(lambda path: _windows(tf.io.read_file(path)))

    files, counted, spec = originals(), {}, ImageSpec(24)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for number, content in enumerate(files.values()):  # sound ones, so that no class is empty
            (folder / name / f"sound{number}.jpg").write_bytes(content)
    for index in range(start, stop):
        kind, damage, content = damaged(index, seed, files)
        path = folder / "ab"[index // len(files) % 2] / f"{index:06d}.jpg"
        path.write_bytes(content)
        counted[str(path)] = labels(kind, damage)
    print(f"{len(counted)} written", flush=True)

    dataset = datasets.load(folder, val_split=0.5, max_bad_files=len(counted))
    assert all(bad.reason for bad in dataset.skipped)
    refused = [bad.path for bad in dataset.skipped]
    used = [*dataset.train.images, *dataset.val.images]
    assert sorted(used + refused) == sorted(str(path) for path in folder.rglob("*.jpg"))
    assert not any("sound" in path for path in refused)
    print(f"{len(refused)} refused", flush=True)

    for part in (dataset.train, dataset.val):
        for number, data in enumerate(passes(part)):
            print(f"pass {number}", flush=True)
            try:
                for _ in data:
                    pass
            except tf.errors.OpError:
                for index in range(len(part)):
                    try:
                        for again in passes(part.select(np.repeat(index, 8))):
                            list(again)
                    except tf.errors.OpError as error:
                        print(f"passed the check and failed in pass {number}: {part.images[index]}: {error}")
                raise
    counts = {
        "refused": Counter(label for path in refused for label in counted[path]),
        "decoded": Counter(label for path in used for label in counted.get(path, ())),
        "peak_mib": peak_resident_bytes() >> 20,
    }
    print(json.dumps(counts))


# --- the tests


def _run(start: int, stop: int, *, by_pillow: bool = False) -> subprocess.CompletedProcess | None:
    """What a child said of the images of these indices; None if it hung."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, str(SEED), str(start), str(stop)]
        command += [] if by_pillow else [str(Path(folder) / "images")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        seconds = 300 + 0.6 * (stop - start)  # far more than it takes, on a busy machine too
        try:
            return subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=seconds, env=environment
            )
        except subprocess.TimeoutExpired:
            return None


def _fuzz(start: int, stop: int, run: Callable = _run) -> dict:
    done = run(start, stop)
    if done is not None and done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if stop - start > 1:  # looks for the one file that is to blame
        middle = (start + stop) // 2
        _fuzz(start, middle, run)
        _fuzz(middle, stop, run)
    said = "hung" if done is None else f"status {done.returncode}: {done.stdout[-500:]} {done.stderr[-1500:]}"
    raise AssertionError(f"seed {SEED}, images {start} to {stop - 1}: {said}")


def _check(counts: list[dict], total: int) -> tuple[Counter, Counter]:
    """Refused and decoded files by label. Damage that is always, or never, refused would test nothing."""
    refused, decoded = (sum((Counter(part[key]) for part in counts), Counter()) for key in ("refused", "decoded"))
    print("refused", dict(refused), "decoded", dict(decoded), [part["peak_mib"] for part in counts])
    assert sum(refused[kind] + decoded[kind] for kind in originals()) == total
    for label in (*originals(), *NAMES.values()):
        assert refused[label] and decoded[label], label
    assert max(part["peak_mib"] for part in counts) < 4096
    return refused, decoded


def test_sound_files_of_every_kind_are_what_pillow_says():
    for kind, content in image_files().items():
        with _opened(kind, content) as image:
            assert image.format.lower() == kind.split()[0] and {*image.size} == {WIDTH, HEIGHT}
            image.load()


def _opened(kind: str, content: bytes) -> Image.Image:
    if not kind.startswith("heif"):
        return Image.open(io.BytesIO(content))
    from pillow_heif import HeifImageFile

    return HeifImageFile(io.BytesIO(content))


def test_damage_is_the_same_for_the_same_seed():
    files = originals()
    assert damaged(7, SEED, files) == damaged(7, SEED, originals())
    assert len({damaged(index, SEED, files)[-1] for index in range(200)}) > 190


def test_the_image_that_crashes_a_decoder_is_named():
    def run(start, stop):
        crash = start <= 371 < stop
        return subprocess.CompletedProcess([], -11 if crash else 0, "" if crash else "{}", "Segmentation fault")

    with pytest.raises(AssertionError, match=f"seed {SEED}, images 371 to 371: status -11"):
        _fuzz(0, 600, run)
    with pytest.raises(AssertionError, match="images 5 to 5: hung"):
        _fuzz(5, 6, lambda start, stop: None)


def test_320_damaged_images_are_decoded_or_listed():
    _check([_fuzz(6430, 6750)], 320)  # every kind and damage is both decoded and refused among these


def _check_by_pillow(start: int, stop: int) -> None:
    counts = _fuzz(start, stop, partial(_run, by_pillow=True))
    kinds = originals_by_pillow()
    refused, decoded = (sum(counts[key].get(kind, 0) for kind in kinds) for key in ("refused", "decoded"))
    print(refused, "refused,", decoded, "decoded,", counts["peak_mib"], "MiB,", counts["slowest"], "s")
    assert refused + decoded == stop - start
    for label in (*kinds, *NAMES.values()):
        assert label in counts["refused"] and label in counts["decoded"], label
    assert counts["peak_mib"] < 2048 and counts["slowest"] < 5


def test_500_damaged_images_of_other_formats_are_decoded_or_refused():
    pytest.importorskip("pillow_heif")
    _check_by_pillow(0, 500)


@pytest.mark.soak
def test_40000_damaged_images_of_other_formats_are_decoded_or_refused():
    pytest.importorskip("pillow_heif")
    for start in range(0, 40_000, 10_000):
        _check_by_pillow(start, start + 10_000)


@pytest.mark.soak
def test_10000_damaged_images_are_decoded_or_listed():
    refused, decoded = _check([_fuzz(start, start + 2000) for start in range(0, 10_000, 2000)], 10_000)
    for form, damage in itertools.product(FORMATS, NAMES.values()):
        label = f"{damage}, {form}"
        assert refused[label] or (form, damage) in TELLS_NOT, label
        assert decoded[label] or (form, damage) in TELLS, label


if __name__ == "__main__":
    numbers = map(int, sys.argv[1:4])
    child(*numbers, Path(sys.argv[4])) if len(sys.argv) > 4 else child_by_pillow(*numbers)
