"""Examples in docstrings as code: Markdown would take `>>>` for a quotation. An extension of griffe, for the site."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_SESSION = re.compile(r"^( *)>>> .*(?:\n\1\S.*)*", flags=re.MULTILINE)  # up to the next blank line


class DocstringExamples(Extension):
    """Fences interactive sessions."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Fence the sessions of one docstring."""
        if obj.docstring:
            obj.docstring.value = _SESSION.sub(r"\1```pycon\n\g<0>\n\1```", obj.docstring.value)
