"""Build backend of the package: setuptools, with LiteRT.js taken into wheels.

Without npm or a network the wheel is built without it and says so; the page then takes it from npm when it is first
used. Source distributions and editable installs never contain it. Build tools import this module by its bare name, see
`pyproject.toml`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from npm_ci import NpmError, complete, install
from setuptools import build_meta

RUNTIME = Path(__file__).with_name("runtime")

build_sdist = build_meta.build_sdist
build_editable = build_meta.build_editable
get_requires_for_build_sdist = build_meta.get_requires_for_build_sdist
get_requires_for_build_wheel = build_meta.get_requires_for_build_wheel
get_requires_for_build_editable = build_meta.get_requires_for_build_editable
prepare_metadata_for_build_wheel = build_meta.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = build_meta.prepare_metadata_for_build_editable


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Build a wheel with LiteRT.js, or without it where npm cannot get it."""
    try:
        install(RUNTIME)
    except (NpmError, OSError) as error:
        print(f"The wheel is built without LiteRT.js: {error}.", file=sys.stderr)
    try:
        return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    finally:
        if complete(RUNTIME):
            shutil.rmtree(RUNTIME)
