"""The Android project of a bundle: consistent Gradle files, resources and packages; sources that compile."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from keras_effnet.export.app_bundle.model_json import of_files
from keras_effnet.export.app_bundle.rendering import TARGETS, application_suffix, render_all
from keras_effnet.pipeline.geometry import evaluation_image
from keras_effnet.preprocessing import ImageSpec

STAND_INS = Path(__file__).parents[2] / "support/android_stand_ins.txt"
NAMESPACE = "{http://schemas.android.com/apk/res/android}"


@pytest.fixture(scope="module")
def project(app_export):
    return app_export.folder / "bundle/android"


@pytest.fixture(scope="module")
def main(project):
    return project / "app/src/main"


@pytest.fixture(scope="module")
def build_file(project):
    return (project / "app/build.gradle.kts").read_text()


def test_every_library_of_the_catalog_is_used_and_every_used_one_is_in_it(project, build_file):
    catalog = tomllib.loads((project / "gradle/libs.versions.toml").read_text())
    used = set(re.findall(r"implementation\(libs\.([\w.]+)\)", build_file))
    assert used == {name.replace("-", ".") for name in catalog["libraries"]}
    plugins = set(re.findall(r"alias\(libs\.plugins\.([\w.]+)\)", build_file))
    assert plugins == {name.replace("-", ".") for name in catalog["plugins"]}
    references = [entry["version"]["ref"] for part in ("libraries", "plugins") for entry in catalog[part].values()]
    assert set(references) == set(catalog["versions"])
    assert all(re.fullmatch(r"\d+(\.\d+)+", version) for version in catalog["versions"].values())


def test_levels_and_settings_fit_together(project, main, build_file):
    level = {name: int(re.search(rf"{name} = (\d+)", build_file)[1]) for name in ("compileSdk", "targetSdk", "minSdk")}
    assert level["compileSdk"] >= level["targetSdk"] >= 35 and level["minSdk"] == 28  # ImageDecoder
    assert 'noCompress += "tflite"' in build_file
    assert 'include(":app")' in (project / "settings.gradle.kts").read_text()
    assert "android.useAndroidX=true" in (project / "gradle.properties").read_text()
    wrapper = (project / "gradle/wrapper/gradle-wrapper.properties").read_text()
    assert re.search(
        r"distributionUrl=https\\://services\.gradle\.org/distributions/gradle-9\.4\.1-bin\.zip\n", wrapper
    )
    namespace = re.search(r'namespace = "([\w.]+)"', build_file)[1]
    sources = list((main / "kotlin").rglob("*.kt"))
    assert len(sources) == 5
    for source in sources:
        assert source.parent == main / "kotlin" / namespace.replace(".", "/")
        assert source.read_text().startswith(f"package {namespace}\n")


def test_resources_are_well_formed_and_every_reference_has_its_resource(main):
    trees = {path: ElementTree.parse(path).getroot() for path in main.rglob("*.xml")}
    assert len(trees) == 3
    strings = {entry.get("name") for entry in trees[main / "res/values/strings.xml"]}
    layout = trees[main / "res/layout/activity_main.xml"]
    identifiers = {
        each.get(f"{NAMESPACE}id").removeprefix("@+id/") for each in layout.iter() if each.get(f"{NAMESPACE}id")
    }
    texts = "".join(path.read_text() for path in (*main.rglob("*.xml"), *main.rglob("*.kt")))
    assert set(re.findall(r"@string/(\w+)|R\.string\.(\w+)", texts)) <= {(n, "") for n in strings} | {
        ("", n) for n in strings
    }
    assert set(re.findall(r"R\.id\.(\w+)", texts)) == identifiers
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", path.stem) for path in (main / "res").rglob("*.xml"))
    activity = trees[main / "AndroidManifest.xml"].find("application/activity").get(f"{NAMESPACE}name")
    assert (main / f"kotlin/com/example/classifier/{activity.removeprefix('.')}.kt").is_file()


def test_numbers_in_the_sources_are_those_of_the_files(main):
    text = (main / "kotlin/com/example/classifier/ModelSpec.kt").read_text()
    assert (
        "const val SIZE = 32\n" in text and "const val CLASSES = 10\n" in text and "const val BICUBIC = true\n" in text
    )
    none, int8 = text.split("        ModelFile(\n")[1:]
    assert "bytesAsInput = false" in none and "mean = floatArrayOf(0.0f)" in none
    assert text.count("mediaPipe = true") == 2
    assert (
        "bytesAsInput = true" in int8 and "mean = floatArrayOf(127.0f)" in int8 and "std = floatArrayOf(128.0f)" in int8
    )


@pytest.mark.parametrize("name", ["flowers", '7 dwarfs & $co\'s "best" @home </x>', "日本 {{ x }}", "?"])
def test_no_name_breaks_a_file(app_export, name):
    document = of_files([app_export.folder / "digits_none.tflite"])
    document = replace(document, name=name, description=f"Of {name}.", author=name, license=name)
    files = dict(render_all(document, document.files[0]))
    assert list(files) == list(TARGETS)
    for path, text in files.items():
        assert "{%" not in text and ("{{" not in text or "{{" in name), path
    strings = ElementTree.fromstring(files["android/app/src/main/res/values/strings.xml"])
    assert strings[0].text.replace("\\", "").split() == name.split()
    assert re.search(r'applicationId = "com\.example\.[a-z][a-z0-9]*"', files["android/app/build.gradle.kts"])
    compile(files["classify.py"], "classify.py", "exec")


def test_application_ids_are_legal():
    assert [application_suffix(name) for name in ("My-Flowers 2", "3d", "")] == ["myflowers2", "model3d", "model"]


@pytest.mark.slow
def test_the_kotlin_sources_compile_and_see_the_pixels_of_the_evaluation(main, tmp_path, smooth_images):
    """With the compiler of npm's `kotlin-compiler`, against stand-ins for Android's classes."""
    home = os.environ.get("KOTLIN_COMPILER")
    if not home:
        pytest.skip("KOTLIN_COMPILER names no folder of the npm package kotlin-compiler")
    for number, text in enumerate(re.split(r"(?m)^(?=package )", STAND_INS.read_text())[1:]):
        (tmp_path / f"StandIns{number}.kt").write_text(text)
    jars = ":".join(map(str, Path(home, "lib").glob("*.jar")))
    sources = [*tmp_path.glob("*.kt"), *main.rglob("*.kt")]
    kotlinc = ["java", "-cp", jars, "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", "-Werror", "-kotlin-home", home]
    done = subprocess.run([*kotlinc, "-d", tmp_path / "out", *sources], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    entry = next((tmp_path / "out/com/example/classifier").glob("StandIns*Kt.class")).stem
    for side in (29, 100, 301):  # enlarged, reduced, reduced with antialiasing
        image = smooth_images(1, side)[0]
        argb = np.dstack([np.full((side, side), 255, "uint8"), image])
        argb.tofile(tmp_path / "argb")
        run = ["java", "-cp", f"{tmp_path / 'out'}:{jars}", f"com.example.classifier.{entry}", str(side)]
        subprocess.run([*run, tmp_path / "argb", tmp_path / "result"], check=True)
        resized = np.fromfile(tmp_path / "result", ">f4").reshape(32, 32, 3)
        expected = evaluation_image(image, ImageSpec(32, interpolation="bicubic")).numpy()
        assert np.abs(resized - expected).max() < 0.05
