"""Does the answer's text match a regular expression?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from gainful.core import Answer, Case, JsonObject, Score, TaskError


@dataclass(frozen=True)
class Regex:
    """Score 1 where the answer's text, stripped of blanks at its ends, matches ``pattern``, else 0 ("no match").

    The text is the answer's value where that is a text, else the whole reply.  The whole of it must match; with
    ``search`` some part of it.  The pattern is Python's ``re`` without flags; write ``(?i)`` and the like into it.
    Raises ``TaskError`` for a pattern that does not compile.

    Beware of patterns that nest repeats, such as ``(a+)+$``: on a reply that nearly matches, Python's matcher tries
    exponentially many ways and nothing interrupts it.  Write them so that each character can be read in one way only.
    """

    pattern: str
    search: bool = False

    name: ClassVar[str] = "regex"
    trusted: ClassVar[bool] = True
    needs_target: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _ = self._compiled

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        try:
            return re.compile(self.pattern)
        except re.error as error:
            raise TaskError(f"check 'regex' has pattern {self.pattern!r}: {error}; correct the pattern") from None

    @property
    def spec(self) -> JsonObject:
        """Kind and settings."""
        return {"kind": self.name, "pattern": self.pattern, "search": self.search}

    def __call__(self, case: Case, answer: Answer) -> Score:
        """Judge one answer."""
        text = (answer.value if isinstance(answer.value, str) else answer.text).strip()
        if (self._compiled.search if self.search else self._compiled.fullmatch)(text):
            return Score(1.0)
        return Score(0.0, f"The reply must match the regular expression {self.pattern}", "no match")
