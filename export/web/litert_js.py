"""Where the page gets LiteRT.js from: the wheel, the user's cache, or once from npm. Pure Python."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from keras_effnet.errors import UserError
from keras_effnet.export.web.npm_ci import FILES, VERSION, NpmError, complete, install
from keras_effnet.system.files import cannot_write

PACKAGED = Path(__file__).with_name("runtime")  # only in wheels; absent in a checkout
_MEGABYTES = 38


def cache_folder() -> Path:
    """Folder of this version of LiteRT.js in the user's cache."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "keras_effnet" / f"litert-js-{VERSION}"


def runtime_files(announce: Callable[[str], None] = lambda line: None) -> dict[str, Path]:
    """Files of LiteRT.js, by their names on the page.

    Args:
        announce: Called with a line of text before the files are taken from npm, which happens once.

    Raises:
        UserError: They are not there and npm cannot get them.
    """
    if complete(PACKAGED):
        return _named(PACKAGED)
    folder = cache_folder()
    if not complete(folder):
        announce(f"Taking LiteRT.js {VERSION} ({_MEGABYTES} MB) from npm into {folder}, once.")
        try:
            install(folder)
        except NpmError as error:
            raise UserError(
                f"The page needs LiteRT.js {VERSION}, and {error}. Install Node.js and "
                "run again with a network, or copy the folder from a machine where it ran: "
                f"{folder}."
            ) from None
        except OSError as error:
            raise cannot_write(f"to {folder}", error) from None
    return _named(folder)


def _named(folder: Path) -> dict[str, Path]:
    return {f"litert/{name}": folder / name for name in FILES}
