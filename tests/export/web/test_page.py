"""The files of the page: what they are made of, what is refused, and that they need no other host."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from tiny_files import tiny_file

from keras_effnet.errors import UserError
from keras_effnet.export.app_bundle.model_json import of_files
from keras_effnet.export.web import litert_js, npm_ci
from keras_effnet.export.web.page import ASSETS, page_of, write_page


def classifier(size: int = 4, channels: int = 3) -> bytes:
    """A file that maps an image to scores."""
    tensors = {
        "image": ("float32", (1, size, size, channels)),
        "scores": ("float32", (1, channels)),
        "axes": ("int32", (2,)),
    }
    return tiny_file(tensors, [("MEAN", "image axes", "scores")], "image", "scores", stored="axes")


MODEL, GREY, LARGER = classifier(), classifier(channels=1), classifier(8)


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch) -> Path:
    """A runtime of empty files in place of the one of a wheel."""
    folder = tmp_path / "runtime"
    for name in npm_ci.FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    monkeypatch.setattr(litert_js, "PACKAGED", folder)
    return folder


@pytest.fixture
def export(tmp_path) -> Path:
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "net_none.tflite").write_bytes(MODEL)
    (folder / "labels.txt").write_text("cat\ndog\n<b>\n")
    (folder / "report.json").write_text("{}")
    return folder


@pytest.fixture
def bundle(export) -> Path:
    document = asdict(of_files([export / "net_none.tflite"])) | {"test_image": "test_image.png"}
    (export / "test_image.png").write_bytes(b"")
    (export / "model.json").write_text(json.dumps(document))
    return export


def test_a_page_of_an_export_holds_its_files_and_no_others(export):
    (export / "net_int8.tflite").write_bytes(MODEL)
    (export / ".hidden").write_text("")
    found = page_of(export)
    assert found.models == ("net_int8.tflite", "net_none.tflite")
    own = set(found.files) - {f"litert/{name}" for name in npm_ci.FILES} - {path.name for path in ASSETS.iterdir()}
    assert own == {"model.json", "labels.txt", *found.models}
    assert found.files["labels.txt"] == b"cat\ndog\n<b>\n"
    assert json.loads(found.files["model.json"])["files"][0]["file"] == "net_int8.tflite"


def test_a_page_of_one_file_leaves_the_others_out(export):
    (export / "net_int8.tflite").write_bytes(MODEL)
    assert page_of(export / "net_none.tflite").models == ("net_none.tflite",)


def test_a_page_of_a_bundle_has_its_test_image(bundle):
    assert page_of(bundle).files["test_image.png"] == bundle / "test_image.png"


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/b", "", ".", "link", "gone", "C:x", "a\0b", "index.html"]
)
def test_a_bundle_cannot_name_files_elsewhere(bundle, name):
    (bundle.parent / "secret").write_text("")
    (bundle / "link").symlink_to("../secret")
    (bundle / "index.html").write_text("")
    document = json.loads((bundle / "model.json").read_text())
    (bundle / "model.json").write_text(json.dumps(document | {"labels": name}))
    with pytest.raises(UserError, match=r"which is no regular file of|which is a file of the page"):
        page_of(bundle)


def test_a_file_of_other_anchors_than_the_described_ones_is_refused(bundle):
    rule = {"anchors": "anchors.bin", "count": 3, "score_threshold": 0.3, "overlap_threshold": 0.5}
    document = json.loads((bundle / "model.json").read_text())
    document |= {"task": "detection", "boxes": rule | {"max_detections": 9, "max_candidates": 9}}
    (bundle / "model.json").write_text(json.dumps(document))
    (bundle / "anchors.bin").write_bytes(bytes(48))
    assert page_of(bundle).files["anchors.bin"] == bundle / "anchors.bin"
    (bundle / "anchors.bin").write_bytes(bytes(44))
    with pytest.raises(UserError, match=r"anchors\.bin does not hold the 3 anchors of .*model\.json: export again"):
        page_of(bundle)


def test_a_file_that_is_not_the_described_one_is_refused(bundle):
    (bundle / "net_none.tflite").write_bytes(LARGER)
    with pytest.raises(UserError, match=r"net_none\.tflite is not the file that .*model\.json describes: export again"):
        page_of(bundle)


def test_wrong_targets_are_explained_in_one_line(tmp_path, export):
    with pytest.raises(UserError, match=r"does not exist; expected a \.tflite file, or a folder that `export` wrote"):
        page_of(tmp_path / "gone")
    run = tmp_path / "run"
    (run / "weights").mkdir(parents=True)
    with pytest.raises(UserError, match=r"has no \.tflite files: name a folder of `export`"):
        page_of(run)
    (run / "weights/best.keras").write_bytes(b"")
    with pytest.raises(UserError, match=rf"has no \.tflite files: run keras-effnet export {run}"):
        page_of(run)
    (export / "other.tflite").write_bytes(LARGER)
    with pytest.raises(UserError, match="are of several networks, with other sizes or classes"):
        page_of(export)
    (export / "grey.tflite").write_bytes(GREY)
    with pytest.raises(UserError, match="takes images of 1 channels; the page makes RGB, 3"):
        page_of(export / "grey.tflite")
    (export / "model.json").write_text('{"format": 1}')
    with pytest.raises(UserError, match=r"model\.json does not describe a bundle: "):
        page_of(export)


def test_a_page_is_written_whole_and_only_a_page_is_replaced(export, tmp_path):
    found = page_of(export)
    folder = write_page(found, tmp_path / "site/web")
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert written == set(found.files)
    assert [path.name for path in folder.parent.iterdir()] == ["web"]
    with pytest.raises(UserError, match=r"exists: replace the page by overwrite=True"):
        write_page(found, folder)
    (folder / "old").write_text("")
    write_page(found, folder, overwrite=True)
    assert not (folder / "old").exists()
    with pytest.raises(UserError, match="exists and is no page of this command"):
        write_page(found, export, overwrite=True)


def test_the_page_names_no_other_host_and_allows_no_inline_script():
    for path in ASSETS.iterdir():
        if path.suffix in (".html", ".js", ".css"):
            assert not re.search(r"(https?:)?//(?!www\.w3\.org)[\w.-]+\.\w", path.read_text()), path
    html = (ASSETS / "index.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1]
    assert "unsafe-inline" not in policy and policy.startswith("default-src 'none'")
    inline = re.findall(r"<script(?![^>]*\ssrc=)([^>]*)>(.*?)</script>", html, flags=re.DOTALL)
    assert [attributes.strip() for attributes, _ in inline] == ['type="importmap"']  # names of modules, no code
    digest = base64.b64encode(hashlib.sha256(inline[0][1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy
    assert not re.search(r"\son\w+=|style=", html)
    maps = json.loads(inline[0][1])["imports"]
    assert {f"./litert/{name}" for name in ("core.js", "wasm-utils.js")} == set(maps.values())


# --- LiteRT.js


def test_the_lockfile_pins_every_package_by_hash_and_names_no_host():
    text = (npm_ci.LOCK / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    wanted = json.loads((npm_ci.LOCK / "package.json").read_text())["dependencies"]
    assert wanted == {"@litertjs/core": npm_ci.VERSION}
    assert packages.pop("")["dependencies"] == wanted
    assert all(re.fullmatch(r"sha512-[\w+/]{86}==", each["integrity"]) for each in packages.values())
    assert {each["version"] for each in packages.values()} == {npm_ci.VERSION}
    assert "resolved" not in text and "://" not in text
    assert f"@litertjs/core {npm_ci.VERSION}" in (ASSETS / "NOTICES.txt").read_text()


def test_a_machine_without_npm_is_told_what_to_do(monkeypatch, tmp_path, runtime):
    (runtime / "core.js").unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UserError, match=r"npm is not installed\. Install Node\.js and run again with a network, or copy"
    ):
        litert_js.runtime_files()


def test_the_runtime_is_taken_once_and_failures_leave_nothing(monkeypatch, tmp_path, runtime):
    (runtime / "core.js").unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    npm = tmp_path / "npm"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    lines: list[str] = []
    npm.write_text("#!/bin/sh\necho EINTEGRITY >&2; exit 1\n")
    npm.chmod(0o755)
    with pytest.raises(UserError, match="npm failed: EINTEGRITY"):
        litert_js.runtime_files(lines.append)
    assert list((tmp_path / "cache/keras_effnet").iterdir()) == []
    touched = " ".join(f"node_modules/{name}" for name in npm_ci.FILES.values())
    npm.write_text(
        f'#!/bin/sh\n[ "$1 $2" = "ci --ignore-scripts" ] || exit 1\n'
        f'for f in {touched}; do mkdir -p "$(dirname "$f")"; : > "$f"; done\n'
    )
    files = litert_js.runtime_files(lines.append)
    npm.unlink()
    assert litert_js.runtime_files(lines.append) == files
    assert set(files) == {f"litert/{name}" for name in npm_ci.FILES} and all(path.is_file() for path in files.values())
    assert [line.split(" (")[0] for line in lines] == [f"Taking LiteRT.js {npm_ci.VERSION}"] * 2


def test_serve_writes_a_page_from_the_command_line(cli, export):
    done = cli("serve", export, "--save", "web")
    assert done.status == 0, done.err
    assert "Result: web (index.html and all that it loads)" in done.out
    assert Path("web/net_none.tflite").read_bytes() == MODEL
    again = cli("serve", export, "--save", "web", "--port", "8001")
    assert again.status == 2 and "--port would have no effect" in again.err
    found = json.loads(cli("serve", export, "--save", "web", "--overwrite", "--json").out)
    assert found == {"name": "net_none", "files": ["net_none.tflite"], "folder": "web"}


def test_serve_prints_its_address_and_ends_quietly(cli, export, monkeypatch):
    monkeypatch.setattr("keras_effnet.export.web.server.PageServer.serve_forever", _interrupted)
    done = cli("serve", export, "--port", "0")
    assert done.status == 0 and done.err == ""
    assert re.fullmatch(r"net_none \(net_none\.tflite\) at http://localhost:\d+/   Ctrl-C ends\.\n", done.out)


def _interrupted(self, *args):
    raise KeyboardInterrupt
