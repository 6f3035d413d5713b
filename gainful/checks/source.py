"""Python objects that users name in a task file or on the command line.

Naming one runs the file that holds it: that is the user's own wish, and names come from nowhere but task files and
command lines, never from a case, a reply or a receipt.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from gainful.core import TaskError


def named_object(reference: str, folder: Path) -> tuple[Any, str]:
    """Return what *reference* names, and the SHA-256 of the file that defines it.

    A reference is ``path/to/file.py:name``, the path relative to *folder*, or ``package.module:name``.  One file is
    run once for each of its contents.  Raises ``TaskError`` where there is no such file, module or name, or running
    it fails.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name.isidentifier():
        raise TaskError(f"{reference!r} names no Python object; write path/to/file.py:name or package.module:name")
    try:
        module, sha256 = _file(place, folder) if place.endswith(".py") else _module(place)
    except FileNotFoundError:
        raise TaskError(f"{reference!r}: there is no file {str(folder / place)!r}; correct the path") from None
    except ModuleNotFoundError as error:
        raise TaskError(f"{reference!r}: there is no module {error.name!r}; install it or correct the name") from error
    except (Exception, SystemExit) as error:  # the file is the user's: name it, whatever running it raised
        raise TaskError(f"{reference!r} cannot be loaded: {type(error).__name__}: {error}; correct the file") from error
    if not hasattr(module, name):
        public = ", ".join(sorted(n for n in vars(module) if not n.startswith("_"))) or "nothing"
        raise TaskError(f"{reference!r}: {place} has no {name!r}; it has {public}")
    return getattr(module, name), sha256


def _file(place: str, folder: Path) -> tuple[ModuleType, str]:
    path = (folder / Path(place).expanduser()).resolve()
    source = path.read_bytes()
    return _run(path, source), hashlib.sha256(source).hexdigest()


@cache
def _run(path: Path, source: bytes) -> ModuleType:
    """Run the very bytes that were hashed; a cached compilation could be of others."""
    module = ModuleType(f"gainful_user_{path.stem}_{hashlib.sha256(source).hexdigest()[:12]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickle look a class's module up by its name
    try:
        exec(compile(source, path, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


def _module(place: str) -> tuple[ModuleType, str]:
    module = importlib.import_module(place)
    if not module.__file__:
        raise ImportError(f"{place} has no source file")
    return module, hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest()
