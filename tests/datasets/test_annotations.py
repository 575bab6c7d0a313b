"""Readers of boxes: the same two images in four formats, what is corrected and named, and damaged files."""

import json

import numpy as np
import pytest
from PIL import Image

from keras_effnet.datasets.annotations import digit_scenes, read_coco, read_model_maker, read_voc, read_yolo
from keras_effnet.datasets.annotations.boxed_images import turned
from keras_effnet.errors import UserError

WIDTH, HEIGHT = 80, 40
BOXES = [("cell", (8, 4, 24, 20)), ("plate", (40, 10, 80, 40))]  # x0, y0, x1, y1


def draw(path, turn=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.new("RGB", (WIDTH, HEIGHT)).save(path, exif=exif)


def coco(folder, boxes=BOXES, size=(WIDTH, HEIGHT), turn=1):
    draw(folder / "images" / "a.jpg", turn)
    draw(folder / "images" / "b.jpg")
    names = ["cell", "plate"]
    content = {
        "categories": [{"id": 7, "name": "plate"}, {"id": 3, "name": "cell"}],
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": size[0], "height": size[1]},
            {"id": 2, "file_name": "b.jpg"},
        ],
        "annotations": [
            {
                "image_id": 1,
                "category_id": {"cell": 3, "plate": 7}[name],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "iscrowd": names.index(name),
            }
            for name, (x0, y0, x1, y1) in boxes
        ],
    }
    (folder / "boxes.json").write_text(json.dumps(content))
    return read_coco(folder / "boxes.json", folder / "images")


def voc(folder, boxes=BOXES):
    for name, inside in (("a", boxes), ("b", [])):
        draw(folder / "images" / f"{name}.jpg")
        objects = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
            "</bndbox></object>"
            for label, (x0, y0, x1, y1) in inside
        )
        (folder / "xml").mkdir(exist_ok=True)
        (folder / "xml" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
            f"{objects}</annotation>"
        )
    return read_voc(folder / "xml", folder / "images", class_names=["cell", "plate"])


def yolo(folder, boxes=BOXES):
    lines = [
        f"{['cell', 'plate'].index(name)} {(x0 + x1) / 2 / WIDTH} {(y0 + y1) / 2 / HEIGHT} {(x1 - x0) / WIDTH} "
        f"{(y1 - y0) / HEIGHT}"
        for name, (x0, y0, x1, y1) in boxes
    ]
    draw(folder / "images" / "train" / "a.jpg")
    draw(folder / "images" / "train" / "b.jpg")
    (folder / "labels" / "train").mkdir(parents=True, exist_ok=True)
    (folder / "labels" / "train" / "a.txt").write_text("\n".join(lines))
    (folder / "data.yaml").write_text("train: images/train\nnames: {0: cell, 1: plate}\n")
    return read_yolo(folder / "data.yaml")


def model_maker(folder, boxes=BOXES):
    draw(folder / "a.jpg")
    draw(folder / "b.jpg")
    rows = [
        f"TRAIN,a.jpg,{name},{x0 / WIDTH},{y0 / HEIGHT},,,{x1 / WIDTH},{y1 / HEIGHT},,"
        for name, (x0, y0, x1, y1) in boxes
    ]
    (folder / "boxes.csv").write_text("\n".join([*rows, "TRAIN,b.jpg,,,,,,,,,"]))
    return read_model_maker(folder / "boxes.csv")["train"]


FORMATS = {"coco": coco, "voc": voc, "yolo": yolo, "model_maker": model_maker}
every_format = pytest.mark.parametrize("written", FORMATS.values(), ids=FORMATS)


@every_format
def test_all_formats_say_the_same(written, tmp_path):
    data = written(tmp_path)
    assert data.class_names == ("cell", "plate") and not data.problems
    first, second = data.images
    assert first.size == (HEIGHT, WIDTH) and first.path.name == "a.jpg"
    np.testing.assert_allclose(first.boxes, [[4, 8, 20, 24], [10, 40, 40, 80]], atol=1e-4)
    assert first.labels.tolist() == [0, 1] and first.crowd.tolist() == [False, written is coco]
    assert second.boxes.shape == (0, 4) and len(second.labels) == 0


