"""Custom networks as YAML files, accepted wherever a network's name is. Pure Python."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from keras_effnet.architecture.specs import ArchitectureSpec, StageSpec
from keras_effnet.errors import UserError, one_of
from keras_effnet.system.files import write_text

SUFFIXES = (".yaml", ".yml")

T = TypeVar("T", ArchitectureSpec, StageSpec)


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
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"Network file {path} does not exist.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not a network file: {' '.join(str(error).split())}") from None
    try:
        stages = tuple(_built(StageSpec, stage) for stage in _mapping(values).pop("stages", None) or ())
        return _built(ArchitectureSpec, {**values, "stages": stages})
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _mapping(values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UserError(f"expected fields with values, such as `stem: 32`, got {values!r}.")
    return values


def _built(kind: type[T], values: Any) -> T:
    for name in _mapping(values):
        one_of("field", name, kind.__dataclass_fields__)
    made: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    try:
        return kind(**made)
    except TypeError as error:  # names the missing field, or the one with text instead of a number
        raise UserError(f"{kind.__name__}: {str(error).removeprefix(f'{kind.__name__}.__init__() ')}.") from None
