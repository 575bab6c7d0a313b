"""Custom networks as YAML files, accepted wherever a network's name is. Pure Python."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml

from keras_effnet.architecture.specs import ArchitectureSpec, StageSpec
from keras_effnet.errors import UserError
from keras_effnet.system.documents import parse_yaml, read_text
from keras_effnet.system.files import why_no_file, write_text
from keras_effnet.system.typed_values import build

SUFFIXES = (".yaml", ".yml")


def write_spec(spec: ArchitectureSpec, path: str | Path) -> None:
    """Write a network to a YAML file, without the fields that have their default value.

    Args:
        spec: `ArchitectureSpec`.
        path: Path of the file.

    Example:

    >>> write_spec(architecture_spec("resnet18", width=0.5), "slim.yaml")
    >>> keras_effnet.EfficientNet(architecture_spec("slim.yaml"))
    """
    values = _changed(spec)
    values["stages"] = [_changed(stage) for stage in spec.stages]
    write_text(path, yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=120))


def _changed(spec: ArchitectureSpec | StageSpec) -> dict[str, Any]:
    """The fields whose values differ from the defaults, tuples as lists."""
    defaults = {field.name: field.default for field in fields(spec)}
    values = {name: value for name, value in asdict(spec).items() if value != defaults[name]}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def read_spec(path: str | Path) -> ArchitectureSpec:
    """Read a network from a YAML file, written by `write_spec` or by hand.

    Args:
        path: Path of the file.

    Returns:
        An `ArchitectureSpec`.

    Raises:
        UserError: The file is missing or not YAML, or a field is missing, unknown or invalid.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"Network file {path} {why_no_file(path)}.")
    try:
        values = parse_yaml(read_text(path))
    except UserError as error:
        raise UserError(f"{path} is not a network file: {error}") from None
    try:
        return build(ArchitectureSpec, values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
