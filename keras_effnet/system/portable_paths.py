"""Paths in files that are shared or moved: relative to the file's folder, without the home folder. Pure Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

_RELATIVE = ("./", "../", "~/")


def portable(path: str | Path, folder: str | Path) -> str:
    """Write a path for a file in `folder`, so that both can be moved together.

    Args:
        path: Path; a relative one starts from the working directory.
        folder: Path of the folder.

    Returns:
        The path relative to `folder`, as `../photos`. If both share no folder but the root, or only `path` lies in the
        home folder, the absolute path, with `~` for the home folder.
    """
    target, base = Path(path).resolve(), Path(folder).resolve()
    home = _home()
    private = home is not None and target.is_relative_to(home) and not base.is_relative_to(home)
    try:
        relative = Path(os.path.relpath(target, base)).as_posix()
        apart = Path(os.path.commonpath([target, base])) == Path(target.anchor)
    except ValueError:  # two drives
        return str(target)
    if private or apart:
        return without_home(target)
    return relative if relative.startswith("..") else f"./{relative}"


def without_home(path: str | Path) -> str:
    """An absolute path, with `~` for the home folder."""
    target, home = Path(path).resolve(), _home()
    if home is not None and target.is_relative_to(home):
        return f"~/{target.relative_to(home).as_posix()}"
    return str(target)


def located(text: str, folder: str | Path, last_seen: Mapping[str, str] | None = None) -> str:
    """Inverse of `portable`; any other text, such as an absolute path or a name, is returned unchanged.

    Args:
        text: String.
        folder: Path of the folder with the file that `text` is from.
        last_seen: Mapping of texts to the paths, as from `without_home`, that they stood for when they were written:
            used where nothing is at the relative path because the folder alone was moved.

    Returns:
        An absolute path.
    """
    if not text.startswith(_RELATIVE):
        return text
    path = Path(os.path.normpath(Path(folder).resolve() / os.path.expanduser(text)))  # noqa: PTH111 - home may be unknown
    before = (last_seen or {}).get(text)
    if before is not None and not path.exists():
        elsewhere = Path(os.path.expanduser(before))  # noqa: PTH111
        path = elsewhere if elsewhere.exists() else path
    return str(path)


def portable_values(
    documents: Iterable[Mapping[str, Any]], folder: Path, is_path: Callable[[str, Any], bool]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Write the paths among the values of several mappings, for a file in `folder`.

    Args:
        documents: Mappings of plain values.
        folder: Path of the folder.
        is_path: Function of a key and a value, whether the value is a path.

    Returns:
        Tuple of the mappings with portable paths, and `last_seen` for `located_values`.
    """
    written: list[dict[str, Any]] = []
    last_seen: dict[str, str] = {}
    for values in documents:
        paths = {key: portable(value, folder) for key, value in values.items() if is_path(key, value)}
        last_seen |= {text: without_home(values[key]) for key, text in paths.items() if text.startswith(".")}
        written.append({**values, **paths})
    return written, last_seen


def located_values(values: Mapping[str, Any], folder: Path, last_seen: Mapping[str, str]) -> dict[str, Any]:
    """Inverse of `portable_values` for one mapping."""
    return {
        key: located(value, folder, last_seen) if isinstance(value, str) else value for key, value in values.items()
    }


def _home() -> Path | None:
    """The user's home folder; None if there is none of one's own."""
    home = Path(os.path.expanduser("~")).resolve()  # noqa: PTH111
    return home if home.is_dir() and home != Path(home.anchor) else None
