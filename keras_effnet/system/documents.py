"""Text files read defensively: bounded size, no code, errors of one line that name the file; strict JSON. Pure Python.

`typed_values` checks what the documents contain.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from keras_effnet.errors import UserError

_TEXT_BYTES = 64_000_000
_YAML_BYTES = 300_000  # PyYAML needs a second for 30 to 100 kB
_YAML_NODES = 50_000  # with every alias expanded
# What PyYAML raises besides its own errors: for impossible dates, numbers of thousands of digits, deep nesting.
_PARSE_ERRORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


def read_text(path: str | Path, *, limit: int = _TEXT_BYTES) -> str:
    """Read a UTF-8 file, with or without a byte order mark.

    Args:
        path: Path.
        limit: Int, largest size in bytes.

    Raises:
        UserError: The file is missing, unreadable, too large or not UTF-8.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    if len(content) > limit:
        raise UserError(f"{path} is larger than {limit / 1e6:g} MB, too large for such a file.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8: byte {error.start} is {content[error.start]:#04x}.") from None


def read_lines(path: str | Path) -> list[str]:
    """Read the lines of a UTF-8 file, such as class names. Only line feeds separate lines: names may contain others.

    Raises:
        UserError: As `read_text`, or the file contains NUL bytes.
    """
    text = read_text(path)
    if "\0" in text:
        raise UserError(f"{path} is not a text file: it contains NUL bytes.")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def parse_json(text: str) -> Any:
    """Parse JSON.

    Raises:
        UserError: The text is not JSON; the message is the reason, to be completed by the caller.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise UserError("it is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"it is not JSON ({error})") from None


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """Format a value as JSON that every parser reads: RFC 8259 has neither NaN nor infinities, they become null.

    Args:
        value: Dicts, lists, tuples, text and numbers; NumPy's scalars and arrays; the text of anything else.
        indent: Int, spaces per level; None for one line.

    Example:

    >>> json_text({"sqnr_db": float("-inf")}, indent=None)
    '{"sqnr_db": null}'
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _finite(value.tolist()) if hasattr(value, "tolist") else value


class _Loader(yaml.SafeLoader):
    """YAML's safe loader with a bound on the number of nodes, all aliases expanded; nothing is ambiguous.

    Of a name that stands twice YAML would keep the last value, and read the integers `1:30` as 90 and `010` as 8.
    """

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _weight(node, {}) > _YAML_NODES:
            raise ValueError(f"it has more than {_YAML_NODES:,} values, aliases expanded")
        return node

    def construct_document(self, node: yaml.Node) -> Any:
        _refuse_doubles(node, set())
        return super().construct_document(node)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        number, digits = super().construct_yaml_int(node), node.value.lstrip("+-").replace("_", "")
        if ":" in digits or (digits.isdecimal() and int(digits) != abs(number)):
            problem = f"{node.value} is {number} in YAML: write a decimal number, or quote it"
            raise ConstructorError(None, None, problem, node.start_mark)
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _refuse_doubles(node: yaml.Node, seen: set[int]) -> None:
    """Refuse names that stand twice in one mapping; those merged by `<<` may be set again."""
    if id(node) in seen or not isinstance(node, yaml.CollectionNode):
        return
    seen.add(id(node))
    names = set()
    for child in node.value:
        if isinstance(child, tuple) and isinstance(child[0], yaml.ScalarNode):
            if (name := (child[0].tag, child[0].value)) in names:
                raise ConstructorError(None, None, f"{child[0].value!r} is set twice", child[0].start_mark)
            names.add(name)
        for each in child if isinstance(child, tuple) else (child,):
            _refuse_doubles(each, seen)


def _weight(node: yaml.Node, known: dict[int, int]) -> int:
    """Number of nodes below a node, each alias counted in full; a node that contains itself has no end."""
    if id(node) not in known:
        known[id(node)] = _YAML_NODES + 1  # while it is being counted
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        flat = [each for child in children for each in (child if isinstance(child, tuple) else (child,))]
        known[id(node)] = 1 + sum(_weight(child, known) for child in flat)
    return known[id(node)]


def parse_yaml(text: str) -> Any:
    """Parse YAML into plain values: no tags of Python, no aliases that expand without bound.

    Raises:
        UserError: The text is not YAML, or too large; the message is the reason, to be completed by the caller.
    """
    if len(text) > _YAML_BYTES:
        raise UserError(f"it has {len(text):,} characters, more than {_YAML_BYTES:,}")
    try:
        return yaml.load(text, _Loader)  # derived from SafeLoader
    except yaml.YAMLError as error:
        raise UserError(f"it is not valid YAML ({_place(error)})") from None
    except RecursionError:
        raise UserError("it is nested too deeply") from None
    except _PARSE_ERRORS as error:
        raise UserError(f"it is not valid YAML ({' '.join(str(error).split(';')[0].split())[:200]})") from None


def _place(error: yaml.YAMLError) -> str:
    """The problem of a YAML error and its line, without the excerpts that span several lines."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return " ".join(str(error).split())[:200]
    return f"line {mark.line + 1}: {problem}".replace("unexpected ", "")[:200]  # as in "found unexpected end of stream"


def read_json(path: str | Path, *, limit: int = _TEXT_BYTES) -> Any:
    """Read a JSON file.

    Args:
        path: Path.
        limit: Int, largest size in bytes.

    Raises:
        UserError: The file cannot be read or is not JSON.
    """
    text = read_text(path, limit=limit)
    try:
        return parse_json(text)
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}.") from None


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file; see `parse_yaml`.

    Raises:
        UserError: The file cannot be read, is too large or is not YAML.
    """
    text = read_text(path, limit=_YAML_BYTES)
    try:
        return parse_yaml(text)
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}.") from None
