"""Whether what training needs is installed; asked without importing it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

NEEDED = {"torch": "2.13", "transformers": "5.24", "trl": "1.16", "peft": "0.21", "gguf": "0.19", "safetensors": "0.8"}
ON_RAY = {"ray": "2.60"}
"""The lowest versions; the extras ``train`` and ``ray`` ask for the same."""


def missing(needed: Mapping[str, str] = NEEDED, extra: str = "train") -> str | None:
    """Return one sentence with the line that installs what training needs, *extra*; ``None`` where all is there."""
    found = {name: _version(name) for name in needed}
    absent = [name for name, seen in found.items() if seen is None]
    old = [f"{name} {seen}" for name, seen in found.items() if seen is not None and _is_older(seen, needed[name])]
    if not absent and not old:
        return None
    words = [f"needs {', '.join(absent)}"] if absent else []
    words += [f"finds {', '.join(old)} too old"] if old else []
    return f"training {' and '.join(words)}; run `pip install 'gainful[{extra}]'`"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _is_older(seen: str, needed: str) -> bool:
    """
    >>> [_is_older("2.13.0+cpu", "2.9"), _is_older("0.20.3", "0.21")]
    [False, True]
    """
    return _numbers(seen) < _numbers(needed)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text.partition("+")[0])]