@every_format
def test_boxes_that_do_not_fit_are_counted_and_named(written, tmp_path, caplog):
    boxes = [
        ("cell", (-20, -20, 30, 20)),  # partly outside
        ("cell", (100, 50, 120, 60)),  # outside
        ("plate", (10, 10, 10, 30)),  # empty
        ("plate", (-0.5, 0, 80.5, 40)),  # rounding
        ("cell", (30, 20, 10, 5)),  # swapped
    ]
    data = written(tmp_path, boxes)
    assert [problem.kind for problem in data.problems] == ["clipped", "outside", "empty", "swapped"]
    wanted = [[0, 0, 20, 30], [0, 0, 40, 80], [5, 10, 20, 30]]
    np.testing.assert_allclose(data.images[0].boxes, wanted, atol=1e-4)
    assert "1 clipped" in caplog.text and "1 empty" in caplog.text
    assert all(any(place in problem.where for place in ("[", "object", "line")) for problem in data.problems)


def test_stored_boxes_are_turned_with_the_image(tmp_path):
    """Orientation 6: the image is shown turned clockwise, so its left edge becomes the top."""
    data = coco(tmp_path, BOXES[:1], turn=6)
    assert data.images[0].size == (WIDTH, HEIGHT)
    np.testing.assert_allclose(data.images[0].boxes, [[8, 20, 24, 36]])


def test_boxes_of_the_upright_image_stay(tmp_path):
    data = coco(tmp_path, [("cell", (4, 8, 20, 24))], size=(HEIGHT, WIDTH), turn=6)
    np.testing.assert_allclose(data.images[0].boxes, [[8, 4, 24, 20]])


@pytest.mark.parametrize("turn", range(1, 9))
def test_turned_boxes_frame_what_pillow_shows(turn):
    pixels = np.zeros((HEIGHT, WIDTH), "uint8")
    pixels[4:20, 8:24] = 255
    image = Image.fromarray(pixels)
    methods = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # of Image.transpose, by orientation
    shown = np.asarray(image.transpose(Image.Transpose(methods[turn])) if turn > 1 else image)
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    wanted = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
    assert turned(np.array([[4, 8, 20, 24]]), (HEIGHT, WIDTH), turn)[0].tolist() == wanted


def test_polygons_become_their_bounding_boxes(tmp_path):
    yolo(tmp_path)
    (tmp_path / "labels" / "train" / "a.txt").write_text("1 0.1 0.5 0.5 0.25 0.3 0.75\n")
    (box,) = read_yolo(tmp_path / "data.yaml").images[0].boxes
    np.testing.assert_allclose(box, [10, 8, 30, 40], atol=1e-4)


def test_names_of_categories_may_be_numbers(tmp_path):
    coco(tmp_path)
    edit("boxes.json", '"plate"', "0")(tmp_path)
    assert read_coco(tmp_path / "boxes.json", tmp_path / "images").class_names == ("cell", "0")


def edit(name, old, new):
    def change(folder):
        path = folder / name
        path.write_text(path.read_text().replace(old, new))

    return change


