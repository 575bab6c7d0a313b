"""TFLite metadata: what is written is read again, and damage is harmless."""

from __future__ import annotations

import io
import sys
import zipfile

import pytest
from tiny_files import normalisation_metadata, tiny_file

from keras_effnet.export.tflite_file.graph import read_graph
from keras_effnet.export.tflite_file.metadata.reading import has_normalization, read_metadata
from keras_effnet.export.tflite_file.metadata.tables import ENTRY, FileMetadata
from keras_effnet.export.tflite_file.metadata.writing import metadata_bytes, with_labels

FULL = FileMetadata(
    name="flowers",
    description="Five flowers.",
    version="3",
    author="A. Gardener",
    license="Apache-2.0",
    input_name="image",
    input_description="A photo.",
    color_space="RGB",
    mean=(127.0,),
    std=(128.0,),
    pixel_range=(0.0, 255.0),
    output_name="scores",
    output_description="Probabilities.",
    score_threshold=0.0,
    labels=("daisy", "Löwenzahn", "crane (n03126707)"),
)


def file_with(metadata: bytes, labels: tuple[str, ...] = ()) -> bytes:
    tensors = {"image": ("float32", (1, 8, 8, 3)), "scores": ("float32", (1, 3))}
    content = tiny_file(tensors, [("RESHAPE", "image", "scores")], "image", "scores", metadata=metadata)
    return with_labels(content, labels) if labels else content


def read(content: bytes) -> FileMetadata | None:
    return read_metadata(content, read_graph(content).metadata)


def test_what_is_written_is_read_again():
    assert read(file_with(metadata_bytes(FULL), FULL.labels)) == FULL
    bare = FileMetadata(color_space="GRAYSCALE", mean=(0.0, 1.0, 2.0), std=(1.0, 2.0, 3.0))
    assert read(file_with(metadata_bytes(bare))) == bare


def test_a_file_without_metadata_has_none():
    assert read_metadata(b"", {}) is None


def test_labels_are_stored_uncompressed_and_without_a_date():
    content = file_with(metadata_bytes(FULL), FULL.labels)
    (entry,) = zipfile.ZipFile(io.BytesIO(content)).infolist()
    assert (entry.filename, entry.compress_type) == ("labels.txt", zipfile.ZIP_STORED)
    assert entry.date_time == (1980, 1, 1, 0, 0, 0)
    assert content[entry.header_offset :].startswith(b"PK\3\4")  # offsets count from the start of the model
    assert content == file_with(metadata_bytes(FULL), FULL.labels)


@pytest.mark.skipif(sys.platform == "win32", reason="names of bytes are POSIX")
def test_texts_that_are_not_unicode_are_written_escaped():
    assert read(file_with(metadata_bytes(FileMetadata(name="caf\udce9")))).name == r"caf\udce9"


def test_damaged_metadata_is_named_and_not_used(caplog):
    assert read(file_with(b"\xff" * 40)) is None
    assert "metadata is damaged and not used" in caplog.text
    cut = metadata_bytes(FULL)
    for end in range(0, len(cut), 7):
        read_metadata(b"", {ENTRY: cut[:end]})


def test_a_damaged_archive_gives_no_labels():
    content = file_with(metadata_bytes(FULL), FULL.labels)
    archive = content.index(b"PK\3\4")
    for place in range(archive, len(content)):
        damaged = content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]
        assert read(damaged).labels in ((), FULL.labels) or place < content.index(b"PK\1\2")
    assert read(content[:archive]).labels == ()


def test_labels_that_unfold_to_gigabytes_are_not_read():
    content = io.BytesIO(file_with(metadata_bytes(FULL)))
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.txt", b"\n" * (1 << 25))
    assert read(content.getvalue()).labels == ()


def test_normalization_is_found():
    assert has_normalization(metadata_bytes(FULL)) and has_normalization(normalisation_metadata())
    assert not has_normalization(normalisation_metadata(kind=2))
    assert not has_normalization(b"") and not has_normalization(None)
