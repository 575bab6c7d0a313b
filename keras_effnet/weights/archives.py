"""Zip archives that are not trusted: their members are bounded by the file's own size. Pure Python."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_effnet.errors import UserError
from keras_effnet.weights.stored_tensor import printable


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive, refusing one whose members overlap, which could unpack to gigabytes, or share a name."""
    with zipfile.ZipFile(path) as archive:
        if sum(member.compress_size for member in archive.infolist()) > path.stat().st_size:
            raise UserError("its members are larger than the whole file; refused")
        if len(set(archive.namelist())) < len(archive.namelist()):
            raise UserError("it has two members of one name; refused")
        yield archive


def stored_member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """The directory entry of an uncompressed member; torch and Keras never compress, zip bombs do."""
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise UserError(f"it lacks {printable(name)}") from None
    if member.compress_type != zipfile.ZIP_STORED:
        raise UserError(f"{printable(name)} in it is compressed, unlike any weights file; refused")
    if member.file_size != member.compress_size:
        raise UserError(f"{printable(name)} in it claims another size than it has; refused")
    return member


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read an uncompressed member of an archive."""
    return archive.read(stored_member(archive, name))