@pytest.mark.parametrize(
    ("written", "change", "message"),
    [
        (coco, edit("boxes.json", "{", "["), "boxes.json|JSON"),
        (coco, edit("boxes.json", '"annotations"', '"other"'), "no list of annotations"),
        (coco, edit("boxes.json", '"image_id": 1', '"image_id": 9'), r"annotations\[0\], belongs to an image"),
        (coco, edit("boxes.json", '"image_id": 1', '"image_id": [1]'), "identifier that is not a whole number"),
        (coco, edit("boxes.json", '"id": 2', '"id": 1'), r"images\[1\], repeats the identifier 1"),
        (coco, edit("boxes.json", '"id": 3', '"id": 7'), r"categories\[1\], repeats the identifier 7"),
        (coco, edit("boxes.json", "b.jpg", "a.jpg"), r"names the image .*a\.jpg 2 times"),
        (coco, edit("boxes.json", '"bbox"', '"box"'), r"annotations\[0\], lacks one of"),
        (coco, edit("boxes.json", '"bbox": [8,', '"bbox": ["x",'), "which is not a number"),
        (coco, edit("boxes.json", '"iscrowd": 0', '"iscrowd": "0"'), r"annotations\[0\], has an iscrowd '0'"),
        (coco, edit("boxes.json", "a.jpg", "c.jpg"), r"names the image .*c\.jpg"),
        (coco, edit("boxes.json", '"width": 80', '"width": 81'), "states 81x40"),
        (voc, edit("xml/a.xml", "</annotation>", ""), "a.xml is not XML"),
        (voc, edit("xml/a.xml", "<xmin>8</xmin>", ""), "object 1, xmin, has a coordinate 'None'"),
        (voc, edit("xml/a.xml", "<xmin>8", "<xmin>nan"), "'nan', which is not a number"),
        (voc, edit("xml/a.xml", "<annotation>", "<!DOCTYPE a><annotation>"), "defines entities"),
        (voc, edit("xml/a.xml", ">cell<", ">sell<"), "object 1, has the class 'sell'"),
        (voc, edit("xml/b.xml", "b.jpg", "a.jpg"), r"names the image .*a\.jpg 2 times"),
        (yolo, edit("data.yaml", "1: plate", "plate: 1"), "needs names"),
        (yolo, edit("labels/train/a.txt", "1 ", "2 "), r"line 2, has the class '2'"),
        (yolo, edit("labels/train/a.txt", "0 ", "0 0.1 "), "line 1, has 6 values"),
        (yolo, edit("data.yaml", "names", "labels"), "needs names"),
        (yolo, edit("data.yaml", "train:", "val:"), "split of data.yaml"),
        (yolo, edit("data.yaml", "images/train", "images/none"), "neither a folder"),
        (model_maker, edit("boxes.csv", "TRAIN,a.jpg,cell", "TRAINS,a.jpg,cell"), "line 1, does not begin with TRAIN"),
        (model_maker, edit("boxes.csv", ",,\n", ',,"\n'), "a quote is not closed"),
        (model_maker, edit("boxes.csv", "TRAIN,a.jpg,plate", "TRAIN,a.jpg,"), "line 2, lacks a label"),
        (model_maker, edit("boxes.csv", "0.1,0.1,", "left,0.1,"), "line 1, has a coordinate 'left'"),
    ],
)
def test_damage_is_one_line_with_its_place(written, change, message, tmp_path):
    written(tmp_path)
    change(tmp_path)
    again = {
        coco: lambda: read_coco(tmp_path / "boxes.json", tmp_path / "images"),
        voc: lambda: read_voc(tmp_path / "xml", tmp_path / "images", class_names=["cell", "plate"]),
        yolo: lambda: read_yolo(tmp_path / "data.yaml"),
        model_maker: lambda: read_model_maker(tmp_path / "boxes.csv"),
    }
    with pytest.raises(UserError, match=message) as raised:
        again[written]()
    assert "\n" not in str(raised.value)


@every_format
def test_randomly_damaged_files_are_read_or_refused(written, tmp_path):
    """125 of each format: bytes replaced, removed or cut off."""
    written(tmp_path)
    paths = {coco: "boxes.json", voc: "xml/a.xml", yolo: "labels/train/a.txt", model_maker: "boxes.csv"}
    path, rng = tmp_path / paths[written], np.random.default_rng(0)
    whole = path.read_bytes()
    readers = {
        coco: lambda: read_coco(path, tmp_path / "images"),
        voc: lambda: read_voc(tmp_path / "xml", tmp_path / "images"),
        yolo: lambda: read_yolo(tmp_path / "data.yaml"),
        model_maker: lambda: read_model_maker(path),
    }
    refused = 0
    for _ in range(125):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=rng.integers(1, 6)):
            damaged[place] = rng.integers(256) if rng.random() < 0.3 else rng.choice(list(b'0.,-{}[]<>"e '))
        path.write_bytes(bytes(damaged[: len(whole) if rng.random() < 0.8 else rng.integers(len(whole))]))
        try:
            readers[written]()
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 30


def test_scenes_are_seeded_and_their_boxes_hold_ink():
    images, boxes, labels = digit_scenes(30, 64)
    again = digit_scenes(30, 64)
    np.testing.assert_array_equal(images, again[0])
    assert not np.array_equal(images, digit_scenes(30, 64, split="val")[0])
    assert images.shape == (30, 64, 64, 3) and {len(each) for each in boxes} <= {1, 2, 3, 4}
    for image, found, digits in zip(images, boxes, labels, strict=True):
        assert len(found) == len(digits) and (found >= 0).all() and (found <= 64).all()
        for y0, x0, y1, x1 in found.round().astype(int):
            assert image[y0:y1, x0:x1].max() > 150


@pytest.mark.parametrize("arguments", [{"count": 0}, {"count": 1, "size": 20}, {"count": 1, "split": "dev"}])
def test_impossible_scenes_are_refused(arguments):
    with pytest.raises(UserError):
        digit_scenes(**arguments)
