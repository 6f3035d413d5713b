"""Is the answer's text the target's?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gainful.core import Answer, Case, CheckError, JsonObject, Score


@dataclass(frozen=True)
class Exact:
    """Score 1 where the answer's value is the target text, else 0; unknown where the case has no target.

    The target is a text, or a list of texts any of which will do.  Both sides are compared as they are, code point
    by code point; ``ignore_space`` first drops blanks at the ends and turns every run of blanks inside (what
    ``str.split`` splits at) into one space; ``ignore_case`` then case-folds (``str.casefold``).  A value that is no
    text scores 0.  Groups: "no answer" without a value, else "wrong value".
    """

    ignore_case: bool = False
    ignore_space: bool = False

    name: ClassVar[str] = "exact"
    trusted: ClassVar[bool] = True
    needs_target: ClassVar[bool] = True

    @property
    def spec(self) -> JsonObject:
        """Kind and settings."""
        return {"kind": self.name, "ignore_case": self.ignore_case, "ignore_space": self.ignore_space}

    def __call__(self, case: Case, answer: Answer) -> Score | None:
        """Judge one answer; raises ``CheckError`` for a target that is no text."""
        if case.target is None:
            return None
        wanted = case.target if isinstance(case.target, list | tuple) else [case.target]
        if not all(isinstance(text, str) for text in wanted):
            raise CheckError(f"the target is {case.target!r}; the check 'exact' needs a text or a list of texts")
        if answer.value is None:
            return Score(0.0, "The reply holds no answer.", "no answer")
        if isinstance(answer.value, str) and self._read(answer.value) in map(self._read, wanted):
            return Score(1.0)
        return Score(0.0, "The answer is not right.", "wrong value")

    def _read(self, text: str) -> str:
        if self.ignore_space:
            text = " ".join(text.split())
        return text.casefold() if self.ignore_case else text
