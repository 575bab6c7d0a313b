"""Atomic writes of files and of groups of files, on disks that fill up or refuse."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from keras_effnet.errors import UserError
from keras_effnet.system import files
from keras_effnet.system.files import WriteError, atomic, atomic_group, cannot_write

NAMES = ("a.json", "b.txt", "c.tflite")


def write_group(folder: Path, text: str) -> None:
    with atomic_group(folder) as staged:
        for name in NAMES:
            (staged / name).write_text(text)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_group_appears_together_and_replaces_an_earlier_one(tmp_path):
    folder = tmp_path / "new" / "folder"
    with atomic_group(folder) as staged:
        (staged / "a.json").write_text("first")
        assert not (folder / "a.json").exists()
    assert contents(folder) == {"a.json": "first"}
    write_group(folder, "second")
    assert contents(folder) == dict.fromkeys(NAMES, "second")
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("earlier", [True, False], ids=["replacing", "new"])
@pytest.mark.parametrize("fails", range(6))
def test_a_step_that_fails_leaves_the_earlier_group_or_nothing(tmp_path, monkeypatch, earlier, fails):
    if earlier:
        write_group(tmp_path, "earlier")
    before = contents(tmp_path)
    steps = iter(range(6))

    def failing(original):
        def step(*args, **options):
            if next(steps, None) == fails:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*args, **options)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", failing(Path.write_text))
        patch.setattr(Path, "replace", failing(Path.replace))
        with pytest.raises(UserError, match=rf"^Cannot write to {tmp_path}: No space left on device\. Free some space"):
            write_group(tmp_path, "later")
    assert contents(tmp_path) == before
    write_group(tmp_path, "again")
    assert contents(tmp_path) == dict.fromkeys(NAMES, "again")


def test_a_file_system_without_hard_links_restores_from_copies(tmp_path, monkeypatch):
    write_group(tmp_path, "earlier")

    def refused(*args):
        raise OSError(errno.EPERM, "Operation not permitted")

    def full(self, target):
        if self.parent.name.startswith(".new-") and target.name == "c.tflite":
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return rename(self, target)

    rename = Path.replace
    monkeypatch.setattr(files.os, "link", refused)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match=r"Disk quota exceeded\. Free some space"):
        write_group(tmp_path, "later")
    assert contents(tmp_path) == dict.fromkeys(NAMES, "earlier")


def test_a_disk_that_is_really_full_keeps_the_earlier_group(small_disk):
    write_group(small_disk, "earlier")
    with pytest.raises(UserError, match="No space left on device"), atomic_group(small_disk) as staged:
        (staged / "a.json").write_text("later")
        (staged / "c.tflite").write_bytes(bytes(5_000_000))
    assert contents(small_disk) == dict.fromkeys(NAMES, "earlier")
    assert len(list(small_disk.iterdir())) == 3


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_file_that_cannot_be_written_is_named_by_its_final_path(tmp_path, code):
    path = tmp_path / "a.json"
    path.write_text("earlier")
    message = rf"^Cannot write {path}: {os.strerror(code)}\. (Free some space|Choose a folder)"
    with pytest.raises(WriteError, match=message), atomic(path) as temporary:
        temporary.write_text("half")
        raise OSError(code, os.strerror(code))
    assert contents(tmp_path) == {"a.json": "earlier"}


def test_a_file_within_a_group_is_named_by_the_folder_of_the_group(tmp_path):
    with pytest.raises(WriteError) as caught, atomic_group(tmp_path) as staged, atomic(staged / "a.json"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(caught.value).startswith(f"Cannot write to {tmp_path}: No space left on device. Free some space")


def test_an_error_of_writing_is_the_same_in_another_process():
    error = WriteError("to /x", "No space left on device", "Free some space.")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.reason) == (WriteError, str(error), "No space left on device")


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_named_before_the_work(tmp_path, monkeypatch, code):
    def refused(*args, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.tempfile, "mkdtemp", refused)
    message = rf"^Cannot write to {tmp_path}: .*\. Choose a folder that can be written"
    with pytest.raises(UserError, match=message), atomic_group(tmp_path):
        pytest.fail("the work began")


WRITER = """
import sys
from pathlib import Path
from keras_effnet.system.files import atomic, atomic_group
folder = Path(sys.argv[1])
with atomic_group(folder) as staged, atomic(folder / "d.csv") as temporary:
    (staged / "a.json").write_text("from another process")
    temporary.write_text("from another process")
    print("in", flush=True)
    input()
