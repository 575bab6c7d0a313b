"""Run folders and atomic files."""

from __future__ import annotations

import errno
import json
import os
import platform
import threading
import time
from importlib import metadata

import filelock
import pytest
from locks import held_by_another

from keras_effnet.errors import UserError
from keras_effnet.system.files import atomic, write_text
from keras_effnet.system.machine import cpu_name, environment
from keras_effnet.system.run_folders import LOCK, kept_if_used, locked, new_run


def test_a_file_appears_whole(tmp_path):
    with atomic(tmp_path / "model.keras") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "model.keras").exists()
        assert temporary.suffix == ".keras"  # savers go by it
    assert (tmp_path / "model.keras").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_a_failure_leaves_the_earlier_file_and_nothing_else(tmp_path):
    (tmp_path / "results.csv").write_text("old")
    with pytest.raises(RuntimeError), atomic(tmp_path / "results.csv") as temporary:
        temporary.write_text("half of the ne")
        raise RuntimeError("disk full")
    assert (tmp_path / "results.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


def test_write_text_replaces(tmp_path):
    write_text(tmp_path / "labels.txt", "a\n")
    write_text(tmp_path / "labels.txt", "b\n")
    assert (tmp_path / "labels.txt").read_text() == "b\n"


def test_runs_of_one_name_are_numbered(tmp_path):
    folders = [new_run("train", "digits", tmp_path) for _ in range(3)]
    assert [str(folder.relative_to(tmp_path)) for folder in folders] == [
        "train/digits",
        "train/digits-2",
        "train/digits-3",
    ]


@pytest.mark.parametrize("wrote", [False, True])
def test_a_run_that_fails_before_it_wrote_anything_leaves_no_folder(tmp_path, wrote):
    folder = new_run("train", "digits", tmp_path)
    with pytest.raises(UserError), kept_if_used(folder):
        if wrote:
            (folder / "args.yaml").touch()
        raise UserError("no such weights")
    assert folder.exists() == wrote


def test_a_run_that_ends_well_keeps_its_folder(tmp_path):
    folder = new_run("train", "digits", tmp_path)
    with kept_if_used(folder):
        pass
    assert folder.exists()


def test_a_run_says_what_it_depended_on(tmp_path):
    saved = json.loads((new_run("train", "digits", tmp_path) / "env.json").read_text())
    assert saved == environment()
    assert saved["python"] == platform.python_version()
    assert saved["packages"]["keras"] == metadata.version("keras")
    assert saved["cpu"] == cpu_name() != ""


@pytest.mark.parametrize("root", ["file", "file/below"])
def test_a_place_that_cannot_be_written_is_named_with_the_cure(tmp_path, root):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^Cannot write run folder .*file.*: (File|Not).*\. Choose another folder\.$"):
        new_run("train", "digits", tmp_path / root)


def test_a_second_process_is_refused_at_once_and_learns_who_holds_the_folder(tmp_path):
    with held_by_another(tmp_path) as other:
        holder = rf"process {other.pid} on {platform.node()} since 20\d\d-\d\d-\d\d "
        with (
            pytest.raises(UserError, match=rf"{tmp_path} is in use by {holder}.*\. Wait .*, or stop"),
            locked(tmp_path),
        ):
            pass


def test_the_lock_of_a_killed_process_is_no_obstacle(tmp_path):
    with held_by_another(tmp_path) as other:
        other.kill()
        other.wait()
        assert (tmp_path / LOCK).exists()  # its file is still there, the lock is not
        with locked(tmp_path):
            assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} ")
    assert not any(tmp_path.iterdir())


def test_a_lock_file_of_the_future_is_no_obstacle_and_the_clock_does_not_free_a_lock(tmp_path, monkeypatch):
    (tmp_path / LOCK).write_text("process 1 on elsewhere since 2099-01-01 00:00:00+00:00\n")
    os.utime(tmp_path / LOCK, (time.time() + 1e9,) * 2)
    with locked(tmp_path):
        pass
    with held_by_another(tmp_path):
        monkeypatch.setattr(time, "time", lambda: 0.0)
        with pytest.raises(UserError, match="in use by process"), locked(tmp_path):
            pass


def test_locks_of_one_thread_nest_and_another_thread_is_refused(tmp_path):
    refusals = []

    def enter():
        try:
            with locked(tmp_path):
                pass
        except UserError as error:
            refusals.append(error)

    with locked(tmp_path):
        with locked(tmp_path):
            pass
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert len(refusals) == 1
    enter()
    assert len(refusals) == 1


def test_a_lock_file_with_other_content_names_nobody(tmp_path):
    with held_by_another(tmp_path):
        (tmp_path / LOCK).write_bytes(b"\x1b[31mrm -rf\n" * 1000)
        with pytest.raises(UserError, match=f"{tmp_path} is in use by another process."), locked(tmp_path):
            pass


def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch, caplog):
    def unsupported(*_, **__):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(filelock.FileLock, "acquire", unsupported)
    with locked(tmp_path):
        pass
    assert "file system without locks: run only one process" in caplog.text


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").touch()
    run = tmp_path / "file" / "run"
    with pytest.raises(UserError, match=rf"Cannot write to {run}: Not a directory\. Choose another"), locked(run):
        pass


def test_an_unused_run_folder_is_removed_although_it_was_locked(tmp_path):
    folder = new_run("train", "digits", tmp_path)
    with pytest.raises(UserError), kept_if_used(folder), held_by_another(folder):
        raise UserError("no such weights")
    assert not folder.exists()
