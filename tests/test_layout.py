"""The package's layout: what is packaged, what is public, and what importing it costs.

Layers and forbidden frameworks are contracts in pyproject.toml, which `lint-imports` checks; missing docstrings are
reported by `ruff check`.
"""

import ast
import configparser
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import keras_effnet

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, EXPORT = ROOT / "keras_effnet", ROOT / "export"
FRAMEWORKS = {"keras", "tensorflow", "tf_keras", "torch", "jax"}
MOST_MODULES = 14  # in one folder


def module_files() -> dict[str, Path]:
    """Full module name -> file, `__init__` under the name of its package."""
    files = {}
    for folder, prefix in ((PACKAGE, "keras_effnet"), (EXPORT, "keras_effnet.export")):
        for path in sorted(folder.rglob("*.py")):  # does not follow the symlink keras_effnet/export
            parts = path.relative_to(folder).with_suffix("").parts
            files[".".join([prefix, *(part for part in parts if part != "__init__")])] = path
    return files


FILES = module_files()
PACKAGES = [name for name, path in FILES.items() if path.stem == "__init__"]
# Packages whose `__init__.pyi` says which names they hand on; lazy_loader imports them when they are first used.
FACES = [name for name in PACKAGES if (FILES[name].parent / "__init__.pyi").is_file()]


# --- imports


def contract(identifier: str) -> dict:
    """A contract of import-linter, as pyproject.toml has it."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return next(each for each in settings["contracts"] if each.get("id") == identifier)


def test_pure_modules_load_no_framework_when_they_are_imported():
    """Import-linter sees what a module imports itself; this sees all that its import drags along."""
    pure = tuple(contract("pure")["source_modules"])
    modules = [name for name in FILES if name in pure or name.startswith(tuple(f"{each}." for each in pure))]
    assert len(modules) > 40
    program = f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "keras_effnet" in loaded and not loaded & FRAMEWORKS


# --- packaging


def test_export_is_a_symlink_inside_the_package():
    link = PACKAGE / "export"
    assert link.is_symlink()
    assert link.readlink() == Path("../export")


def test_setup_lists_exactly_the_folders_with_modules():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert sorted(config["options"]["packages"].split()) == sorted(PACKAGES)


def test_folders_stay_small_enough_to_survey():
    counts = {name: len(list(FILES[name].parent.glob("*.py"))) for name in PACKAGES}
    counts.pop("keras_effnet.cli.commands")  # a module for each command, however many there are
    assert {name: count for name, count in counts.items() if count > MOST_MODULES} == {}


def test_setup_lists_every_template():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    templates = [*PACKAGE.rglob("*.j2"), *(PACKAGE / "export").rglob("*.j2")]
    assert templates
    for template in templates:
        package = ".".join(template.parent.parent.relative_to(ROOT).parts)
        assert package in config["options"]["packages"].split(), template
        assert any(template.match(pattern) for pattern in config["options.package_data"]["*"].split(", ")), template


def test_export_refuses_to_be_imported_by_its_bare_name():
    done = subprocess.run(
        [sys.executable, "-c", "import export"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "ImportError" in done.stderr
    assert "keras_effnet.export" in done.stderr


def test_no_conftest_at_the_root():
    assert not (ROOT / "conftest.py").exists()


# --- public names


def stub_names(package: str) -> list[str]:
    """The names in a stub's `__all__`."""
    tree = ast.parse((FILES[package].parent / "__init__.pyi").read_text())
    lists = [n.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "__all__"]
    return ast.literal_eval(lists[0])


@pytest.mark.parametrize("package", FACES)
def test_a_stub_and_the_package_agree(package):
    module, names = importlib.import_module(package), stub_names(package)
    assert sorted(module.__all__) == sorted(names) and len(names) == len(set(names))
    assert set(names) <= set(dir(module))
    for name in names:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__name__ == name


def test_fixed_names_are_public():
    fixed = {"EfficientNet", "CompoundScaling", "architecture_spec", "complexity", "load_weights", "preprocess_input"}
    fixed |= {"decode_predictions", "list_models", "datasets", "pipeline", "training", "export", "search", "study"}
    fixed |= {f"EfficientNetB{i}" for i in range(8)} | {f"EfficientNetLite{i}" for i in range(5)}
    fixed |= {f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L", "XL")}
    assert fixed <= set(stub_names("keras_effnet"))


@pytest.mark.parametrize(
    ("package", "names"),
    [
        ("keras_effnet.complexity", "count Complexity"),
        ("keras_effnet.datasets", "load Split ImageDataset"),
        ("keras_effnet.pipeline", "image_pipeline Augmentation"),
        ("keras_effnet.training", "TrainConfig train train_dataset"),
        ("keras_effnet.search", "grid_search"),
        ("keras_effnet.study", "run"),
        ("keras_effnet.cli", "main"),
        ("keras_effnet.export", "Bundle ExportResult LatencyReport VerifyReport benchmark export_tflite verify"),
    ],
)
def test_the_fixed_names_of_each_package_are_public(package, names):
    assert set(names.split()) <= set(stub_names(package))


def definitions(path: Path) -> set[str]:
    """Public functions and classes of a module."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, kinds)}


def test_nothing_but_a_note_depends_on_the_wall_clock():
    """A clock that is set back would make durations negative, locks stale, and old files new."""
    clock = re.compile(
        r"\btime\.(time|time_ns|localtime)\(|\.(now|utcnow|today)\(|st_[mca]time|get[mca]time\(|create_time"
    )
    found = {
        (name, line.strip())
        for name, path in FILES.items()
        for line in path.read_text().splitlines()
        if clock.search(line)
    }
    assert found == {
        (  # the text of a lock file, which has no effect on the lock
            "keras_effnet.system.run_folders",
            'since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")',
        ),
        (  # compared for equality with earlier times of the same file, never with a clock
            "keras_effnet.datasets.findings.data_identity",
            "yield Path(path).stat().st_mtime_ns",
        ),
    }


def test_no_function_bears_its_modules_name():
    """`keras_effnet.search.search`: is it the module or the function? Whoever imports it finds out too late."""
    assert [name for name, path in FILES.items() if name.rpartition(".")[2] in definitions(path)] == []


@pytest.mark.parametrize("package", FACES)
def test_no_public_name_hides_a_module(package):
    """Once a submodule is imported, it replaces an attribute of the package that has its name."""
    for name in stub_names(package):
        is_module = inspect.ismodule(getattr(importlib.import_module(package), name))
        assert is_module == (f"{package}.{name}" in FILES), name


# --- version


def test_changelog_begins_with_this_version():
    headings = re.findall(r"^## +\[?v?([^\s\]]+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    released = [heading for heading in headings if heading.lower() != "unreleased"]
    assert released[0] == keras_effnet.__version__


def test_installed_version_is_the_modules():
    from importlib.metadata import version

    assert version("keras-effnet") == keras_effnet.__version__


def test_citation_has_this_version():
    assert f"version: {keras_effnet.__version__}\n" in (ROOT / "CITATION.cff").read_text()
