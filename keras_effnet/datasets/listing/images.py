"""Images below a folder or in class folders, and picture-like files that are left out. Pure Python."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from keras_effnet.datasets.listing.recognition import HEIF_IMAGE, IMAGE, is_named_like_image, kind_of
from keras_effnet.datasets.listing.tree import LeftOut, contents, displayed, extension, is_hidden, walk
from keras_effnet.errors import UserError

logger = logging.getLogger(__name__)

_NAMED = 5  # paths of each kind in a message


@dataclass(frozen=True)
class Listing:
    """Images below a folder.

    Args:
        images: Tuple of strings, sorted paths.
        left_out: Tuple of `LeftOut`, what else may be or contain an image.
    """

    images: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class ClassFolders:
    """Images of the class folders in a folder.

    Args:
        images: Dict of class name, which is valid text whatever bytes the name of the folder has, to sorted paths.
        left_out: Tuple of `LeftOut`, what else may be or contain an image.
    """

    images: dict[str, tuple[str, ...]]
    left_out: tuple[LeftOut, ...] = ()


def list_images(folder: str | Path) -> Listing:
    """List all images below a folder.

    Args:
        folder: Path.
    """
    tree = walk(folder)
    images, left_out = _sorted_out(tree.files, tree.special)
    return Listing(tuple(images), tuple(sorted(tree.left_out + left_out)))


def class_folders(folder: str | Path) -> ClassFolders:
    """List the images of every class folder, i.e. of every folder in `folder` that is not hidden.

    Raises:
        OSError: The folder cannot be read.
        UserError: Two folders have the same name as text, of which one is not UTF-8.
    """
    found = contents(folder)
    loose, left_out = _sorted_out(found.files, found.special)
    outside = tuple(LeftOut(path, "image outside the class folders") for path in sorted(loose) if found.folders)
    listings = {displayed(name): list_images(path) for name, path in found.folders.items()}
    if len(listings) < len(found.folders):
        raise UserError(f"{displayed(str(folder))}: two class folders read {_doubled(found.folders)}; rename one.")
    nested = tuple(item for listing in listings.values() for item in listing.left_out)
    return ClassFolders(
        {name: listing.images for name, listing in listings.items()},
        tuple(sorted(found.left_out + left_out + outside + nested)),
    )


def _doubled(names: Iterable[str]) -> str:
    shown = [displayed(name) for name in names]
    return next(name for name in shown if shown.count(name) > 1)


def _sorted_out(files: Iterable[str], special: Iterable[LeftOut]) -> tuple[list[str], tuple[LeftOut, ...]]:
    """Select the images among files, and whatever may be an image but cannot be read."""
    images: list[str] = []
    left_out = [item for item in special if not is_hidden(item.path) and _may_be_image(item)]
    for path in files:
        kind = kind_of(path)
        if kind == IMAGE:
            images.append(path)
        elif kind:
            left_out.append(LeftOut(path, kind))
    return images, tuple(left_out)


def _may_be_image(item: LeftOut) -> bool:
    """Whether a broken link, pipe or device has a name like an image's, or like a folder's."""
    return is_named_like_image(item.path) or (not extension(item.path) and item.kind == "broken link")


def describe(left_out: Iterable[LeftOut], root: str | Path) -> str:
    """Count what was left out by kind, with the first paths of each: `"2 PSD images (cat/a.psd, cat/b.psd)."`.

    Args:
        left_out: `LeftOut`s.
        root: Folder that the paths are shown relative to.

    Returns:
        One or two sentences; an empty string if nothing was left out.
    """
    kinds: dict[str, list[str]] = {}
    for item in left_out:
        kinds.setdefault(item.kind, []).append(item.path)
    if not kinds:
        return ""
    counts = (_counted(kind, paths, root) for kind, paths in sorted(kinds.items(), key=lambda pair: -len(pair[1])))
    cure = f" {HEIF_IMAGE}s are read with: pip install 'keras-effnet[heif]'." if HEIF_IMAGE in kinds else ""
    return f"{', '.join(counts)}.{cure}"


def _counted(kind: str, paths: list[str], root: str | Path) -> str:
    named = ", ".join(_relative(path, root) for path in paths[:_NAMED])
    return f"{len(paths)} {_plural(kind) if len(paths) > 1 else kind} ({named}{', ...' if len(paths) > _NAMED else ''})"


def _relative(path: str, root: str | Path) -> str:
    inside = Path(path).is_relative_to(root) and Path(path) != Path(root)
    return displayed(str(Path(path).relative_to(root)) if inside else path)


def _plural(kind: str) -> str:
    noun, *rest = kind.split(" outside ")
    return " outside ".join([f"{noun}s", *rest]).replace("pipe or", "pipes or")


def left_out_note(left_out: Iterable[LeftOut], root: str | Path) -> str:
    """Sentence for the end of an error about missing images, with a space before; empty if nothing was left out."""
    listing = describe(left_out, root)
    return f" Left out: {listing}" if listing else ""


def warn_of(left_out: Iterable[LeftOut], root: str | Path) -> None:
    """Log one line that counts what was left out of a folder; none if nothing was."""
    if listing := describe(left_out, root):
        logger.warning("Left out of %s: %s", displayed(str(root)), listing)
