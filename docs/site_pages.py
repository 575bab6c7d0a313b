"""Pages of the documentation site that are generated from the code, and links that lead out of docs/.

A hook of MkDocs, named in mkdocs.yml. The reference of the command line comes from its parser, the list of public names
from the stubs of the package; neither imports TensorFlow. Links of Markdown pages are those of the repository: on the
site, links to files that are no page lead to the repository.
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File

from keras_effnet import zoo
from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.detectors import detector_spec
from keras_effnet.cli.app import COMMANDS, cli
from keras_effnet.complexity.counting import count
from keras_effnet.config.declarations import declared_options
from keras_effnet.config.train_config import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "keras_effnet"

# page -> the file of the repository that it shows
MIRRORED = {
    "index.md": "README.md",
    "benchmark-results.md": "tests/benchmarks/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
}
_PAGES = {source: page for page, source in MIRRORED.items()}
_LINK = re.compile(r"(?:(?<=\]\()|(?<=src=\"))([^)\s\"]+)(?=[)\"])")
_VARIANT = re.compile(r"Efficient(Net|Det)(V2)?([A-Z].*)")  # EfficientNetB0, EfficientDetLite3x


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to those of docs/."""
    pages = {page: (ROOT / source).read_text() for page, source in MIRRORED.items()}
    pages |= {"reference/cli.md": _command_line()}
    pages |= {f"reference/api/{face}.md": text for face, text in _faces()}
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links between files of the repository into links between pages."""
    name = page.file.src_uri
    if name.startswith("reference/"):
        return markdown
    if name == "zoo.md":
        markdown += "\n" + "\n".join(zoo.card(each).to_markdown() for each in zoo.names())
    source = MIRRORED.get(name, f"docs/{name}")
    return _LINK.sub(lambda match: _address(match[1], source, name, config["repo_url"]), markdown)


def _address(target: str, source: str, page: str, repository: str) -> str:
    """Where a link of a repository file leads on the site; the address itself if it belongs to another host."""
    blob = f"{repository}/blob/main/"
    path, mark, anchor = target.partition("#")
    if target.startswith((blob, f"{repository}/raw/main/")):
        file = path.split("/main/", 1)[1]
    elif "://" in target or not path:
        return target
    else:
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if file not in _PAGES and not file.startswith("docs/"):
        return f"{blob}{file}{mark}{anchor}"
    return posixpath.relpath(_PAGES.get(file, file.removeprefix("docs/")), posixpath.dirname(page)) + mark + anchor


def _command_line() -> str:
    lines = ["# Command line", "", "Generated from the parser. `keras-effnet COMMAND --help` prints the same."]
    for name in COMMANDS:
        command = cli.get_command(None, name)  # type: ignore[arg-type]
        context = click.Context(command, info_name=f"keras-effnet {name}")
        lines += ["", f"## {name}", "", *_paragraphs(command.help or ""), "", "```text", command.get_usage(context)]
        lines += ["```", "", "| option | meaning |", "|---|---|"]
        rows = (option.get_help_record(context) for option in command.get_params(context))
        lines += [f"| `{_cell(row[0])}` | {_cell(row[1])} |" for row in rows if row]
    return "\n".join(lines) + "\n"


def _paragraphs(text: str) -> Iterator[str]:
    r"""Help text of click as Markdown; `\b` marks a paragraph whose lines stay as they are."""
    for paragraph in text.split("\n\n"):
        kept = paragraph.startswith("\b")
        yield f"```text\n{paragraph.removeprefix(chr(8)).strip()}\n```" if kept else " ".join(paragraph.split())
        yield ""


def _cell(text: str) -> str:
    return re.sub(r"([|*\[\]])", r"\\\1", " ".join(text.split()).replace("<", "&lt;"))


def _faces() -> Iterator[tuple[str, str]]:
    """A page for each package with a stub: every name that it hands on, by its docstring."""
    package = ROOT / PACKAGE
    for stub in (package / "__init__.pyi", *sorted(package.glob("*/__init__.pyi"))):
        name = ".".join((PACKAGE, *stub.parent.relative_to(package).parts))
        if name != f"{PACKAGE}.cli":
            yield name, _face(name, stub)
    for module in ("preprocessing", "errors"):
        yield (
            f"{PACKAGE}.{module}",
            f"# {PACKAGE}.{module}\n\n::: {PACKAGE}.{module}\n    options: {{show_root_heading: false}}\n",
        )


def _face(package: str, stub: Path) -> str:
    names = _listed(stub)
    folder = stub.parent
    names = [each for each in names if not ((folder / each).is_dir() or (folder / f"{each}.py").exists())]
    variants = [name for name in names if _VARIANT.fullmatch(name)]
    if package == f"{PACKAGE}.models":  # the top level documents those that it hands on as well
        names = [name for name in names if name not in _listed(ROOT / PACKAGE / "__init__.pyi")]
        variants = []
    lines = [f"# {package}", "", ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or "", ""]
    if variants:
        lines += ["## Published networks", "", "Builders with the arguments of `EfficientNet` and `EfficientDet`.", ""]
        lines += ["| builder | pixels | parameters | MACs |", "|---|---|---|---|", *map(_variant, variants), ""]
    for name in names:
        if name not in variants:
            lines += [f"::: {package}.{name}", ""]
    if "TrainConfig" in names:
        lines += ["## Options of TrainConfig", "", "| option | default | meaning |", "|---|---|---|", *_train_options()]
    return "\n".join(lines)


def _train_options() -> Iterator[str]:
    for option in declared_options(TrainConfig).values():
        default = "" if option.default in (None, "") else f"`{option.default}`"
        yield f"| `{option.name}` | {default} | {_cell(option.help)} |"


def _variant(name: str) -> str:
    kind, version, title = _VARIANT.fullmatch(name).groups()  # type: ignore[union-attr]
    title = title.lower()
    spec = detector_spec(f"det-{title}") if kind == "Det" else architecture_spec(f"v2-{title}" if version else title)
    cost = count(spec)
    return f"| `{name}` | {spec.image_size} | {cost.params:,} | {cost.macs:,} |"


def _listed(stub: Path) -> list[str]:
    """Value of `__all__` in a stub."""
    for node in ast.parse(stub.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            return ast.literal_eval(node.value)
    return []
