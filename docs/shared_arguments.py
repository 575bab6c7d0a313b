"""Signatures of functions that are decorated with `called_with(Arguments)`. An extension of griffe, for the site."""

from __future__ import annotations

import re
from typing import Any

from griffe import Class, Extension, Function, Module, Object, Parameters

_DECORATOR = re.compile(r"called_with\((\w+)\)")


class SharedArguments(Extension):
    """Gives a function the parameters of its class of arguments; runs after griffe's extension for dataclasses."""

    def on_package(self, *, pkg: Module, **kwargs: Any) -> None:
        """Look through all modules of a package."""
        self._visit(pkg)

    def _visit(self, place: Object) -> None:
        for each in place.members.values():
            if isinstance(each, Module):
                self._visit(each)
            elif isinstance(each, Function):
                for name in _DECORATOR.findall(" ".join(str(decorator.value) for decorator in each.decorators)):
                    arguments = place.members[name]
                    assert isinstance(arguments, Class)
                    each.parameters = Parameters(*(one for one in arguments.parameters if one.name != "self"))
                    each.decorators = []
