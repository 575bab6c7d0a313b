"""Silence what Pillow prints about damaged files: they are reported once, with a reason. Pure Python."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from keras_effnet.system.private_api import silence_libtiff


class _Decoding(threading.local):
    """Filter of warnings and log records that applies only in threads that are decoding.

    `warnings.catch_warnings` replaces the filters of the whole process, which threads cannot do concurrently.
    """

    active = False

    def match(self, module: str) -> bool:
        """Whether to ignore a warning that is issued by a module."""
        return self.active and module.startswith(("PIL.", "pillow_heif."))

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to keep a log record."""
        return not self.active


_DECODING = _Decoding()
_FILTER = ("ignore", None, Warning, _DECODING, 0)


@contextmanager
def without_messages() -> Iterator[None]:
    """Ignore warnings and log records of Pillow in the block, in this thread, and messages of libtiff from now on."""
    silence_libtiff()
    logging.getLogger("PIL.TiffImagePlugin").addFilter(_DECODING)
    if _FILTER not in warnings.filters:  # others may have reset them
        warnings.filters.insert(0, _FILTER)  # type: ignore[attr-defined]
    _DECODING.active = True
    try:
        yield
    finally:
        _DECODING.active = False
