"""What an export recorded of a `.tflite` file, in files beside it. Pure Python."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from keras_effnet.errors import UserError
from keras_effnet.system.documents import read_json

logger = logging.getLogger(__name__)


def record_of(path: Path, sha256: str) -> dict[str, Any]:
    """What the export recorded of a file: its row of `report.json`, completed from its own record; {} if nothing.

    A record of another sha256 is that of another file, such as one that was replaced by hand.
    """
    merged: dict[str, Any] = {}
    own = _read(path.with_suffix(".json"))
    if own.get("sha256") == sha256:
        merged |= own
    report = _read(path.with_name("report.json"))
    for row in _rows(report):
        if mapping(row.get("export")).get("sha256") == sha256:
            merged |= {key: row[key] for key in ("quantization", "report", "latency") if key in row}
            merged["recommended"] = report.get("recommended")
    return merged


def _rows(report: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    rows = report.get("rows")
    return (row for row in (rows if isinstance(rows, list) else []) if isinstance(row, Mapping))


def _read(path: Path) -> Mapping[str, Any]:
    """A JSON object beside a file; empty if there is none, with a warning if it is damaged."""
    if not path.is_file():
        return {}
    try:
        return mapping(read_json(path))
    except UserError as error:
        logger.warning("Not used: %s", error)
        return {}


def mapping(value: Any) -> Mapping[str, Any]:
    """A value of JSON if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}
