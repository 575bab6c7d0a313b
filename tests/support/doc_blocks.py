"""Code blocks of the Markdown pages, and the commands in them.

`<!-- not run: REASON -->` on the line before a block says why no test runs it; `<!-- setup: ... -->` marks the blocks
that `.ci/run` reads out of the README and runs. Readers see neither.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("CONTRIBUTING.md"), *(ROOT / "docs").glob("*.md")])
SHOWN = ("mermaid", "text")  # a diagram; a layout or an output: nothing to run

MARK = re.compile(r"^ *<!-- (not run|setup): ([^\n]+) -->\n", flags=re.MULTILINE)
_BLOCK = re.compile(rf"({MARK.pattern})?^ *```(\S*)\n(.*?)^ *```$", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: the page, the line of its fence, its language, its text, and why it is not run, if it is not."""

    page: str
    line: int
    language: str
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text()
    name = page.relative_to(ROOT).as_posix()
    return [
        Block(name, text.count("\n", 0, match.start(4)) + 1, match[4], match[5], match[3])
        for match in _BLOCK.finditer(text)
    ]


ALL = [block for page in PAGES for block in blocks(page)]


def shell_commands(text: str) -> list[list[str]]:
    """Words of each command: comments left out, continued lines joined, `a && b` as two, output not redirected."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, "&&"]:
            if word == "&&":
                found.append(command[: command.index(">")] if ">" in command else command)
                command = []
            else:
                command.append(word)
    return [command for command in found if command]


def python_blocks(page: str) -> list[Block]:
    """Blocks of a page that a test runs."""
    return [block for block in ALL if (block.page, block.language, block.reason) == (page, "python", None)]
