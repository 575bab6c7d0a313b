"""Self-contained HTML pages from Jinja2 templates. Pure Python.

Everything a template inserts is escaped unless it is `Markup`. Templates extend `base.html.j2`, which holds the style
that all pages share and a content security policy that forbids the page to load anything.
"""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_SHARED = Path(__file__).parent / "templates"


def render(template: Path, **values: object) -> str:
    """Render a template to HTML.

    `tojson` writes strict JSON (no NaN) in which `<`, `>`, `&` and `'` are escaped, so that it can stand in a script
    element.

    Args:
        template: Path of the template. It may extend or include templates of its own folder and `base.html.j2`.
        values: The variables of the template; one that is missing raises `jinja2.UndefinedError`.

    Returns:
        String, the page.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, _SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    return environment.get_template(template.name).render(**values)


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is, on one line: no HTML, links, emphasis or code."""
    return re.sub(r"([\\`*<>&\[\]|])", r"\\\1", " ".join(text.split()))
