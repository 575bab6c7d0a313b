"""LiteRT.js from npm, as the lockfile pins it. Standard library only: the build of a wheel uses it as well."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

VERSION = "2.5.3"  # of package.json; a test compares them
LOCK = Path(__file__).with_name("npm")  # folder of package.json and package-lock.json
# Builds of the runtime: with relaxed SIMD, without, with threads, and with WebAssembly's promises for WebGPU.
_BUILDS = ("", "compat_", "threaded_", "jspi_")
# File of the page -> file of the packages.
FILES = {
    "core.js": "@litertjs/core/dist/index.js",
    "wasm-utils.js": "@litertjs/wasm-utils/dist/index.js",
    **{
        f"wasm/litert_wasm_{build}internal.{kind}": f"@litertjs/core/wasm/litert_wasm_{build}internal.{kind}"
        for build in _BUILDS
        for kind in ("js", "wasm")
    },
}
_SECONDS = 300  # for 30 MB
_COMMAND = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--loglevel=error")


class NpmError(Exception):
    """LiteRT.js could not be installed; the message is one sentence."""


def complete(folder: Path) -> bool:
    """Whether a folder holds all files of the runtime."""
    return all((folder / name).is_file() for name in FILES)


def install(folder: Path) -> None:
    """Install the runtime into a new folder. npm compares what it downloads with the hashes of the lockfile.

    No script of a package is run. The folder appears whole or not at all.

    Args:
        folder: Path; an incomplete folder is replaced.

    Raises:
        NpmError: There is no npm, it failed, or the packages lack a file.
        OSError: The folder cannot be written.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise NpmError("npm is not installed")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".litert-", dir=folder.parent) as temporary:
        work, staged = Path(temporary, "npm"), Path(temporary, "files")
        shutil.copytree(LOCK, work)
        _run([npm, *_COMMAND], work)
        for name, source in FILES.items():
            path = work / "node_modules" / source
            if not path.is_file():
                raise NpmError(f"the package of npm lacks {source}")
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            path.replace(staged / name)
        if complete(folder):  # another process was faster
            return
        shutil.rmtree(folder, ignore_errors=True)
        staged.replace(folder)


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise NpmError(f"npm took longer than {_SECONDS} s") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise NpmError(f"npm failed: {' '.join(lines)[:300] or done.returncode}")
