"""Resumable downloads with a hash check. Pure Python."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path

from keras_effnet.errors import UserError
from keras_effnet.system.files import cannot_write, unwritable

_TIMEOUT, _CHUNK = 30, 1 << 16


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _receive(url: str, part: Path) -> None:
    """Append the missing bytes to `part`, with a progress bar; raise if the connection breaks."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            have = 0  # a server that cannot resume sends everything
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        bars = Progress(*columns, console=Console(stderr=True), transient=True)
        with part.open("ab" if have else "wb") as stream, bars:
            task = bars.add_task(f"Downloading {url.rsplit('/', 1)[-1]}", total=total, completed=have)
            while chunk := response.read(_CHUNK):
                stream.write(chunk)
                bars.advance(task, len(chunk))
    if total is not None and _size(part) < total:
        raise ConnectionError(f"the connection ended at {_size(part)} of {total} bytes")


def fetch(url: str, path: str | Path, md5: str) -> Path:
    """Download a file unless it exists.

    After a failure the received bytes stay in `path` + `.part`, and the next call resumes from there.

    Args:
        url: Address of the file.
        path: Path to save it to.
        md5: Expected hex digest.

    Returns:
        `path`.

    Raises:
        UserError: The download failed or the hash differs. The message tells how to get the file by hand.
    """
    path = Path(path)
    if path.is_file():
        if _md5(path) != md5:
            raise UserError(f"{path} is not the published file (its md5 differs): remove it and try again.")
        return path
    part = path.with_name(f"{path.name}.part")
    by_hand = f"Download {url} by other means to {path}."
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            before = _size(part)
            try:
                _receive(url, part)
                break
            except urllib.error.HTTPError as error:
                if not (before and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
                    raise
                part.unlink()  # longer than the file on the server, so not a part of it
            except (OSError, http.client.HTTPException):
                if _size(part) <= before:  # try again as long as attempts make progress
                    raise
    except (OSError, http.client.HTTPException) as error:
        if unwritable(error):
            raise cannot_write(str(path), error) from None
        reason = getattr(error, "reason", None) or error
        raise UserError(f"Cannot download {path.name} ({reason}). {by_hand}") from None
    if _md5(part) != md5:
        part.unlink()
        raise UserError(f"The file from {url} is not the published one (its md5 differs). {by_hand}")
    return part.replace(path)
