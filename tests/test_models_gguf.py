"""What is told about a model file before the engine sees it."""

import hashlib
import os
from pathlib import Path

import pytest

from gainful.core import ModelNotFound
from gainful.models import EmbeddedModel, connect
from gainful.models.gguf import gguf_digest

WHOLE = b"GGUF" + b"\x00" * 60


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"PK\x03\x04" + b"\x00" * 60, r"is not a GGUF file: it starts with b'PK\\x03\\x04'"),
        (b"", r"is not a GGUF file: it starts with b''"),
        (WHOLE[:23], r"is cut off after 23 bytes; fetch it again"),
    ],
)
def test_a_file_that_is_no_gguf_is_told_at_the_door(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)

    with pytest.raises(ModelNotFound, match=sentence):
        EmbeddedModel(path)


@pytest.mark.parametrize("name", ["none.gguf", "."])
def test_a_file_that_cannot_be_read_is_told_at_the_door(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelNotFound, match="cannot be read"):
        connect(f"gguf:{tmp_path / name}")


def test_a_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.gguf").write_bytes(WHOLE)
    monkeypatch.setenv("HOME", str(tmp_path))

    assert connect("gguf:~/tiny.gguf").name == "tiny"


def test_the_digest_is_noted_and_taken_again_when_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(WHOLE)
    first = gguf_digest(path)
    note = path.with_name("model.gguf.sha256.json")
    note.write_text(note.read_text().replace(first, "f" * 64))  # only the note can say this
    noted = gguf_digest(path)
    os.utime(path, ns=(1, 1))
    touched = gguf_digest(path)

    assert first == hashlib.sha256(WHOLE).hexdigest()
    assert noted == "f" * 64
    assert touched == first


@pytest.mark.parametrize("note", ["", "[]", "{}", "\x00", '{"size": 64}'])
def test_a_note_that_says_nothing_is_passed_over(tmp_path: Path, note: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(WHOLE)
    path.with_name("model.gguf.sha256.json").write_text(note)

    assert gguf_digest(path) == hashlib.sha256(WHOLE).hexdigest()
