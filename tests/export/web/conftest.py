"""Browser for the tests of pages, and packages of npm as the lockfile of tests/support/npm pins them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from chromium import launcher, opener

LOCK = Path(__file__).parents[2] / "support/npm"


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory) -> Path:
    """Folder of the packages; no script of them is run."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("npm")
    for path in LOCK.iterdir():
        shutil.copy(path, folder)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip(f"npm failed: {done.stderr.strip()[:200]}")
    return folder / "node_modules"


@pytest.fixture(scope="module")
def launch():
    with launcher() as found:
        yield found


@pytest.fixture(scope="module")
def browser(launch):
    return launch("--disable-gpu", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture
def opened(browser, site):
    """Function that opens the page that the module's `site` serves."""
    with opener(browser, site.url) as show:
        yield show
