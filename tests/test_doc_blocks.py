"""Code blocks of the pages: each is run or says why not, and its commands are those of the programs that they name.

`test_docs_run.py` runs them, in minutes; this reads the arguments of every command, in a second.
"""

from __future__ import annotations

import ast
import configparser
import re
from contextlib import suppress

import click
import pytest
from doc_blocks import ALL, MARK, PAGES, ROOT, SHOWN, shell_commands
from PIL import Image

from keras_effnet import datasets
from keras_effnet.cli.app import cli

COMMANDS = [(str(block), words) for block in ALL if block.language == "bash" for words in shell_commands(block.text)]
RUN = ("bash", "python", "csv")


def of_program(*start: str) -> list[tuple[str, list[str]]]:
    """Place and arguments of each command that begins with these words."""
    return [(place, words[len(start) :]) for place, words in COMMANDS if tuple(words[: len(start)]) == start]


def parsed(words: list[str]) -> None:
    """Parse arguments as the command line does, without running the command."""
    name, *arguments = words
    command = cli.get_command(None, name)
    assert command is not None, name
    params = command.make_context(name, arguments).params
    if name == "launch" and not params["arguments"][0].endswith(".py"):
        parsed(list(params["arguments"]))


def test_every_block_is_run_or_says_why_not():
    silent = [str(block) for block in ALL if block.language not in (*RUN, *SHOWN) and block.reason is None]
    assert silent == []


def test_every_mark_stands_before_a_block():
    marks = sum(len(MARK.findall(page.read_text())) for page in PAGES)
    assert marks == sum(block.reason is not None for block in ALL) > 5


def test_a_block_with_a_mark_is_code():
    assert not [str(block) for block in ALL if block.reason is not None and block.language in SHOWN]


def test_every_command_line_is_one_that_the_program_takes():
    found = of_program("keras-effnet")
    assert len(found) > 80
    for place, words in found:
        try:
            parsed(words)
        except Exception as error:
            raise AssertionError(f"{place}: keras-effnet {' '.join(words)}") from error


def test_every_program_of_a_command_is_looked_at():
    programs = {words[0] for _, words in COMMANDS}
    assert programs == {"keras-effnet", "pip", "python", ".", "pre-commit", "twine", "PYTHONPATH=root/site"}


def test_extras_that_are_installed_exist():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = set(setup["options.extras_require"])
    named = [(place, re.findall(r"\[([\w,-]+)\]", " ".join(words))) for place, words in of_program("pip", "install")]
    assert sum(bool(names) for _, names in named) > 5
    for place, names in named:
        assert set(",".join(names).split(",")) - {""} <= extras, place


def test_scripts_exist_and_have_the_options():
    scripts = [(place, words) for place, words in of_program("python") if words[0].endswith(".py")]
    of_this_project = [(place, words) for place, words in scripts if not words[0].startswith("runs/")]
    assert len(of_this_project) > 3
    for place, (script, *arguments) in of_this_project:
        strings = {
            node.value
            for node in ast.walk(ast.parse((ROOT / script).read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        given = {word for word in arguments if word.startswith("--")}
        assert given <= strings, (place, given - strings)


@pytest.mark.parametrize("block", [block for block in ALL if block.language == "csv"], ids=str)
def test_a_list_of_images_is_read(block, tmp_path):
    (tmp_path / "manifest.csv").write_text(block.text)
    names = re.findall(r"[\w/]+\.(?:jpg|JPEG)\b", block.text)
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    data = datasets.load(str(tmp_path))
    assert sum(len(split) for split in (data.train, data.val, data.test) if split) == len(names)


def test_commands_in_running_text_are_those_of_the_program():
    """Where they are whole: a required argument may be missing."""
    spans = {
        span
        for page in PAGES
        for span in re.findall(r"`(keras-effnet [a-z][^`\n]+)`", page.read_text())
        if not re.search(r"\.\.\.|--help|\bNAME\b", span)
    }
    assert len(spans) > 10
    for span in spans:
        with suppress(click.MissingParameter):
            parsed(shell_commands(span)[0][1:])


@pytest.mark.parametrize(
    "words", [["train", "photos", "--no-such-option"], ["info", "b0", "surplus"], ["launch", "--", "train", "--phi"]]
)
def test_a_wrong_command_line_is_noticed(words):
    with pytest.raises(Exception, match=r"(?i)no such option|unexpected extra|requires an argument"):
        parsed(words)


def test_commands_are_read_as_a_shell_reads_them():
    text = "a 'x*' \\\n  --b 1   # a comment\nc && d > file\n"
    assert shell_commands(text) == [["a", "x*", "--b", "1"], ["c"], ["d"]]
