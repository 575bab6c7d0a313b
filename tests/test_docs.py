"""Names, paths, links and commands in README.md, CONTRIBUTING.md and docs/*.md exist in the code."""

import ast
import doctest
import importlib
import importlib.util
import inspect
import re
import tomllib
from pathlib import Path

import pytest

import keras_effnet
from keras_effnet import architecture_spec
from keras_effnet.architecture.specs import expand
from keras_effnet.cli.app import COMMANDS, cli
from keras_effnet.complexity import count

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("CONTRIBUTING.md"), *(ROOT / "docs").glob("*.md")])
TOP_LEVEL = ("docs", "examples", "export", "keras_effnet", "tests", r"\.ci", r"\.github")

REPOSITORY = re.search(r"^url = (\S+)$", (ROOT / "setup.cfg").read_text(), flags=re.MULTILINE)[1]
NAME = re.compile(r"\bkeras_effnet(?:\.[A-Za-z_]\w*)+")
SPAN = re.compile(r"`([^`\n]+)`")
PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(TOP_LEVEL)})/[\w./*-]*[\w*/]")
LINK = re.compile(r"\]\(([^)\s]+)\)")
OWN = re.compile(rf"{re.escape(REPOSITORY)}/(?:blob|raw)/main/")
COMMAND = re.compile(r"keras-effnet ([a-z][\w-]*)([^`\n]*)")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
WORKER = "keras_effnet.export.finetune.worker"  # imports tfmot, which turns a process to Keras 2


@pytest.fixture(params=PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def page(request):
    return request.param


def resolve(name):
    """Import the longest module prefix of a dotted name and look up the rest as attributes."""
    if name.startswith(WORKER):
        tree = ast.parse(Path(importlib.util.find_spec(WORKER).origin).read_text())
        assert name.removeprefix(WORKER).strip(".") in {"", *(getattr(node, "name", None) for node in tree.body)}, name
        return None
    parts = name.split(".")
    value = importlib.import_module(parts[0])
    for end, part in enumerate(parts[1:], start=2):
        try:
            value = getattr(value, part)
        except AttributeError:
            value = importlib.import_module(".".join(parts[:end]))
    return value


def python_blocks(text):
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def imported_names(tree):
    """Local name -> full dotted name, for the imports of this package in a block of Python."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.split(".")[0]: alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return {local: name for local, name in names.items() if name.startswith("keras_effnet")}


def attribute_chain(node):
    """`["strategies", "scope"]` for the expression `strategies.scope`; None if it does not start with a name."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else None


def commands(text):
    """`(command, options)` for each mention of the command line; what `launch` runs counts as a command too."""
    for match in COMMAND.finditer(text.replace("\\\n", " ")):
        rest = f"{match[1]} {match[2].split(' #')[0]}"
        for part in rest.split(" -- "):
            name = part.split()[0]
            if not name.endswith(".py"):
                yield name, OPTION.findall(part)


def options(command):
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}


def command_options(name):
    return options(cli.get_command(None, name)) | {"--debug"}


def script_options():
    """Options of the scripts that are no part of the command line: examples and benchmarks."""
    scripts = [*(ROOT / "examples").glob("*.py"), *(ROOT / "tests" / "benchmarks").glob("*.py")]
    return {name for script in scripts for name in re.findall(r'"(--[a-z][\w-]*)"', script.read_text())}


def test_every_dotted_name_resolves(page):
    for name in NAME.findall(page.read_text()):
        resolve(name)


def test_python_examples_use_names_that_exist(page):
    for block in python_blocks(page.read_text()):
        tree = ast.parse(block)
        imported = imported_names(tree) | {"keras_effnet": "keras_effnet"}
        for name in imported.values():
            resolve(name)
        for node in ast.walk(tree):
            chain = attribute_chain(node)
            if chain and chain[0] in imported:
                resolve(".".join([imported[chain[0]], *chain[1:]]))


def as_written(chain):
    """Look up a chain of attributes that starts with the package, by the names that each face hands on."""
    value = keras_effnet
    for part in chain[1:]:
        listed = getattr(value, "__all__", None) if inspect.ismodule(value) else None
        assert listed is None or part in listed, f"{'.'.join(chain)}: {part} must be imported"
        value = getattr(value, part)


def docstrings():
    """Every docstring of the package, with the file that it is from."""
    for folder in (ROOT / "keras_effnet", ROOT / "export"):
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    yield path, ast.get_docstring(node) or ""


def test_dotted_names_in_docstrings_resolve():
    for name in {name for _, text in docstrings() for name in NAME.findall(text)}:
        resolve(name)


