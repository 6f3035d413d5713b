"""Is the answer one of the labels, and the right one?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gainful.core import Answer, Case, CheckError, JsonObject, Score, TaskError


@dataclass(frozen=True)
class Choice:
    """Score 1 where the answer's value is the target, one of ``labels``, else 0.

    Unknown where the case has no target and the value is a label.  Labels are compared as they are, code point by code
    point.  Groups: "no choice" where the value is no label,
    else "wrong value".  With ``compare`` false the target is not read: the check then says only whether a label was
    chosen, and learning may use it on cases whose targets it must not see.  Raises ``TaskError`` for fewer than two
    labels or a label given twice.
    """

    labels: tuple[str, ...]
    compare: bool = True

    name: ClassVar[str] = "choice"
    trusted: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if len(set(self.labels)) < max(2, len(self.labels)):
            raise TaskError(f"check 'choice' has the labels {list(self.labels)!r}; give two or more, each once")

    @property
    def needs_target(self) -> bool:
        """Whether targets are read."""
        return self.compare

    @property
    def spec(self) -> JsonObject:
        """Kind and settings."""
        return {"kind": self.name, "labels": list(self.labels), "compare": self.compare}

    def __call__(self, case: Case, answer: Answer) -> Score | None:
        """Judge one answer; raises ``CheckError`` for a target that is no label."""
        if answer.value not in self.labels:
            return Score(0.0, f"The reply is not one of the labels {', '.join(self.labels)}.", "no choice")
        if not self.compare:
            return Score(1.0)
        if case.target is None:
            return None
        if case.target not in self.labels:
            raise CheckError(f"the target is {case.target!r}; the check 'choice' needs one of {', '.join(self.labels)}")
        return Score(1.0) if answer.value == case.target else Score(0.0, "The label is not right.", "wrong value")
