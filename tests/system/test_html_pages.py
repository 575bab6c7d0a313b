"""HTML pages: what a template inserts stays text, and the page loads nothing."""

from __future__ import annotations

import json
import re

import jinja2
import pytest

from keras_effnet.system.html_pages import render

HOSTILE = "</script ><script>document.title='taken'</script>\"'&{{ title }}{% raw %}<!--"


@pytest.fixture
def template(tmp_path):
    """Function that writes a template which extends the shared base, and returns its path."""

    def write(content: str):
        path = tmp_path / "page.html.j2"
        path.write_text('{% extends "base.html.j2" %}{% block content %}' + content + "{% endblock %}")
        return path

    return write


def test_inserted_text_is_escaped(template):
    page = render(template('<p title="{{ text }}">{{ text }}</p>'), title=HOSTILE, text=HOSTILE)
    assert "<script" not in page and "<!--" not in page
    assert page.count("&lt;script&gt;") == 4  # in the title and the heading of the base, and twice here
    assert page.count("&#34;&#39;&amp;{{ title }}{% raw %}&lt;!--") == 4


def test_a_heading_from_right_to_left_has_its_own_direction(template):
    page = render(template(""), title="\u05ea\u05e8\u05e0\u05d2\u05d5\u05dc")
    assert '<html lang="en">' in page and '<h1 dir="auto">\u05ea' in page


def test_json_cannot_close_its_script(template):
    data = {"b": [HOSTILE], "a": 1.5}
    page = render(template('<script type="application/json">{{ data | tojson }}</script>'), title="", data=data)
    (script,) = re.findall(r"<script[^>]*>(.*?)</script", page, re.DOTALL)
    assert json.loads(script) == data
    assert list(json.loads(script)) == ["b", "a"]


def test_json_has_no_nan(template):
    with pytest.raises(ValueError, match="not JSON compliant"):
        render(template("{{ data | tojson }}"), title="", data=float("nan"))


def test_a_missing_variable_is_an_error(template):
    with pytest.raises(jinja2.UndefinedError, match="'text' is undefined"):
        render(template("{{ text }}"), title="")


def test_a_page_may_load_nothing(template):
    page = render(template(""), title="A page")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert "://" not in page
