"""File and folder names that are not valid text: bytes other than UTF-8, as old archives and file servers have them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_effnet.datasets.checking import check_data
from keras_effnet.datasets.loading import load
from keras_effnet.datasets.packing import pack
from keras_effnet.errors import UserError
from keras_effnet.pipeline.batches import image_pipeline
from keras_effnet.preprocessing import ImageSpec

CAFE, TREE = os.fsdecode(b"caf\xe9"), os.fsdecode(b"arbre-\xff")
CLASSES = ("caf%E9", "dog")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Class folders, images and a root whose names are Latin-1."""
    root = tmp_path / os.fsdecode(b"photos-\xe8")
    try:
        for number, name in enumerate((CAFE, "dog")):
            (root / name).mkdir(parents=True)
            for index in range(5):
                pixels = np.full((40, 40, 3), 20 * (5 * number + index), "uint8")
                Image.fromarray(pixels).save(root / name / f"{TREE}{index}.png")
    except (OSError, UnicodeError):
        pytest.skip("the file system takes UTF-8 names only")
    return root


def test_a_folder_is_loaded_and_its_images_reach_the_network(folder):
    data = load(folder)
    assert data.class_names == CLASSES and data.name == "photos-%E8" and data.skipped == ()
    assert all(Path(path).is_file() for path in (*data.train.paths, *data.val.paths))
    batches = image_pipeline(data.train, ImageSpec(32), 4)
    assert sum(len(labels) for _, labels in batches) == len(data.train) == 8


def test_a_list_names_such_files_by_their_folder(folder):
    (folder / "plain").mkdir()
    for index, path in enumerate(sorted(folder.glob("*/*.png"))):
        path.rename(folder / "plain" / f"{index}.png")
    rows = "".join(f"plain/{index}.png,{'xy'[index % 2]}\n" for index in range(10))
    (folder / "manifest.csv").write_text(f"path,label\n{rows}")
    data = load(folder)
    assert len(data.train) + len(data.val) == 10 and data.name == "photos-%E8"


def test_packing_and_reading_the_pack_keep_every_image(folder):
    packed = pack(folder, folder.parent / os.fsdecode(b"packed-\xe8"))
    data = load(packed.folder)
    assert data.class_names == CLASSES and packed.images == 10
    (packed.folder / "index.json").unlink()  # as shards of another program
    shards = load(packed.folder)
    assert shards.class_names == CLASSES and len(shards.train) + len(shards.val) == 10
    assert [len(list(part.decoded())) for part in (shards.train, shards.val)] == [8, 2]


def test_a_data_check_writes_its_reports(folder, cli):
    (folder / "dog" / f"{TREE}0.png").write_bytes(b"")
    (bad,) = check_data(folder).unreadable
    assert Path(bad.path).is_file()
    done = cli("check-data", folder)
    assert done.status == 0 and "unexpected" not in done.err
    (run,) = Path("runs/check-data").iterdir()
    assert json.loads((run / "report.json").read_text())["class_names"] == list(CLASSES)
    assert "| caf%E9 |" in (run / "report.md").read_text(encoding="utf-8")


def test_two_class_folders_of_the_same_name_as_text_are_refused(folder):
    (folder / "caf%E9").mkdir()
    with pytest.raises(UserError, match=r"photos-%E8: two class folders read caf%E9; rename one"):
        load(folder)
