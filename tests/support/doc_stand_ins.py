"""Small data and trained networks in place of those that the pages name, and options that make a command small.

A command is run as the page has it, with `CHEAPER` options after its own, of which the last counts.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import numpy as np
from box_files import SIZE, as_yolo
from PIL import Image

from keras_effnet import datasets
from keras_effnet.cli.app import main
from keras_effnet.imagenet import imagenet_classes

SUPPORT = Path(__file__).parent
_TINY, _TINY_DETECTOR = SUPPORT / "tiny.yaml", SUPPORT / "tiny_detector.yaml"
_SHORT = "--epochs 1 --warmup-epochs 0 --batch-size 8 --image-size 32"
_NARROW = "--bifpn-width 8 --bifpn-cells 1 --head-depth 1"
_DETECTOR = f"{_SHORT} --batch-size 2 --image-size 64 --backbone {_TINY_DETECTOR} {_NARROW}"
_STUDY = "--image-size 64 --epochs 1 --seeds 1 --threads 1 --workers 1 --set batch_size=8"

# The first pattern that a command matches.
CHEAPER = (
    (r"train --resume|.*--dry-run|launch .*\.py", ""),
    (r"train .*(finetune.*lite0|lite0.*imagenet)", _SHORT),  # lite0's weights need lite0
    (r"train .*--model det-.*finetune", f"{_SHORT} --batch-size 2 --image-size 64 {_NARROW} --frozen-epochs 0"),
    (r"train |launch .*-- train ", f"{_SHORT} --model {_TINY} --depth 1 --width 1"),
    (r"export .*(--qat|--sparsity|--clusters)", "--epochs 1 --training-samples 40 --samples 40 --allow-degraded"),
    (r"export ", "--samples 40 --allow-degraded"),
    (r"study .*--resume", "--seeds 1"),
    (r"study .*--until-clear", f"{_STUDY} --baseline {_TINY} --max-seeds 1"),
    (r"study .*--seconds", f"{_STUDY.replace('--epochs 1', '--seconds 2')} --baseline {_TINY}"),
    (r"study .*(--phi|--axis)", f"{_STUDY} --baseline {_TINY}"),
    (r"study ", _STUDY),
    (r"search .*--what baseline", f"{_STUDY} --baseline {_TINY} --first 1 --candidates 2 --generation 2 --finalists 1"),
    (r"search ", f"{_STUDY} --baseline {_TINY} --first 1 --step 0.5 --finalists 1"),
    (r"", ""),
)

# What stands where a command names it: the first source that matches a name; nothing replaces what is there already.
STAND_INS = (
    (r"runs/train/cells\b", "detector"),
    (r"runs/export/cells\b", "detector-files"),
    (r"runs/train/[\w-]+", "run"),
    (r"runs/export/[\w-]+", "files"),
    (r"runs/study/FOLDER", "study"),
    (r"(?<=train )packed", "packed"),
    (r"\bcells\b", "cells"),
    (r"\bsample\b", "imagenet"),
    (r"photos(?=/manifest\.csv)", "labels"),
    (r"photos/flowers|tiny-imagenet-10|\bphotos\b|\bFOLDER\b|\bIMAGES\b|\bimages/", "photos"),
    (r"\b\w+\.jpg", "photo.jpg"),
    (r"\bnames\.txt", "names.txt"),
    (r"(?<![\w/\"])\w+\.tflite", "files/digits_int8.tflite"),  # in quotes it is one that Python writes
)


def cheaper(command: str) -> list[str]:
    """Options that make a command small."""
    return next(options for pattern, options in CHEAPER if re.match(pattern, command)).split()


def put(command: str, stage: Callable[[str], Path], folder: Path) -> None:
    """Put what a command names into a folder.

    Args:
        command: String, the command line.
        stage: Function from the name of a source in `STAND_INS` to its path, which makes it when it is first asked.
        folder: Folder in which the command will run.
    """
    for pattern, source in STAND_INS:
        for name in re.findall(pattern, command):
            target = folder / name
            if target.exists():
                continue
            made = stage(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            if made.is_dir():
                shutil.copytree(made, target)
                rename(target, made.name, target.name)
            else:
                shutil.copyfile(made, target)


def rename(folder: Path, old: str, new: str) -> None:
    """Give the files of an export, and what they say of each other, another name."""
    for path in sorted(folder.rglob(f"{old}_*")):
        path.rename(path.with_name(path.name.replace(f"{old}_", f"{new}_", 1)))
    for path in [*folder.rglob("*.json"), *folder.rglob("*.md"), *folder.rglob("*.py")]:
        path.write_text(path.read_text().replace(f"{old}_", f"{new}_"))


class Stage:
    """Sources of `STAND_INS` in one folder, each made when it is first asked for.

    Args:
        folder: Existing empty folder.
        run: Folder of a run on the embedded digits, which all photos here show: their classes are the same.
    """

    def __init__(self, folder: Path, run: Path):
        self._folder, self._run = folder, run

    def __call__(self, name: str) -> Path:
        """Path of a source."""
        if name == "run":
            return self._run
        source, _, rest = name.partition("/")
        path = self._folder / _PLACES.get(source, source) / rest
        if not path.exists():
            with chdir(self._folder):
                _MAKERS[source](self)
        return path

    def command(self, line: str) -> None:
        """Run a command in the folder."""
        main(shlex.split(line))


def _photos(stage: Stage) -> None:
    digits = datasets.load("digits").train
    for label, name in enumerate(map(str, range(10))):
        (Path("photos") / name).mkdir(parents=True)
        for number in (digits.labels == label).nonzero()[0][:12]:
            Image.fromarray(digits.images[number]).resize((32, 32)).save(f"photos/{name}/{number}.jpg")


def _photo(stage: Stage) -> None:
    shutil.copyfile(next((stage("photos") / "3").iterdir()), "photo.jpg")


def _labels(stage: Stage) -> None:
    """Each photo with the labels `odd` and `large`, or one or none of them."""
    shutil.copytree(stage("photos"), "labels")
    kinds = [[name for name, is_it in (("odd", digit % 2), ("large", digit > 4)) if is_it] for digit in range(10)]
    rows = [
        f"{path.relative_to('labels')},{'|'.join(kinds[int(path.parent.name)])}"
        for path in Path("labels").rglob("*.jpg")
    ]
    Path("labels/manifest.csv").write_text("\n".join(["path,label", *rows]))


def _cells(stage: Stage) -> None:
    """Boxes on soft blobs: calibration refuses the grey of `box_files`."""
    Path("cells").mkdir()
    as_yolo(Path("cells"))
    blobs = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype("uint8")
    for path in Path("cells/images").rglob("*.png"):
        Image.fromarray(blobs).resize(SIZE[::-1], Image.Resampling.BICUBIC).save(path)


def _imagenet(stage: Stage) -> None:
    """A list of all classes, with images of a few."""
    Path("imagenet").mkdir()
    rows = [f"{index},{wnid},{f'{index}.jpg' * (index < 3)}" for index, (wnid, _) in enumerate(imagenet_classes())]
    for number in range(3):
        shutil.copyfile(stage("photo.jpg"), f"imagenet/{number}.jpg")
    Path("imagenet/labels.csv").write_text("\n".join(["index,wnid,file", *rows]))


_PLACES = {
    "files": "runs/export/digits",
    "detector": "runs/train/cells",
    "detector-files": "runs/export/cells",
    "study": "runs/study/photos",
}
_FILES = "--quantize none,int8 --input-type uint8 --samples 40 --allow-degraded --bundle"
_MAKERS: dict[str, Callable[[Stage], object]] = {
    "photos": _photos,
    "photo.jpg": _photo,
    "labels": _labels,
    "imagenet": _imagenet,
    "cells": _cells,
    "names.txt": lambda stage: Path("names.txt").write_text("\n".join(map(str, range(10)))),
    "packed": lambda stage: stage.command(f"pack {stage('photos')} packed"),
    "files": lambda stage: stage.command(f"export {stage('run')} --name digits {_FILES}"),
    "detector": lambda stage: stage.command(f"train {stage('cells')} --model det-lite0 {_DETECTOR}"),
    "detector-files": lambda stage: stage.command(f"export {stage('detector')} --postprocess {_FILES}"),
    "study": lambda stage: stage.command(f"study {stage('photos')} --baseline {_TINY} --phi -1,0,1 {_STUDY}"),
}