def test_examples_use_names_as_they_are_handed_on():
    blocks = [block for page in PAGES for block in python_blocks(page.read_text())]
    for _, text in docstrings():
        if ">>>" in text:
            blocks.append("".join(example.source for example in doctest.DocTestParser().get_examples(text)))
    assert len(blocks) > 50
    for block in blocks:
        tree = ast.parse(block)
        chains = [chain for chain in map(attribute_chain, ast.walk(tree)) if chain and chain[0] == "keras_effnet"]
        for name in imported_names(tree).values():
            resolve(name)
        for chain in chains:
            as_written(chain)


def test_modules_named_without_the_package_resolve(page):
    """`transfer.freeze` in running text means `keras_effnet.transfer.freeze`, or a name that a code block imports."""
    text = page.read_text()
    known = {name: f"keras_effnet.{name}" for name in keras_effnet.__all__}
    for block in python_blocks(text):
        known |= imported_names(ast.parse(block))
    for span in SPAN.findall(text):
        chain = re.match(r"(\w+)((?:\.\w+)+)", span)
        if chain and chain[1] in known and not span.endswith((".py", ".md", ".csv", ".json", ".yaml")):
            resolve(known[chain[1]] + chain[2])


def test_every_repository_path_exists(page):
    for path in PATH.findall(page.read_text()):
        assert list(ROOT.glob(path.rstrip("/"))), path


def test_links_lead_to_files_and_headings(page):
    for target in LINK.findall(page.read_text()):
        path, _, anchor = target.partition("#")
        if own := OWN.match(path):  # absolute, so that a package index shows them
            file = ROOT / path[own.end() :]
        elif "://" in target:
            continue
        else:
            file = (page.parent / path) if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, target


def test_every_page_is_in_the_navigation_of_the_site():
    """`mkdocs build --strict` refuses others; this tells it without building."""
    listed = set(re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= listed


def test_readme_links_work_on_a_package_index():
    """Relative links lead nowhere there; images in HTML count as well."""
    text = (ROOT / "README.md").read_text()
    targets = [*LINK.findall(text), *re.findall(r'src="([^"]+)"', text)]
    assert len(targets) > 20
    for target in targets:
        own = OWN.match(target)
        assert own, target
        assert (ROOT / target[own.end() :].partition("#")[0]).exists(), target


def test_every_command_and_option_exists(page):
    for name, given in commands(page.read_text()):
        assert name in COMMANDS, name
        assert set(given) <= command_options(name), (name, set(given) - command_options(name))


def test_options_in_running_text_exist(page):
    known = script_options().union(*(command_options(name) for name in COMMANDS))
    for span in SPAN.findall(page.read_text()):
        if span.startswith("--"):
            assert set(OPTION.findall(span)) <= known, span


def layers():
    """Wings from the top, as the import contracts have them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (wings,) = (contract for contract in contracts if contract["id"] == "wings")
    return [layer for layer in wings["layers"] if layer != "__main__"]


def test_architecture_page_shows_the_layers_of_the_import_contracts():
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert re.findall(r"^\| \[(\w+)\]", text, flags=re.MULTILINE) == layers()
    sections = dict(zip(*[iter(re.split(r"^## (\w+)$", text, flags=re.MULTILINE)[1:])] * 2, strict=True))
    assert list(sections) == layers()
    assert all("```mermaid" in section for section in sections.values())


def test_architecture_page_follows_a_real_convolution_of_b2():
    text = (ROOT / "docs" / "architecture.md").read_text()
    spec = architecture_spec("b2")
    (block,) = (block for block in expand(spec).blocks if block.name == "block3a")
    conv = block.project
    assert f"`round_filters({spec.stages[2].filters}, {spec.width})`" in text
    assert f"in_channels={conv.in_channels}, out_channels={conv.out_channels}" in text
    assert (
        f"{conv.in_channels * conv.out_channels:,} MACs for each of the\n   {conv.out_size} x {conv.out_size}" in text
    )
    assert f"`{conv.name}`" in text or f'name="{conv.name}"' in text
    assert f"{count(spec).params:,} parameters" in text


def test_what_the_checks_look_for_is_found():
    """The patterns match the pages at all, so a changed layout cannot turn the checks off."""
    text = "\n".join(path.read_text() for path in PAGES)
    assert len(set(NAME.findall(text))) > 10
    assert len(set(PATH.findall(text))) > 10
    assert {name for name, _ in commands(text)} == set(COMMANDS)
    launched = dict(commands("`keras-effnet launch --processes 2 -- train FOLDER --strategy mirrored`"))
    assert launched == {"launch": ["--processes"], "train": ["--strategy"]}


@pytest.mark.parametrize("name", ["keras_effnet.no_such_module", "keras_effnet.training.no_such_function"])
def test_a_wrong_name_is_noticed(name):
    with pytest.raises(ModuleNotFoundError):
        resolve(name)
