"""A headless Chromium for tests of pages, and pages for it, or a skip with the reason."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from keras_effnet.errors import UserError
from keras_effnet.export.web.page import page_of
from keras_effnet.export.web.server import PageServer

SANDBOX = ("--no-sandbox",)
# Of LiteRT.js, which writes all its messages to the error stream.
_RUNTIMES_OWN = re.compile(r"^(INFO|WARNING):|No available adapters|Failed to create default WebGPU device")


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


@contextmanager
def served(folder: Path) -> Iterator[PageServer]:
    """The page of a folder of files, served."""
    try:
        page = page_of(folder)
    except UserError as error:
        pytest.skip(str(error))
    with PageServer(page.files) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@contextmanager
def opener(browser: Any, default: str) -> Iterator[Callable[..., Any]]:
    """Function that opens a page; nothing may be asked of another host, and no error of ours be in the console."""
    contexts, errors, strangers = [], [], []

    def show(url: str = default, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1000, "height": 900}, **options})
        contexts.append(context)
        context.on(
            "request", lambda each: None if each.url.startswith((url, "blob:", "data:")) else strangers.append(each.url)
        )
        tab = context.new_page()
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
        tab.goto(url)
        tab.get_by_text("is ready").wait_for()
        return tab

    yield show
    for context in contexts:
        context.close()
    assert strangers == []
    assert [error for error in errors if not _RUNTIMES_OWN.search(error)] == []
