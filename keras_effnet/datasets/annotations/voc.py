"""Pascal VOC XML, one file per image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from keras_effnet.datasets.annotations.boxed_images import (
    BoxDataset,
    RawBox,
    RawImage,
    check_named_once,
    finished,
    number,
)
from keras_effnet.errors import UserError
from keras_effnet.system.documents import read_lines, read_text
from keras_effnet.system.files import why_no_file

_EDGES = ("xmin", "ymin", "xmax", "ymax")


def read_voc(
    annotations: str | Path,
    images: str | Path,
    *,
    image_set: str | Path | None = None,
    class_names: Sequence[str] | None = None,
) -> BoxDataset:
    """Read boxes from a folder of Pascal VOC XML files. Coordinates are taken as they are, as edges in pixels.

    Args:
        annotations: Folder of the XML files.
        images: Folder of the images, named in `<filename>`.
        image_set: Text file with one name of an annotation per line, without `.xml`, such as
            `ImageSets/Main/train.txt`; all files by default.
        class_names: Names of the classes in order; those of the boxes, sorted, by default.

    Returns:
        A `BoxDataset`.

    Raises:
        UserError: A file is missing or damaged, or a box incomplete; the message names it.
    """
    folder = Path(annotations)
    if image_set is not None:
        names = [line.split()[0] for line in read_lines(image_set) if line.strip()]
        files = [folder / f"{name}.xml" for name in names]
    elif folder.is_dir():
        files = sorted(folder.glob("*.xml"))
    else:
        raise UserError(f"The folder of annotations {folder} {why_no_file(folder)}.")
    found = [_image(file, Path(images)) for file in files]
    check_named_once(found, folder)
    return finished(found, class_names, folder)


def _image(file: Path, folder: Path) -> RawImage:
    text = read_text(file)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise UserError(f"{file} defines entities, which no annotation needs; refused.")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{file} is not XML: {error}.") from None
    name = root.findtext("filename", "").strip()
    if root.tag != "annotation" or not name:
        raise UserError(f"{file} is not a Pascal VOC annotation: it has no <filename> in <annotation>.")
    raw = RawImage(folder / name, _stated(root, file))
    for index, element in enumerate(root.findall("object")):
        where = f"{file}, object {index + 1},"
        label, box = element.findtext("name", "").strip(), element.find("bndbox")
        if not label or box is None:
            raise UserError(f"{where} lacks <name> or <bndbox>.")
        x0, y0, x1, y1 = (number(box.findtext(edge), f"{where} {edge},") for edge in _EDGES)
        raw.boxes.append(RawBox(where, label, (x0, y0, x1, y1)))
    return raw


def _stated(root: ElementTree.Element, file: Path) -> tuple[int, int] | None:
    size = root.find("size")
    if size is None:
        return None
    height, width = (int(number(size.findtext(side), f"{file}, <{side}>,")) for side in ("height", "width"))
    return (height, width) if height and width else None  # some tools write 0
