"""The same boxes in the formats that `datasets.load` tells by their files."""

import json

from PIL import Image

SIZE = (40, 60)  # height, width
CLASSES = ("cat", "dog")
# split -> file -> (class, y0, x0, y1, x1)
TRUTH = {
    "train": {
        "a.png": [("cat", 4, 6, 20, 30)],
        "b.png": [("dog", 0, 0, 10, 15), ("cat", 20, 30, 40, 60)],
        "c.png": [],
    },
    "val": {"d.png": [("dog", 8, 12, 24, 48)]},
}


def draw(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", SIZE[::-1], "grey").save(folder / name)


def as_coco(root, truth=TRUTH):
    for split, files in truth.items():
        draw(root / split, files)
        annotations = [
            {"id": 1, "image_id": number, "category_id": CLASSES.index(label) + 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
            for number, boxes in enumerate(files.values())
            for label, y0, x0, y1, x1 in boxes
        ]
        content = {
            "images": [{"id": number, "file_name": name} for number, name in enumerate(files)],
            "categories": [{"id": number + 1, "name": name} for number, name in enumerate(CLASSES)],
            "annotations": annotations,
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content, indent=1))
    return root


def as_yolo(root):
    height, width = SIZE
    for split, files in TRUTH.items():
        draw(root / "images" / split, files)
        (root / "labels" / split).mkdir(parents=True)
        for name, boxes in files.items():
            lines = [
                f"{CLASSES.index(label)} {(x0 + x1) / 2 / width} {(y0 + y1) / 2 / height} {(x1 - x0) / width} "
                f"{(y1 - y0) / height}"
                for label, y0, x0, y1, x1 in boxes
            ]
            (root / "labels" / split / name).with_suffix(".txt").write_text("\n".join(lines))
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}")
    return root / "data.yaml"


def as_voc(root):
    for split, files in TRUTH.items():
        draw(root / "JPEGImages", files)
        for folder in ("Annotations", "ImageSets/Main"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{name[:-4]}\n" for name in files))
        for name, boxes in files.items():
            objects = "".join(
                f"<object><name>{label}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax>"
                f"<ymax>{y1}</ymax></bndbox></object>"
                for label, y0, x0, y1, x1 in boxes
            )
            text = f"<annotation><filename>{name}</filename>{objects}</annotation>"
            (root / "Annotations" / name).with_suffix(".xml").write_text(text)
    return root


def as_model_maker(root):
    height, width = SIZE
    rows = []
    for split, word in (("train", "TRAIN"), ("val", "VALIDATION")):
        draw(root, TRUTH[split])
        for name, boxes in TRUTH[split].items():
            rows += [
                f"{word},{name},{label},{x0 / width},{y0 / height},,,{x1 / width},{y1 / height},,"
                for label, y0, x0, y1, x1 in boxes
            ] or [f"{word},{name},,,,,,,,,"]
    (root / "boxes.csv").write_text("\n".join(rows) + "\n")
    return root / "boxes.csv"


FORMATS = {"COCO": as_coco, "YOLO": as_yolo, "Pascal VOC": as_voc, "Model Maker": as_model_maker}
