"""A check of the user's own: any Python function of a case and an answer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from gainful.checks.source import named_object
from gainful.core import Answer, Case, JsonObject, Score, TaskError

Judge = Callable[[Case, Answer], Score | float | None]


@dataclass(frozen=True)
class Function:
    """What the function ``(case, answer) -> Score | float | None`` says.

    ``function`` is ``file.py:name`` (relative to ``folder``) or ``package.module:name``.  ``trusted``: it
    executes, validates or compares, so that it may count as proof; say false where a model's opinion is in it.
    ``needs_target``: it reads ``case.target``; say false where it does not, and it gets the case without its target
    and may be consulted while an answer is made.  ``sha256`` is the digest of the source file: found when left
    empty, required otherwise.  Raises ``TaskError`` where the function cannot be loaded, is none, or has another
    source.
    """

    function: str
    trusted: bool = True
    needs_target: bool = True
    sha256: str = ""
    folder: Path = field(default=Path(), repr=False)

    def __post_init__(self) -> None:
        found, sha256 = named_object(self.function, self.folder)
        if not callable(found) or inspect.iscoroutinefunction(found) or not _takes_two(found):
            raise TaskError(f"{self.function!r} is {found!r}; a check is a plain function (case, answer)")
        if self.sha256 not in ("", sha256):
            raise TaskError(
                f"{self.function!r} comes from a file with sha256 {sha256}, where {self.sha256} was expected; "
                "check out the version of the file that was used"
            )
        object.__setattr__(self, "sha256", sha256)

    @cached_property
    def _judge(self) -> Judge:
        judge: Judge = named_object(self.function, self.folder)[0]
        return judge

    @property
    def name(self) -> str:
        """The function's own name."""
        return self.function.rpartition(":")[2]

    @property
    def spec(self) -> JsonObject:
        """Kind and settings; the digest says which version of the source judged."""
        return {
            "kind": "function",
            "function": self.function,
            "trusted": self.trusted,
            "needs_target": self.needs_target,
            "sha256": self.sha256,
        }

    def __call__(self, case: Case, answer: Answer) -> Score | float | None:
        """Return what the function returns; ``core.judge`` refuses what is no score."""
        return self._judge(case if self.needs_target else msgspec.structs.replace(case, target=None), answer)


def _takes_two(found: Any) -> bool:
    try:
        inspect.signature(found).bind(None, None)
    except (TypeError, ValueError):
        return False
    return True