"""


@contextmanager
def writing(folder: Path) -> Iterator[subprocess.Popen]:
    """A process in the middle of writing a group and a file."""
    command = [sys.executable, "-c", WRITER, str(folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as other:
        assert other.stdout.readline() == "in\n"
        yield other


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_kept(tmp_path):
    with writing(tmp_path) as other:
        other.kill()
    left = set(tmp_path.iterdir())
    assert len(left) == 2
    with writing(tmp_path) as other:
        alive = set(tmp_path.iterdir())
        assert len(alive) == 2 and not alive & left
        write_group(tmp_path, "here")
        assert set(tmp_path.iterdir()) == alive | {tmp_path / name for name in NAMES}
        other.communicate("\n", timeout=60)
        assert other.returncode == 0
    assert contents(tmp_path) == dict.fromkeys(NAMES, "here") | dict.fromkeys(
        ("a.json", "d.csv"), "from another process"
    )
    assert {path.name for path in tmp_path.iterdir()} == {*NAMES, "d.csv"}


@pytest.mark.parametrize("moment", ["before the lock", "in the middle of the lock"])
def test_a_folder_that_was_swept_before_it_was_locked_is_made_anew(tmp_path, monkeypatch, moment):
    original, swept = FileLock.acquire, []

    def acquire(self, *args, **options):
        folder = Path(self.lock_file).parent
        if moment == "in the middle of the lock":
            original(self, *args, **options)
        if not swept:
            swept.append(folder)
            shutil.rmtree(folder)
        return original(self, *args, **options) if moment == "before the lock" else None

    monkeypatch.setattr(FileLock, "acquire", acquire)
    write_group(tmp_path, "now")
    assert contents(tmp_path) == dict.fromkeys(NAMES, "now")
    assert swept and not list(tmp_path.glob(".*"))


def test_many_writers_of_one_folder_do_not_sweep_each_other(tmp_path):
    def write(number: int) -> None:
        for turn in range(50):
            files.write_text(tmp_path / f"{number}.txt", str(turn))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert contents(tmp_path) == {f"{number}.txt": "49" for number in range(8)}
    assert not list(tmp_path.glob(".*"))


def test_other_errors_of_the_work_are_not_blamed_on_the_folder(tmp_path):
    with pytest.raises(ConnectionResetError), atomic_group(tmp_path):
        raise ConnectionResetError
    assert not list(tmp_path.iterdir())


def test_errors_of_libraries_without_a_number_are_understood():
    hdf5 = OSError("Unable to write (file write failed: errno = 28, No space left on device)")
    assert "Free some space" in str(cannot_write("a.keras", hdf5))
    tensorflow = RuntimeError("/x/variables/part; No space left on device [Op:SaveV2]")
    assert str(cannot_write("to /x", tensorflow)).startswith("Cannot write to /x: No space left on device [Op:SaveV2].")


def test_a_folder_of_a_group_replaces_one_of_its_name_as_a_whole(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/old").write_text("old")
    with atomic_group(tmp_path) as staged:
        (staged / "bundle/inner").mkdir(parents=True)
        (staged / "bundle/inner/new").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["bundle", "inner", "new"]


@pytest.mark.parametrize("failing", ["bundle", "model.tflite"])
def test_a_folder_of_a_group_is_restored_after_an_error(tmp_path, monkeypatch, failing):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/old").write_text("old")
    replace = Path.replace

    def fail(self, target):
        if self.name == failing and self.parent.name.startswith(".new-"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(WriteError), atomic_group(tmp_path) as staged:
        (staged / "bundle").mkdir()
        (staged / "bundle/new").write_text("new")
        (staged / "model.tflite").write_text("new")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["bundle", "old"]
