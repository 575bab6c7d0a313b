"""Atomic writes of one file and of several files of one result, and errors of writing. Pure Python."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from keras_effnet.errors import UserError, first_line

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_STAGED, _LOCK = ".new-", ".lock"  # folders of files that are being written, and the lock within each
_NO_FOLDER = (NotADirectoryError, FileExistsError)  # a file stands where a folder is needed


class WriteError(UserError):
    """A file or folder cannot be written; the result that belongs there is absent or unchanged.

    Args:
        what: String, the path, or `"to FOLDER"`.
        reason: String, the cause, in the words of the system.
        cure: String, sentences that tell how to get the result.
    """

    def __init__(self, what: str, reason: str, cure: str = ""):
        super().__init__(what, reason, cure)  # all of them, because trials send their errors to another process
        self.what, self.reason, self.cure = what, reason, cure

    def __str__(self) -> str:
        return f"Cannot write {self.what}: {self.reason}. {self.cure}".rstrip()


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Yield a new hidden folder in `folder`, which is removed at the end of the block.

    It is locked by the operating system while its process lives. Those that killed processes left behind are removed
    first; never that of a living process, nor any on a file system without locks.

    Raises:
        WriteError: The folder cannot be written.
    """
    _remove_leftovers(folder)
    try:
        staged, lock = _locked_folder(folder)
    except OSError as error:
        raise cannot_write(f"to {folder}", error) from None
    try:
        yield staged
    finally:
        lock.release()
        shutil.rmtree(staged, ignore_errors=True)


def _locked_folder(folder: Path) -> tuple[Path, FileLock]:
    """Make a hidden folder and lock it; again where another process took it for a leftover before it was locked."""
    while True:
        staged = Path(tempfile.mkdtemp(prefix=_STAGED, dir=folder))
        lock = FileLock(staged / _LOCK)
        try:
            lock.acquire(blocking=False)
        except Timeout:  # it is being removed
            continue
        except (OSError, NotImplementedError):  # no locks here, so nobody removes it
            is_ours = staged.exists()
        else:
            is_ours = (staged / _LOCK).exists()
        if is_ours:
            return staged, lock
        lock.release()


def _remove_leftovers(folder: Path) -> None:
    for staged in folder.glob(f"{_STAGED}*"):
        if not (staged / _LOCK).is_file():
            continue
        lock = FileLock(staged / _LOCK)
        try:
            lock.acquire(blocking=False)
        except (OSError, NotImplementedError):  # its process lives, or there are no locks here
            continue
        shutil.rmtree(staged, ignore_errors=True)  # under its lock: a process that is about to take it makes another
        lock.release()
        shutil.rmtree(staged, ignore_errors=True)  # where files in use cannot be removed


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Write a file atomically: yield a temporary path, which replaces `path` only if the block succeeds.

    A crash or a full disk leaves an existing file unchanged. The temporary file has the same name, in a hidden folder:
    savers choose the format by the suffix. A killed process leaves the folder, which the next one removes.

    Raises:
        WriteError: The disk is full or the folder cannot be written.
    """
    path = Path(path)
    try:
        with staging(path.parent) as staged:
            yield staged / path.name
            (staged / path.name).replace(path)
    except Exception as error:
        if unwritable(error):
            raise cannot_write(str(path), error) from None
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write text atomically, as UTF-8; bytes of file names that are not valid text are escaped."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def make_folder(folder: Path) -> None:
    """Create a folder and its parents unless it exists.

    Raises:
        WriteError: It cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(f"to {folder}", error) from None


@contextmanager
def atomic_group(folder: str | Path) -> Iterator[Path]:
    """Write all files of one result or none: yield a temporary folder, whose contents are moved into `folder` together.

    They are moved by renaming, after the block succeeded; models (`.tflite`) last. A folder replaces one of its name as
    a whole. If a step fails, what was already replaced is restored. A killed process leaves at most a hidden folder,
    which the next one removes.

    Args:
        folder: Path, created if it is missing.

    Raises:
        WriteError: The disk is full or the folder cannot be written; it is unchanged.
    """
    folder = Path(folder)
    make_folder(folder)
    try:
        with staging(folder) as staged:
            yield staged
            _move_all(staged, folder)
    except Exception as error:
        if unwritable(error):
            raise cannot_write(f"to {folder}", error) from None
        raise


def _move_all(staged: Path, folder: Path) -> None:
    """Rename files and folders into a folder; an error restores those that they replaced."""
    new = [path for path in staged.iterdir() if path.name != _LOCK]
    new.sort(key=lambda path: path.suffix == ".tflite")
    old = staged / "replaced"
    old.mkdir()
    moved: list[Path] = []
    try:
        for path in new:
            if (folder / path.name).exists():
                _set_aside(folder / path.name, old / path.name)
        for path in new:
            path.replace(folder / path.name)
            moved.append(folder / path.name)
    except BaseException:
        for place in (folder / path.name for path in new):
            before = old / place.name
            if place in moved and (before.is_dir() or not before.exists()):
                _remove(place)
            if before.exists():
                before.replace(place)
        raise


def _set_aside(path: Path, place: Path) -> None:
    """Keep what will be replaced: a file under both names, so that it is never missing; a folder can only move."""
    if path.is_dir():
        path.replace(place)
    else:
        link_or_copy(path, place)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link_or_copy(path: Path, copy: Path) -> None:
    """Give a file a second name, or make a copy on file systems without hard links."""
    try:
        os.link(path, copy)
    except OSError:
        shutil.copy2(path, copy)


def why_no_file(path: str | os.PathLike[str]) -> str:
    """Why a path is not that of a file, for messages: `"is a folder"` or `"does not exist"`."""
    path = Path(path)
    if path.is_symlink() and not path.exists():
        return "is a symbolic link to what does not exist"
    return "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "does not exist"


def disk_full(error: BaseException) -> bool:
    """Whether an error means that the disk or the quota is full; h5py, TensorFlow and NumPy say so only in the text."""
    return getattr(error, "errno", None) in _FULL or "No space left" in str(error) or _cut_short(error)


def _cut_short(error: BaseException) -> bool:
    """Whether an error is that of `numpy.save` for a file that got a part of its bytes."""
    return isinstance(error, OSError) and re.fullmatch(r"\d+ requested and \d+ written", str(error)) is not None


def forbidden(error: BaseException) -> bool:
    """Whether an error means a missing permission or a read-only file system."""
    return getattr(error, "errno", None) in _FORBIDDEN


def unwritable(error: BaseException) -> bool:
    """Whether an error means that a file cannot be written: a full disk, a missing permission, or `WriteError`."""
    return isinstance(error, WriteError) or disk_full(error) or (isinstance(error, OSError) and forbidden(error))


def cannot_write(what: str, error: BaseException) -> WriteError:
    """Error for a file or folder that cannot be written, with cause and cure.

    Args:
        what: String, the path, or `"to FOLDER"`.
        error: The original error.
    """
    if isinstance(error, WriteError):  # of a file within
        return WriteError(what, error.reason, error.cure)
    # TensorFlow: "PATH; No space left on device [Op:SaveV2]"
    told = os.strerror(errno.ENOSPC) if _cut_short(error) else getattr(error, "strerror", None)
    cause = told or first_line(Exception(str(error))).rpartition("; ")[2]
    cure = ""
    if disk_full(error):
        cure = "Free some space and run again; existing files are unchanged."
    elif isinstance(error, _NO_FOLDER):
        cure = "Choose another folder."
    elif forbidden(error):
        cure = "Choose a folder that can be written, or change its permissions."
    return WriteError(what, cause, cure)
