"""The package's shape: which module may import which, what is packaged, what is documented."""

import ast
import configparser
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import keras_effnet

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, EXPORT = ROOT / "keras_effnet", ROOT / "export"

FRAMEWORKS = {"keras", "tensorflow", "tf_keras", "torch", "jax"}


def python_files():
    """Module name, without the package's own, -> file. The package's own `__init__` has the name ''."""
    files = {}
    for folder, prefix in ((PACKAGE, ()), (EXPORT, ("export",))):
        for path in sorted(folder.rglob("*.py")):
            parts = (*prefix, *path.relative_to(folder).with_suffix("").parts)
            files[".".join(parts[:-1] if path.stem == "__init__" else parts)] = path
    return files


FILES = python_files()


def imports(path, top_level_only=False):
    """Full names that a file imports, inside functions too."""
    tree = ast.parse(path.read_text())
    names = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def frameworks(path, **options):
    return {name.split(".")[0] for name in imports(path, **options)} & FRAMEWORKS


@pytest.mark.parametrize("module", [name for name in FILES if "commands." in name])
def test_commands_import_a_framework_only_when_they_run(module):
    assert frameworks(FILES[module], top_level_only=True) == set()


def test_nobody_imports_the_export_folder_by_its_bare_name():
    for path in FILES.values():
        assert not any(name.split(".")[0] == "export" for name in imports(path)), path


# --- packaging


def test_export_is_a_symlink_inside_the_package():
    link = PACKAGE / "export"
    assert link.is_symlink()
    assert link.readlink() == Path("../export")


def test_setup_lists_exactly_the_folders_with_modules():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = config["options"]["packages"].split()
    folders = {path.parent for path in PACKAGE.rglob("*.py")} | {
        path.parent for path in (PACKAGE / "export").rglob("*.py")
    }
    expected = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert sorted(listed) == sorted(expected)


@pytest.mark.parametrize("package", [name for name, path in FILES.items() if path.stem == "__init__"])
def test_every_package_says_what_it_is(package):
    assert ast.get_docstring(ast.parse(FILES[package].read_text()))


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


def stub_names(package):
    """The names in a stub's `__all__`."""
    tree = ast.parse((Path(package.__file__).parent / "__init__.pyi").read_text())
    lists = [n.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "__all__"]
    return ast.literal_eval(lists[0])


PUBLIC = stub_names(keras_effnet)
EXPORT_NAMES = ["Bundle", "ExportResult", "LatencyReport", "VerifyReport", "benchmark", "export_tflite", "verify"]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_resolves(name):
    value = getattr(keras_effnet, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__name__ == name
    else:
        assert inspect.ismodule(value)


def test_stub_and_runtime_agree():
    assert sorted(keras_effnet.__all__) == sorted(PUBLIC)
    assert set(PUBLIC) <= set(dir(keras_effnet))


def test_fixed_names_are_public():
    fixed = {"EfficientNet", "CompoundScaling", "architecture_spec", "complexity", "load_weights", "preprocess_input"}
    fixed |= {"decode_predictions", "list_models", "datasets", "pipeline", "training", "export", "search", "study"}
    fixed |= {f"EfficientNetB{i}" for i in range(8)} | {f"EfficientNetLite{i}" for i in range(5)}
    assert fixed <= set(PUBLIC)


def test_export_resolves_its_names():
    package = importlib.import_module("keras_effnet.export")
    names = stub_names(package)
    assert set(EXPORT_NAMES) <= set(names)
    for name in names:
        assert getattr(package, name).__name__ == name


def test_a_public_function_never_bears_its_modules_name():
    for name in PUBLIC:
        value = getattr(keras_effnet, name)
        assert inspect.ismodule(value) == (name in FILES), name


def public_objects():
    packages = {"keras_effnet": PUBLIC, "keras_effnet.export": EXPORT_NAMES}
    return [(package, name) for package, names in packages.items() for name in names]


@pytest.mark.parametrize(("package", "name"), public_objects())
def test_public_objects_are_documented(package, name):
    value = getattr(importlib.import_module(package), name)
    # A dataclass without a docstring gets its signature as one.
    assert value.__doc__ and not value.__doc__.startswith(f"{name}(")


@pytest.mark.parametrize("module", FILES)
def test_a_module_opens_by_saying_what_it_is_for(module):
    assert ast.get_docstring(ast.parse(FILES[module].read_text()))


# --- version


def test_changelog_begins_with_this_version():
    headings = re.findall(r"^## +\[?v?([^\s\]]+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    released = [heading for heading in headings if heading.lower() != "unreleased"]
    assert released[0] == keras_effnet.__version__


def test_installed_version_is_the_modules():
    from importlib.metadata import version

    assert version("keras-effnet") == keras_effnet.__version__
