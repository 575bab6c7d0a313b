"""Class names in any script: drawn where a font has the glyphs, else one warning, never a formula."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import Image

from keras_effnet.evaluation import fonts, plots

HEN, COCK, EMOJI = "\u96de", "\u516c", "\U0001f414"


@pytest.fixture
def one_font(monkeypatch, tmp_path):
    """No fonts but matplotlib's own and one with filled squares for two Chinese characters."""
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "hen", "cock"])
    builder.setupCharacterMap({ord(HEN): "hen", ord(COCK): "cock"})
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 800), (900, 800), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "hen": square, "cock": square})
    builder.setupHorizontalMetrics(dict.fromkeys((".notdef", "hen", "cock"), (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "squares.ttf")
    own = [font for font in font_manager.fontManager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(own))
    font_manager.fontManager.addfont(tmp_path / "squares.ttf")
    for cached in (fonts._families, font_manager.fontManager._findfont_cached, font_manager._get_font):
        cached.cache_clear()
    yield
    fonts._families.cache_clear()


def drawn(name, path):
    plots.image_grid(np.full((1, 8, 8, 3), 255), [name], path, columns=1)
    return np.asarray(Image.open(path).convert("L"), float)


def test_a_name_is_drawn_with_the_font_that_has_its_glyphs(one_font, tmp_path, caplog):
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        squares = drawn(HEN + COCK, tmp_path / "a.png")
        drawn(HEN + " caf\u00e9", tmp_path / "b.png")
    assert not caplog.records
    assert (squares < 64).sum() > 150  # two filled squares, where a missing glyph is an outline


def test_glyphs_of_no_font_are_one_warning(one_font, tmp_path, caplog):
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        matrix = np.eye(30, dtype=int)
        plots.confusion_matrix(matrix, [chr(0x5000 + number) for number in range(29)] + [EMOJI], tmp_path / "m.png")
    (record,) = caplog.records
    assert "No installed font can draw \u5000\u5001" in record.getMessage() and "..." in record.getMessage()


def test_plain_names_search_no_fonts(monkeypatch, tmp_path):
    monkeypatch.setattr(fonts, "_families", lambda missing: pytest.fail("searched"))
    drawn("caf\u00e9 \u0416 \u03b1", tmp_path / "a.png")


@pytest.mark.parametrize("name", ["$\\bad$", "US$ or A$", "a_b^c $", "$$"])
def test_dollars_are_no_formula(name, tmp_path):
    drawn(name, tmp_path / "a.png")
    plots.explanation(np.zeros((8, 8, 3)), np.zeros((2, 2)), [(name, 0.6), ("x", 0.4)], 0, tmp_path / "b.png")
    plots.confusion_matrix(np.eye(2, dtype=int), [name, "x"], tmp_path / "c.png")
    plots.class_counts({"train": [3, 4]}, [name, "x"], tmp_path / "d.png")
