"""A headless Chromium for tests of pages, or a skip with the reason."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

SANDBOX = ("--no-sandbox",)


@contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """Playwright's browser."""
    api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on the path")
    with api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=path, args=[*SANDBOX, *arguments])
        yield found
        found.close()
