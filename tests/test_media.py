"""The animated terminal of the README: what it shows, and what is left where animations do not run."""

from __future__ import annotations

import importlib.util
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
LINE = "{http://www.w3.org/2000/svg}text"


@pytest.fixture(scope="module")
def media():
    spec = importlib.util.spec_from_file_location("make_media", DOCS / "make_media.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def screens(media, *texts):
    """One screen every ten seconds, each with one line."""
    blank = ((),) * (media.ROWS - 1)
    return [(10.0 * place, (((0, text, "#fff", False),), *blank)) for place, text in enumerate(texts)]


def visible(svg):
    """Texts that a viewer without animations shows."""
    return [
        "".join(line.itertext()).strip()
        for line in ET.fromstring(svg).iter(LINE)
        if line.get("visibility") == "visible"
    ]


def test_the_last_screen_stays_where_nothing_moves(media):
    svg = media.animation("command", screens(media, "start", "a < b & c", "a < b & c", "end"))
    assert visible(svg) == ["end"]
    assert len(list(ET.fromstring(svg).iter(LINE))) == 4  # the title, and a line once for as long as it stands


def test_lines_appear_in_their_order_within_the_animation(media):
    svg = media.animation("command", screens(media, "one", "two", "three"))
    times = [[float(time) for time in each.split(";")] for each in re.findall(r'keyTimes="([^"]+)"', svg)]
    assert all(each == sorted(each) and each[0] >= 0 and each[-1] <= 1 for each in times)
    starts = [each[1] for each in times]
    assert starts == sorted(starts) and starts[-1] == pytest.approx(1 - media.LAST / media.SECONDS, abs=1e-3)


def test_the_recording_of_the_readme_names_no_folder_of_the_machine_that_made_it():
    text = (DOCS / "images" / "terminal.svg").read_text()
    assert "Total time" in text and "runs/quickstart/digits" in text
    assert not re.search(r"/(tmp|home|root|work)/", text)
