"""A headless Chromium for tests of pages, or a skip with the reason."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

SANDBOX = ("--no-sandbox",)


@contextmanager
def launcher() -> Iterator[Callable[..., Any]]:
    """Function from command-line arguments to playwright's browser."""
    api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on the path")
    found = []
    with api.sync_playwright() as play:

        def launch(*arguments: str) -> Any:
            found.append(play.chromium.launch(executable_path=path, args=[*SANDBOX, *arguments]))
            return found[-1]

        yield launch
        for browser in found:
            browser.close()


@contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """One browser; only one playwright can be open in a process."""
    with launcher() as launch:
        yield launch(*arguments)
