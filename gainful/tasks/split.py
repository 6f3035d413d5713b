"""Which cases are for learning and which are held out: decided by what a case says, and by nothing else.

Guarantees: a case's side follows from its own words, the salt and the share, so it stays the same when others
are added, dropped or moved, and anybody can compute it again; two cases whose turns differ in letter case or
blanks alone fall on the same side, whatever their tools.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from typing import Any, Literal

from gainful.core import Case, JsonObject, TaskError, Value, canonical, digest

DEV_SHARE = 0.4  # the larger part goes to the hold-out: what can be certified depends on its size
NEVER_SHARE = 0.1  # of the traffic that is not for learning: some for others to judge by, little enough to spare
SALT = "gainful split"


class Split(Value, frozen=True):
    """How cases are divided: the share of dev cases in (0, 1), and a number that picks one of many divisions."""

    dev: float = DEV_SHARE
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.dev < 1.0:
            raise TaskError(f"the share of dev cases is {self.dev!r}; it must lie between 0 and 1, such as {DEV_SHARE}")

    @property
    def salt(self) -> str:
        """The text that goes before a case's words when they are hashed."""
        return f"{SALT} {self.seed}"

    @property
    def spec(self) -> JsonObject:
        """What a stranger needs to divide the same cases in the same way."""
        return {"dev": self.dev, "salt": self.salt}

    def is_dev(self, case: Case) -> bool:
        """Say whether *case* is for learning.

        It is where the first 8 bytes of ``SHA-256(salt, newline, canonical JSON of the folded messages)``, as a
        big-endian number, are below ``dev`` x 2**64.  Folded: every text in NFKC, case folded, blanks run together
        and stripped at the ends.
        """
        return int.from_bytes(self._heard(case)[:8], "big") < self.dev * 2**64

    def side(self, case: Case) -> Literal["dev", "held-out", "never"]:
        """Say what a case from traffic is for: as ``is_dev``, and of those that are not, a share is for nobody.

        Those are the ones whose next 8 bytes are below ``NEVER_SHARE`` x 2**64: they are kept for whoever wants to
        judge us by cases that nothing of ours has touched.
        """
        if self.is_dev(case):
            return "dev"
        return "never" if int.from_bytes(self._heard(case)[8:16], "big") < NEVER_SHARE * 2**64 else "held-out"

    def _heard(self, case: Case) -> bytes:
        return hashlib.sha256(self.salt.encode() + b"\n" + canonical(_folded(case.messages))).digest()


DEFAULT = Split()


class Divided(Value, frozen=True):
    """Distinct cases in two parts that share none, each in the order they came in, and how many copies were dropped."""

    dev: tuple[Case, ...]
    held_out: tuple[Case, ...]
    copies: int
    how: Split

    @property
    def spec(self) -> JsonObject:
        """What a stranger needs to see that the same cases were divided in the same way."""
        seen = digest(sorted([case.id, digest(case.target)] for case in self.dev))
        return {"split": self.how.spec, "dev": len(self.dev), "dev_digest": seen, "copies": self.copies}


def divide(cases: Iterable[Case], how: Split = DEFAULT) -> Divided:
    """Drop copies and divide the rest; of cases with the same ``content`` the first is kept.

    Raises ``TaskError`` naming both cases where two copies have different targets.
    """
    kept: dict[str, Case] = {}
    copies = 0
    for case in cases:
        first = kept.setdefault(content(case), case)
        if first is case:
            continue
        copies += 1
        if digest(first.target) != digest(case.target):
            raise TaskError(
                f"{first.name or first.id[:12]} and {case.name or case.id[:12]} ask the same and have the targets "
                f"{first.target!r} and {case.target!r}; correct one of them or take both out"
            )
    sides: dict[bool, list[Case]] = {True: [], False: []}
    for case in kept.values():
        sides[how.is_dev(case)].append(case)
    return Divided(dev=tuple(sides[True]), held_out=tuple(sides[False]), copies=copies, how=how)


def content(case: Case) -> str:
    """Return the digest of the case's folded turns and tools: copies of one case have the same."""
    return digest(_folded({"messages": case.messages, "tools": case.tools}))


def _folded(value: Any) -> Any:
    if isinstance(value, str):
        return " ".join(unicodedata.normalize("NFKC", value).casefold().split())
    if isinstance(value, dict):
        return {name: _folded(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_folded(item) for item in value]
    return value
