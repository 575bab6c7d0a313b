"""Targets with which the fuzzing harness is tested."""

from __future__ import annotations

import os
import time
from pathlib import Path

from fuzzing import through_cli

from keras_effnet.errors import UserError, VerificationError


def obey(path: Path) -> None:
    """Do what the file says."""
    match path.read_text():
        case "refuse":
            raise UserError("refused")
        case "verify":
            raise VerificationError("refused")
        case "crash":
            os.abort()
        case "hang":
            time.sleep(60)
        case "raise":
            raise KeyError("missing")
        case "lines":
            raise UserError("one line\nand another")


def info(path: Path) -> None:
    """Show the network that the file names."""
    through_cli("info", path.read_text())
