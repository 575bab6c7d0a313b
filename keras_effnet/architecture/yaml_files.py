"""Networks of one's own as YAML files, which stand wherever a network's name does. Pure Python.

Imports `architecture`, `runs`, `errors`.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml

from keras_effnet.architecture.specs import ArchitectureSpec, StageSpec
from keras_effnet.errors import UserError, one_of
from keras_effnet.system.files import write_text

SUFFIXES = (".yaml", ".yml")


def write_spec(spec: ArchitectureSpec, path: str | Path) -> None:
    """Writes a network as a YAML file: what differs from the defaults of `ArchitectureSpec` and `StageSpec`.

    Example:

    >>> write_spec(architecture_spec("resnet18", width=0.5), "slim.yaml")
    >>> keras_effnet.EfficientNet(architecture_spec("slim.yaml"))
    """
    values = _changed(spec)
    values["stages"] = [_changed(stage) for stage in spec.stages]
    write_text(path, yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=120))


def _changed(spec: ArchitectureSpec | StageSpec) -> dict[str, Any]:
    """The fields that are not what they are by default, tuples as lists."""
    defaults = {field.name: field.default for field in fields(spec)}
    values = {name: value for name, value in asdict(spec).items() if value != defaults[name]}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def read_spec(path: str | Path) -> ArchitectureSpec:
    """Reads a network that `write_spec` wrote, or a person.

    Raises:
        UserError: There is no such file, it is no YAML, or a field is missing, unknown or senseless.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"There is no network file {path}.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} is no network file: {' '.join(str(error).split())}") from None
    try:
        stages = tuple(_built(StageSpec, stage) for stage in _mapping(values).pop("stages", None) or ())
        return _built(ArchitectureSpec, {**values, "stages": stages})
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _mapping(values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UserError(f"fields and their values are wanted, `stem: 32` for instance, not {values!r}.")
    return values


def _built(kind: type, values: Any):
    for name in _mapping(values):
        one_of("field", name, kind.__dataclass_fields__)
    made = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    try:
        return kind(**made)
    except TypeError as error:  # what is missing, by name; or text where a number belongs
        raise UserError(f"{kind.__name__}: {str(error).removeprefix(f'{kind.__name__}.__init__() ')}.") from None
