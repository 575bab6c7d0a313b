"""Files below a folder, with links followed and system folders left out. Pure Python."""

from __future__ import annotations

import os
import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

# Created by operating systems, archivers, network storage and Jupyter; compared in lower case
_SYSTEM_FOLDERS = frozenset(
    {
        "__macosx",
        "__pycache__",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "lost+found",
        "@eadir",
        "@recycle",
        "#recycle",
        "#snapshot",
        "@tmp",
    }
)
_NOT_TEXT = re.compile("[\udc80-\udcff]")  # where Python keeps the bytes of a file name that are not UTF-8


class LeftOut(NamedTuple):
    """Path of a file or folder that is not read although it may be or contain an image, and what it is.

    `kind` is a noun in the singular: `"PSD image"`, `"system folder"`, `"broken link"`.
    """

    path: str
    kind: str


@dataclass(frozen=True)
class Tree:
    """Everything below a folder.

    Args:
        files: Tuple of strings, the sorted paths of all regular files, including hidden ones.
        special: Tuple of `LeftOut`, broken links, pipes and devices.
        left_out: Tuple of `LeftOut`, folders that were not entered.
    """

    files: tuple[str, ...]
    special: tuple[LeftOut, ...]
    left_out: tuple[LeftOut, ...]


class _Place(NamedTuple):
    path: str
    real: str  # without links


@dataclass(frozen=True)
class Contents:
    """Direct contents of a folder.

    Args:
        folders: Dict of name to path of the folders to enter, sorted; links to folders are among them.
        links: Set of the names of those that are links.
        files: Tuple of strings, the paths of all regular files.
        special: Tuple of `LeftOut`, broken links, pipes and devices.
        left_out: Tuple of `LeftOut`, hidden and system folders.
    """

    folders: dict[str, str]
    links: frozenset[str]
    files: tuple[str, ...]
    special: tuple[LeftOut, ...]
    left_out: tuple[LeftOut, ...]


def contents(folder: str | Path) -> Contents:
    """List the direct contents of a folder without opening any file.

    Raises:
        OSError: The folder cannot be read.
    """
    start = str(Path(folder))
    prefix = {".": "", os.sep: os.sep}.get(start, start + os.sep)  # as pathlib joins
    folders: dict[str, str] = {}
    links: set[str] = set()
    files: list[str] = []
    special: list[LeftOut] = []
    left_out: list[LeftOut] = []
    with os.scandir(start) as entries:
        for entry in entries:
            kind, path = _kind(entry), prefix + entry.name
            if kind == "file":
                files.append(path)
            elif kind != "folder":
                special.append(LeftOut(path, kind))
            elif entry.name.lower() in _SYSTEM_FOLDERS:
                left_out.append(LeftOut(path, "system folder"))
            elif entry.name.startswith("."):
                left_out.append(LeftOut(path, "hidden folder"))
            else:
                folders[entry.name] = path
                if entry.is_symlink():
                    links.add(entry.name)
    ordered = {name: folders[name] for name in sorted(folders)}
    return Contents(ordered, frozenset(links), tuple(files), tuple(special), tuple(left_out))


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_file():
            return "file"
        if entry.is_dir():
            return "folder"
        return "pipe or device" if Path(entry.path).exists() else "broken link"
    except OSError:  # a link to itself, or to a place that may not be read
        return "broken link"


def walk(folder: str | Path) -> Tree:
    """List everything below a folder.

    Links to folders are followed, unless they lead to a folder that contains them or that is read anyway.

    Args:
        folder: Path; if it cannot be read, it is itself left out.
    """
    files: list[str] = []
    special: list[LeftOut] = []
    left_out: list[LeftOut] = []
    seen: set[str] = set()
    pending = deque([_Place(str(Path(folder)), os.path.realpath(folder))])
    links: deque[_Place] = deque()  # last, so that a folder is read under its own name rather than through a link
    while pending or links:
        place = pending.popleft() if pending else links.popleft()
        if place.real in seen:
            left_out.append(LeftOut(place.path, "repeated link"))
            continue
        seen.add(place.real)
        try:
            found = contents(place.path)
        except OSError:
            left_out.append(LeftOut(place.path, "unreadable folder"))
            continue
        files += found.files
        special += found.special
        left_out += found.left_out
        for name, path in found.folders.items():
            if name not in found.links:
                pending.append(_Place(path, place.real + os.sep + name))
            elif _contains(target := os.path.realpath(path), place.real):
                left_out.append(LeftOut(path, "circular link"))
            else:
                links.append(_Place(path, target))
    return Tree(tuple(sorted(files)), tuple(special), tuple(left_out))


def _contains(folder: str, other: str) -> bool:
    return os.path.commonpath([folder, other]) == folder


def file_name(path: str) -> str:
    """Last part of a path; of 100,000 paths much faster than `Path.name`."""
    return path.rpartition(os.sep)[2]


def extension(path: str) -> str:
    """Extension of a path in lower case, with its dot; empty if there is none."""
    stem, dot, end = file_name(path).rpartition(".")
    return (dot + end).lower() if stem else ""


def displayed(name: str) -> str:
    """Valid text for a file name, which may be any bytes; others than UTF-8 become `%E9`, as in a URL."""
    return _NOT_TEXT.sub(lambda found: f"%{ord(found[0]) & 0xFF:02X}", name)


def is_hidden(path: str) -> bool:
    """Whether the name of a file or folder starts with a dot."""
    return file_name(path).startswith(".")
