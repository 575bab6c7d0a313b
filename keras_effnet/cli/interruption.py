"""Ctrl-C and SIGTERM: both end a command by `KeyboardInterrupt`. Pure Python."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_REPEATED = 0.1  # seconds after which a discarded exception is raised again
_received: int | None = None


def was_interrupted() -> bool:
    """Whether the running command, or the last one, received a signal to end."""
    return _received is not None


def interrupted_status() -> int:
    """Exit status after an interruption, as in a shell: 143 after SIGTERM, else 130."""
    return 128 + (_received or signal.SIGINT)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `KeyboardInterrupt` on Ctrl-C and SIGTERM until the block ends.

    Python discards an exception that is raised in a finalizer or a callback of C code, and the command would run on; it
    is raised again. Signals that the parent process ignores, as shells do for background jobs, stay ignored.
    """
    global _received
    _received = None
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    hook = sys.unraisablehook
    defaults = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        sys.unraisablehook = _repeated(hook)
        for number, handler in before.items():
            if handler in defaults:
                signal.signal(number, _interrupt)
        yield
    finally:
        for number, handler in before.items():
            if handler in defaults:
                signal.signal(number, handler)
        sys.unraisablehook = hook


def _interrupt(number: int, frame: object) -> None:
    global _received
    _received = number
    raise KeyboardInterrupt


def _repeated(hook: Any) -> Any:
    """Wrap a hook for discarded exceptions: `KeyboardInterrupt` is raised again a moment later."""

    def unraisable(discarded: Any) -> None:
        if not (_received and issubclass(discarded.exc_type, KeyboardInterrupt)):
            hook(discarded)
            return
        again = threading.Timer(_REPEATED, signal.raise_signal, [_received])
        again.daemon = True
        again.start()

    return unraisable
