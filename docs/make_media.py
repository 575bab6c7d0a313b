"""Record the media of the README from real runs: an animated terminal and a picture of the browser page.

    python docs/make_media.py terminal RUNS      # runs `keras-effnet quickstart --out RUNS`: images/terminal.svg
    python docs/make_media.py page RUNS          # serves what that run exported: images/page.png

The first needs pyte (extra `docs`), the second playwright (extra `test`) and Chromium. The terminal is played faster
than it ran; its title says how much.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import select
import shutil
import struct
import sys
import termios
import threading
import time
from html import escape
from pathlib import Path

import numpy as np

IMAGES = Path(__file__).resolve().parent / "images"
COLUMNS, ROWS = 104, 22
SECONDS = 24.0  # of the animation, the last screen included
LAST = 8.0  # for which the last screen stands
CELL, LINE, MARGIN, TITLE = 8.4, 18, 14, 30
COLOURS = {
    "red": "#ff7b72",
    "green": "#7ee787",
    "brown": "#e3b341",
    "blue": "#79c0ff",
    "magenta": "#d2a8ff",
    "cyan": "#76e3ea",
}
FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"

BOLD = ' font-weight="bold"'

Span = tuple[int, str, str, bool]  # column, text, colour, bold
Screen = tuple[tuple[Span, ...], ...]  # spans by row


def record(command: list[str], every: float = 0.5) -> list[tuple[float, Screen]]:
    """Run a command in a terminal; return its distinct screens with the seconds since the start."""
    import pyte

    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(ROWS))
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    started, screens = time.monotonic(), []
    running = True
    while running:
        until = time.monotonic() + every
        while running and (left := until - time.monotonic()) > 0:
            if select.select([terminal], [], [], left)[0]:
                try:
                    received = os.read(terminal, 1 << 16)
                except OSError:  # Linux reports the end so
                    received = b""
                stream.feed(received)
                running = bool(received)
        shown = _spans(screen)
        if not screens or screens[-1][1] != shown:
            screens.append((time.monotonic() - started, shown))
    if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit(f"{' '.join(command)} ended with status {status}; nothing is written.")
    return screens


def _spans(screen) -> Screen:
    """The screen's rows as runs of one colour."""
    rows = []
    for row in range(ROWS):
        spans: list[Span] = []
        for column in range(COLUMNS):
            cell = screen.buffer[row][column]
            look = (COLOURS.get(cell.fg, "#e6edf3" if cell.fg == "default" else "#8b949e"), cell.bold)
            if spans and spans[-1][2:] == look:
                spans[-1] = (spans[-1][0], spans[-1][1] + cell.data, *look)
            else:
                spans.append((column, cell.data, *look))
        rows.append(tuple((at, text.rstrip(), *look) for at, text, *look in spans if text.strip()))
    return tuple(rows)


def animation(command: str, screens: list[tuple[float, Screen]]) -> str:
    """An SVG that plays the screens in `SECONDS` and shows the last one where animations do not run."""
    total = screens[-1][0]
    speed = total / (SECONDS - LAST)
    starts = [seconds / speed for seconds, _ in screens]
    width, height = COLUMNS * CELL + 2 * MARGIN, (ROWS + 2) * LINE + TITLE + MARGIN
    title = f"$ {command}   (recorded: {total:.0f} s, played {speed:.0f} times as fast)"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" font-family="{FONT}" '
        'font-size="14">',
        f'<rect width="100%" height="100%" rx="8" fill="#0d1117"/><text x="{MARGIN}" y="{TITLE - 8}" fill="#8b949e">'
        f"{escape(title)}</text>",
    ]
    for row in range(ROWS):
        first = 0
        for index in range(1, len(screens) + 1):  # one element for as long as a row stays the same
            if index < len(screens) and screens[index][1][row] == screens[first][1][row]:
                continue
            if spans := screens[first][1][row]:
                parts.append(_line(row, spans, starts[first], starts[index] if index < len(screens) else None))
            first = index
    return "\n".join([*parts, "</svg>\n"])


def _line(row: int, spans: tuple[Span, ...], start: float, end: float | None) -> str:
    texts = "".join(
        f'<tspan x="{MARGIN + at * CELL:.1f}" fill="{colour}"{BOLD if bold else ""}>{escape(text)}</tspan>'
        for at, text, colour, bold in spans
    )
    keys = [("hidden", 0.0), ("visible", start / SECONDS), *([("hidden", end / SECONDS)] if end is not None else [])]
    values, times = ";".join(key for key, _ in keys), ";".join(f"{at:.4f}" for _, at in keys)
    at_rest = "visible" if end is None else "hidden"
    return (
        f'<text y="{TITLE + (row + 1) * LINE}" xml:space="preserve" visibility="{at_rest}">'
        f'<animate attributeName="visibility" values="{values}" keyTimes="{times}" dur="{SECONDS:.0f}s" '
        f'calcMode="discrete" repeatCount="indefinite"/>{texts}</text>'
    )


def photograph(folder: Path, image: bytes, target: Path) -> None:
    """Serve the files of a folder, drop an image on the page as on a phone's screen, and save the picture."""
    from playwright.sync_api import sync_playwright

    from keras_effnet.export.web.page import page_of
    from keras_effnet.export.web.server import PageServer

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with PageServer(page_of(folder).files) as server, sync_playwright() as play:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 430, "height": 860}, device_scale_factor=2)
        page.goto(server.url)
        page.set_input_files(
            "input[type=file]", files=[{"name": "seven.png", "mimeType": "image/png", "buffer": image}]
        )
        page.wait_for_selector("#classes li", timeout=60_000)
        page.wait_for_timeout(1500)
        page.screenshot(path=target)
        browser.close()
        server.shutdown()


def digit(index: int) -> bytes:
    """One of scikit-learn's digits as a PNG of 256 pixels."""
    import io

    from PIL import Image
    from sklearn.datasets import load_digits

    pixels = (load_digits().images[index] * 255 / 16).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").resize((256, 256), Image.Resampling.BICUBIC).save(stream, "PNG")
    return stream.getvalue()


def main() -> None:
    """Run the command line."""
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["terminal", "page"])
    parser.add_argument("runs", type=Path, help="Folder of runs.")
    options = parser.parse_args()
    if options.what == "terminal":
        screens = record(["keras-effnet", "quickstart", "--out", str(options.runs)])
        (IMAGES / "terminal.svg").write_text(animation("keras-effnet quickstart", screens))
    else:
        photograph(options.runs / "quickstart" / "digits" / "export", digit(7), IMAGES / "page.png")


if __name__ == "__main__":
    main()
