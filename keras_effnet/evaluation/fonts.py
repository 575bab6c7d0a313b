"""Fonts for class names in any script: the installed fonts that have the glyphs which matplotlib's own lacks."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

_SCALABLE = 1  # flag of a face with outlines; matplotlib cannot draw bitmaps such as those of colour emoji
_SHOWN = 8  # characters named in a message
_DEFAULT = "DejaVu Sans"  # comes with matplotlib


def _characters(path: str) -> frozenset[int]:
    """Code points that a font file can draw; none if it is damaged or holds bitmaps."""
    from matplotlib.ft2font import FT2Font

    try:
        face = FT2Font(path)
        flags: Any = getattr(face.face_flags, "value", face.face_flags)  # an int before matplotlib 3.10
        return frozenset(face.get_charmap()) if flags & _SCALABLE else frozenset()
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@lru_cache(maxsize=64)
def _families(missing: frozenset[int]) -> tuple[tuple[str, ...], frozenset[int]]:
    """Families of installed fonts that have these code points, as few as possible, and the code points without any."""
    from matplotlib.font_manager import fontManager

    found: dict[str, frozenset[int]] = {}
    for font in fontManager.ttflist:
        if font.name not in found and (held := missing & _characters(font.fname)):
            found[font.name] = held
    chosen: list[str] = []
    while missing and found:
        best = max(found, key=lambda name: len(found[name] & missing))
        if not found[best] & missing:
            break
        chosen.append(best)
        missing -= found.pop(best)
    return tuple(chosen), missing


def _texts(figure: Figure) -> list[Any]:
    from matplotlib.text import Text

    return figure.findobj(Text)


@lru_cache(maxsize=1)
def _default_characters() -> frozenset[int]:
    from matplotlib.font_manager import findfont

    return _characters(findfont(_DEFAULT))


@contextmanager
def readable_texts(figure: Figure) -> Iterator[None]:
    """Draw the texts of a figure as they are, with fonts that have their glyphs.

    One warning names the characters that no font has. A pair of `$` in a name is no formula.

    Args:
        figure: Figure with all its texts, to be saved within the context.
    """
    texts = _texts(figure)
    for text in texts:
        if "$" in text.get_text():  # of a caller; the labels that matplotlib computes are still empty
            text.set_parse_math(False)
    used = {ord(letter) for text in texts for letter in text.get_text() if not letter.isspace()}
    missing = frozenset() if max(used, default=0) < 128 else frozenset(used) - _default_characters()
    if not missing:
        yield
        return
    families, without = _families(missing)
    if without:
        named = "".join(map(chr, sorted(without)[:_SHOWN])) + ("..." if len(without) > _SHOWN else "")
        logger.warning(
            "No installed font can draw %s: boxes are shown instead. Install one, such as the Noto fonts.", named
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        figure.draw_without_rendering()  # creates the labels of all ticks
        for text in _texts(figure):
            text.set_fontfamily([_DEFAULT, *families])
        yield
