"""Know a GGUF file before llama.cpp sees it: is it one, is it whole, which one is it?

llama.cpp may end the process on a file it cannot read, so what can be told beforehand is told here.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

from gainful.core import ModelNotFound

MAGIC = b"GGUF"
SMALLEST = 24  # bytes of the fixed header: magic, version, count of tensors, count of metadata


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
