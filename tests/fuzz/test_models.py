"""Damaged models and weights: `.keras`, `.h5`, `.pth` and `.safetensors` through every reader of the package."""

from __future__ import annotations

import io
import pickle
import zipfile

import model_targets
import numpy as np
import pytest
from fuzzing import BINARY, TEXT, fuzz, mutants
from weight_files import (
    TINY_LITE,
    lite_arrays,
    save_legacy_weights,
    scrambled,
    tiny,
    write_arrays,
    write_legacy,
    write_safe_arrays,
    write_zip,
)

SLICE, FULL = 24, 500


class Code:
    """Writes a file where a pickle is trusted."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return open, (str(self.canary), "w")


@pytest.fixture(scope="session")
def canary(tmp_path_factory):
    """A file that is there once code from a file ran."""
    return tmp_path_factory.mktemp("canary") / "ran"


@pytest.fixture(scope="session")
def files(canary, tmp_path_factory):
    """Suffix -> name -> content of intact files, among them hostile pickles."""
    folder = tmp_path_factory.mktemp("intact")
    network = scrambled(tiny(TINY_LITE))
    arrays = lite_arrays(network)
    network.compile("adam", "sparse_categorical_crossentropy")
    network.optimizer.build(network.trainable_variables)
    network.save(folder / "compiled.keras")
    network.save_weights(folder / "today.weights.h5")
    save_legacy_weights(network, folder / "legacy.h5")
    for write, name in ((write_zip, "zip.pth"), (write_legacy, "legacy.pth")):
        write_arrays(write, folder / name, arrays)
    write_zip(folder / "hostile.pth", pickle.dumps({"w": Code(canary)}, 2), {})
    write_safe_arrays(folder / "safe.safetensors", {k: array for k, array in arrays.items() if array.dtype == "<f4"})
    found = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    return {
        suffix: {name: content for name, content in found.items() if name.endswith(suffix)}
        for suffix in (".keras", ".h5", ".pth", ".safetensors")
    }


def configured(content: bytes, config: bytes, weights: bytes | None = None) -> bytes:
    """A `.keras` file with other members, whole as an archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            changed = {"config.json": config, "model.weights.h5": weights}.get(name)
            new.writestr(name, old.read(name) if changed is None else changed)
    return buffer.getvalue()


def inside_archive(content: bytes, rng, files) -> bytes:
    """Damage a member of a `.keras` file, so that the archive's checksums hold: configuration or weights."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        config, weights = archive.read("config.json"), archive.read("model.weights.h5")
    if rng.random() < 0.6:
        mutate = TEXT[rng.choice(sorted(TEXT))]
        return configured(content, mutate(config, rng, [config]))
    return configured(content, config, in_structure(weights, rng, files))


def in_structure(content: bytes, rng, files) -> bytes:
    """Damage the part of an HDF5 file that is not numbers of weights, where most bytes are."""
    changed = bytearray(content)
    marks = [at for mark in (b"TREE", b"HEAP", b"SNOD", b"\x89HDF", b"GCOL") for at in _places(content, mark)]
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.choice(marks or [0]) + rng.randrange(0, 600)
        if at < len(changed):
            changed[at] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
    return bytes(changed)


def _places(content: bytes, mark: bytes) -> list[int]:
    places, at = [], -1
    while (at := content.find(mark, at + 1)) >= 0:
        places.append(at)
    return places


KINDS = {
    ".keras": (model_targets.model, BINARY | {"inside_archive": inside_archive, "inside_again": inside_archive}),
    ".h5": (model_targets.weights, BINARY | {"in_structure": in_structure, "in_structure_again": in_structure}),
    ".pth": (model_targets.weights, TEXT),
    ".safetensors": (model_targets.weights, TEXT),
}


def damaged(suffix, count, files, canary, folder, announce=print):
    target, mutators = KINDS[suffix]
    tally = fuzz(target, mutants(files[suffix], count, mutators), folder, suffix=suffix, announce=announce)
    assert not canary.exists()
    assert not tally.failures, tally
    assert any(result.status == "refused" for result in tally.results)
    return tally


def test_the_intact_files_open_and_the_hostile_pickle_is_hostile(files, canary, tmp_path):
    for suffix, (target, _) in KINDS.items():
        for name, content in files[suffix].items():
            if name != "hostile.pth":
                path = tmp_path / f"x{suffix}"
                path.write_bytes(content)
                target(path)
    pickle.loads(pickle.dumps(Code(canary), 2)).close()
    assert canary.exists()
    canary.unlink()


def test_damage_of_the_structure_reaches_what_a_reader_interprets(files):
    """Bits flipped at random nearly always fall on values of weights."""
    content = files[".h5"]["today.weights.h5"]
    assert np.mean([mutant.content != content for mutant in mutants({"x": content}, 40, {"s": in_structure})]) > 0.8
    assert len(_places(content, b"TREE")) > 10


@pytest.mark.slow
@pytest.mark.parametrize("suffix", KINDS)
def test_a_slice_of_damaged_files_is_read_or_refused_in_one_line(suffix, files, canary, tmp_path):
    damaged(suffix, SLICE, files, canary, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("suffix", KINDS)
def test_damaged_files_are_read_or_refused_in_one_line(suffix, files, canary, tmp_path):
    tally = damaged(suffix, FULL, files, canary, tmp_path)
    print(tally.row(f"`{suffix}`", "tests/fuzz/test_models.py"))
