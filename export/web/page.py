"""The files of a page: assets, LiteRT.js, and the models of a file, a bundle or a run. Pure Python.

The page works from any folder of any static host, and loads nothing from elsewhere.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from keras_effnet.errors import UserError
from keras_effnet.export.app_bundle.boxes import anchor_file
from keras_effnet.export.app_bundle.document import ANCHOR_BYTES, MODEL_JSON, ModelDocument
from keras_effnet.export.app_bundle.model_json import class_names, files_of, of_files
from keras_effnet.export.web.litert_js import runtime_files
from keras_effnet.system.documents import json_text, read_json
from keras_effnet.system.files import cannot_write, make_folder, why_no_file
from keras_effnet.system.typed_values import build

ASSETS = Path(__file__).with_name("assets")
INDEX = "index.html"
_BEST = "weights/best.keras"  # of a run folder of `train`


@dataclass(frozen=True)
class Page:
    """A page.

    Args:
        name: String, name of the network.
        models: Tuple of the names of its `.tflite` files.
        files: Dict of file name, with `/` between folders, to a path or to the content.
    """

    name: str
    models: tuple[str, ...]
    files: Mapping[str, Path | bytes]


def page_of(target: str | Path, announce: Callable[[str], None] = lambda line: None) -> Page:
    """Make the page of a `.tflite` file, of a bundle (a folder with `model.json`) or of a folder of exported files.

    Args:
        target: Path.
        announce: Called with a line of text before LiteRT.js is taken from npm.

    Returns:
        A `Page`.

    Raises:
        UserError: There is no such file or folder, it is damaged, its files do not fit together, or the networks do
            not take RGB images.
    """
    target = Path(target)
    if target.is_dir():
        found = _bundle(target) if (target / MODEL_JSON).exists() else _exported(target)
    elif target.is_file():
        found = _described([target])
    else:
        raise UserError(f"{target} {why_no_file(target)}; expected a .tflite file, or a folder that `export` wrote.")
    document, models = found
    for file in document.files:
        if file.inputs[0].shape[-1] != 3:
            raise UserError(f"{file.file} takes images of {file.inputs[0].shape[-1]} channels; the page makes RGB, 3.")
    files = {**_assets(), **runtime_files(announce), **models}
    return Page(document.name, tuple(file.file for file in document.files), files)


def _assets() -> dict[str, Path | bytes]:
    return {path.name: path for path in sorted(ASSETS.iterdir()) if path.is_file()}


Found = tuple[ModelDocument, dict[str, Path | bytes]]


def _described(paths: list[Path]) -> Found:
    """Describe files that have no `model.json`."""
    document = of_files(paths)
    shapes = {tuple(port.shape[1:] for port in (*file.inputs, *file.outputs)) for file in document.files}
    if len(shapes) > 1:
        raise UserError(
            f"The .tflite files of {paths[0].parent} are of several networks, with other sizes or classes: serve one "
            f"of them, such as {paths[0]}."
        )
    labels = "".join(f"{' '.join(name.split())}\n" for name in class_names(paths[0]))
    files: dict[str, Path | bytes] = {path.name: path for path in paths}
    if document.boxes:
        files[document.boxes.anchors] = anchor_file(paths[0])
    texts = {MODEL_JSON: document.to_json(), document.labels: labels}
    return document, files | {name: text.encode(errors="backslashreplace") for name, text in texts.items()}


def _exported(folder: Path) -> Found:
    paths = files_of(folder)
    if not paths:
        cure = f"run keras-effnet export {folder}" if (folder / _BEST).is_file() else "name a folder of `export`"
        raise UserError(f"{folder} has no .tflite files: {cure}.")
    return _described(paths)


def _bundle(folder: Path) -> Found:
    """Read a bundle; whatever its `model.json` names must be a plain file inside the folder."""
    path = folder / MODEL_JSON
    try:
        document = build(ModelDocument, read_json(path))
    except UserError as error:
        raise UserError(f"{path} does not describe a bundle: {error}") from None
    if not document.files:
        raise UserError(f"{path} names no .tflite files.")
    names = [document.labels, *(file.file for file in document.files)]
    files: dict[str, Path | bytes] = {name: _inside(folder, name) for name in names}
    if document.test_image:
        files[document.test_image] = _inside(folder, document.test_image)
    if document.boxes:
        anchors = _inside(folder, document.boxes.anchors)
        if anchors.stat().st_size != ANCHOR_BYTES * document.boxes.count:
            raise UserError(f"{anchors} does not hold the {document.boxes.count:,} anchors of {path}: export again.")
        files[document.boxes.anchors] = anchors
    reserved = {INDEX, MODEL_JSON, *_assets()} & set(files)
    if reserved:
        raise UserError(f"{path} names {min(reserved)}, which is a file of the page.")
    for file in document.files:
        with (folder / file.file).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != file.sha256:
                raise UserError(f"{folder / file.file} is not the file that {path} describes: export again.")
    files[MODEL_JSON] = json_text(asdict(document)).encode()
    return document, files


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if name in ("", ".", "..") or set(name) & set("/\\\0:") or path.is_symlink() or not path.is_file():
        raise UserError(f"{folder / MODEL_JSON} names {name!r}, which is no regular file of {folder}.")
    return path


# --- as a folder


def write_page(page: Page, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write a page for a static host. The folder appears whole or not at all.

    Args:
        page: `Page`.
        folder: Path.
        overwrite: Bool, whether to replace an existing page. Folders with other things are never replaced.

    Returns:
        Path of the folder.

    Raises:
        UserError: The folder exists, or cannot be written.
    """
    folder = Path(folder)
    check_free(folder, overwrite)
    make_folder(folder.parent)
    try:
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as temporary:
            staged = Path(temporary, "page")
            for name, source in page.files.items():
                _write(staged / name, source)
            if folder.exists():
                folder.rename(Path(temporary, "replaced"))
            staged.rename(folder)
    except OSError as error:
        raise cannot_write(f"to {folder}", error) from None
    return folder


def check_free(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that `write_page` would not replace.

    Raises:
        UserError: It exists, and is not a page or may not be overwritten.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir() or folder.is_symlink():
        raise UserError(f"{folder} exists and is no folder: choose another one for the page.")
    names = {path.name for path in folder.iterdir()}
    if names and not {INDEX, MODEL_JSON, "litert"} <= names:
        raise UserError(f"{folder} exists and is no page of this command: choose another folder for the page.")
    if names and not overwrite:
        raise UserError(f"{folder} exists: replace the page by overwrite=True (--overwrite), or choose another folder.")


def _write(path: Path, source: Path | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, bytes):
        path.write_bytes(source)
    else:
        shutil.copyfile(source, path)
