"""Damaged annotation files: `datasets.load` reads every image and box that they state, or names the fault in one line.

What a file states is counted here by means of its own, so that a box or an image dropped in silence is found.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random

import pytest
import yaml
from box_files import FORMATS
from fuzzing import TEXT, mutants

from keras_effnet import datasets
from keras_effnet.errors import UserError

DAMAGED = {
    "COCO": ["annotations/instances_train.json"],
    "YOLO": ["labels/train/b.txt", "data.yaml"],
    "Pascal VOC": ["Annotations/b.xml", "ImageSets/Main/train.txt"],
    "Model Maker": ["boxes.csv"],
}
EACH = 90  # mutants of a file, 540 together
LEFT_OUT = ("outside", "empty")


def repeat(pattern: bytes, content: bytes, rng: Random, files: Sequence[bytes]) -> bytes:
    """Replace a word or number by another one of the file, which leaves most files well-formed."""
    words = list(re.finditer(pattern, content))
    if not words:
        return content
    word, other = rng.choice(words), rng.choice(words)
    return content[: word.start()] + other[0] + content[word.end() :]


MUTATORS = TEXT | {"repeat word": partial(repeat, rb"[\w.]+"), "repeat number": partial(repeat, rb"\b\d[\d.]*")}


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig", errors="replace")


def in_coco(root: Path) -> tuple[int, int]:
    contents = [json.loads(text_of(path)) for path in (root / "annotations").glob("*.json")]
    return tuple(sum(len(content[part]) for content in contents) for part in ("images", "annotations"))


def in_yolo(root: Path) -> tuple[int, int]:
    content = yaml.safe_load(text_of(root / "data.yaml"))
    base, splits = root / str(content.get("path") or "."), [content.get(split) for split in ("train", "val", "test")]
    images = [image for place in splits if place for image in (base / str(place)).rglob("*.png")]
    labels = [Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt") for image in images]
    return len(images), sum(len(text_of(each).split("\n")) - blank(each) for each in labels if each.is_file())


def blank(path: Path) -> int:
    return sum(not line.strip() for line in text_of(path).split("\n"))


def in_voc(root: Path) -> tuple[int, int]:
    sets = (root / "ImageSets/Main").glob("*.txt")
    names = [line.split()[0] for path in sets for line in text_of(path).splitlines() if line.strip()]
    found = [text_of(root / "Annotations" / f"{name}.xml") for name in names]
    return len(names), sum(len(re.findall(r"<object\b", each)) for each in found)


def in_model_maker(root: Path) -> tuple[int, int]:
    rows = [next(csv.reader([line]), []) for line in text_of(root / "boxes.csv").splitlines() if line.strip(" ,")]
    return len({(row[0], row[1].strip()) for row in rows}), sum(any(row[2:]) for row in rows)


STATED = {"COCO": in_coco, "YOLO": in_yolo, "Pascal VOC": in_voc, "Model Maker": in_model_maker}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_annotations_are_read_whole_or_refused_in_one_line(kind, tmp_path):
    intact = tmp_path / "intact"
    intact.mkdir()
    source = FORMATS[kind](intact).relative_to(intact)
    files = {name: (intact / name).read_bytes() for name in DAMAGED[kind]}
    counts = Counter()
    for mutant in mutants(files, EACH * len(files), MUTATORS):
        root = tmp_path / "damaged"
        shutil.copytree(intact, root)
        (root / mutant.origin).write_bytes(mutant.content)
        try:
            data = datasets.load(root / source)
        except UserError as error:
            assert "\n" not in str(error).strip(), mutant
            counts["refused"] += 1
        else:
            images = len(data.train) + len(data.val) + len(data.test or ()) + len(data.skipped)
            boxes = sum(len(each.labels.boxes) for each in (data.train, data.val, data.test) if each is not None)
            boxes += sum(problem.kind in LEFT_OUT for problem in data.problems)
            assert (images, boxes) == STATED[kind](root), f"{mutant}:\n{mutant.content.decode(errors='replace')}"
            counts["read"] += 1
        shutil.rmtree(root)
    assert min(counts["read"], counts["refused"]) >= 8, counts  # the damage is neither hopeless nor harmless
