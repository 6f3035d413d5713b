"""When two JSON values are one: the equality that checks share.

Guarantees: what is equal stays equal after both were written as canonical JSON (RFC 8785) and read again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def equals(left: Any, right: Any, reading: Callable[[str], str] = str) -> bool:
    """Say whether two JSON values are equal, their texts (not the names of members) compared as *reading* reads them.

    Numbers are equal by value; a boolean equals no number; arrays item by item; objects member by member.

    >>> equals([5, {"a": None}], [5.0, {"a": None}]), equals(True, 1), equals("Yes", "yes", str.lower)
    (True, False, True)
    """
    if isinstance(left, str) and isinstance(right, str):
        return reading(left) == reading(right)
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(equals(a, b, reading) for a, b in zip(left, right, strict=True))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equals(left[name], right[name], reading) for name in left)
    return bool(left == right)
