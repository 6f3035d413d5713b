"""Know a GGUF file before llama.cpp sees it: is it one, is it whole, which one is it?

llama.cpp may end the process on a file it cannot read, so what can be told beforehand is told here.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from gainful.core import JsonObject, ModelNotFound

MAGIC = b"GGUF"
SMALLEST = 24  # bytes of the fixed header: magic, version, count of tensors, count of metadata

_SIMPLE = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LONGEST = 1 << 28  # bytes of one value; a vocabulary takes some megabytes


class Header(NamedTuple):
    """What a file says of itself: key-value pairs, and how many weights follow."""

    metadata: JsonObject
    weights: int


def check_gguf(path: Path) -> None:
    """Raise ``ModelNotFound`` in one sentence unless *path* is a readable file that starts as GGUF does."""
    try:
        with path.open("rb") as file:
            head = file.read(SMALLEST)
    except OSError as error:
        raise ModelNotFound(f"{path} cannot be read: {error.strerror}; give the path of a GGUF file") from error
    if head[:4] != MAGIC:
        raise ModelNotFound(f"{path} is not a GGUF file: it starts with {head[:4]!r}, not {MAGIC!r}")
    if len(head) < SMALLEST:
        raise ModelNotFound(f"{path} is cut off after {len(head)} bytes; fetch it again")


def gguf_digest(path: Path) -> str:
    """Return the SHA-256 of the file, from the note left beside it when size and time of change still agree."""
    stat = path.stat()
    seen = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    note = path.with_name(path.name + ".sha256.json")
    try:
        noted = json.loads(note.read_text())
    except (OSError, ValueError):
        noted = {}
    if isinstance(noted, dict) and {k: noted.get(k) for k in seen} == seen and isinstance(noted.get("sha256"), str):
        return str(noted["sha256"])
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    _leave_note(note, json.dumps({**seen, "sha256": sha256}))
    return sha256


def _leave_note(note: Path, text: str) -> None:
    try:
        descriptor, scratch = tempfile.mkstemp(dir=note.parent, prefix=note.name)
    except OSError:
        return  # a folder that is read-only: the digest is taken anew at the next start
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.replace(scratch, note)


def read_header(path: Path) -> Header:
    """Return the header of the file at *path*; raises ``ModelNotFound`` where it cannot be read."""
    try:
        with path.open("rb") as file:
            magic, version, tensors, count = struct.unpack("<4sIQQ", file.read(SMALLEST))
            if magic != MAGIC or version < 2:
                raise ValueError(f"GGUF version {version}; 2 and later are known")
            return Header(dict(_pair(file) for _ in range(count)), sum(_weights(file) for _ in range(tensors)))
    except (OSError, struct.error, ValueError, KeyError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> ModelNotFound:
    """Return what to say of a file whose header cannot be read."""
    return ModelNotFound(f"{path} cannot be loaded: its header is damaged ({error}); fetch it again")


def _pair(file: BinaryIO) -> tuple[str, Any]:
    return _string(file), _value(file, _number(file, "I"))


def _weights(file: BinaryIO) -> int:
    """Read what is said of one tensor, and return how many weights it holds."""
    _string(file)
    lengths = [_number(file, "Q") for _ in range(_number(file, "I"))]
    _read(file, 12)  # its type, and where it lies
    return math.prod(lengths)


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return _number(file, _SIMPLE[kind])
    inner, count = _number(file, "I"), _number(file, "Q")
    if inner in (_STRING, _ARRAY):
        return [_value(file, inner) for _ in range(count)]
    return list(struct.unpack(f"<{count}{_SIMPLE[inner]}", _read(file, count * struct.calcsize(_SIMPLE[inner]))))


def _string(file: BinaryIO) -> str:
    return _read(file, _number(file, "Q")).decode(errors="replace")


def _number(file: BinaryIO, form: str) -> Any:
    size = struct.calcsize(f"<{form}")
    return struct.unpack(f"<{form}", _read(file, size))[0]


def _read(file: BinaryIO, size: int) -> bytes:
    data = file.read(size) if size <= _LONGEST else b""
    if len(data) != size:
        raise ValueError(f"a value of {size} bytes that is not there")
    return data
