"""A default that a command shows is the default of the function behind it."""

import inspect

import pytest

from keras_effnet.cli.commands import export, search
from keras_effnet.export.bundle import write_bundle
from keras_effnet.search.halving import grid_search


@pytest.mark.parametrize(
    ("command", "function"), [(search.command, grid_search), (export.command, write_bundle)], ids=["search", "export"]
)
def test_defaults_of_command_and_function_agree(command, function):
    signature = inspect.signature(function).parameters
    shown = {option.name: option.default for option in command.params if getattr(option, "show_default", None)}
    shared = {name for name in shown if name in signature}
    assert len(shared) >= 3
    assert {name: shown[name] for name in shared} == {name: signature[name].default for name in shared}
