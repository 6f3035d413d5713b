"""How many of the samples agree with the answer?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gainful.checks.equality import equals
from gainful.core import Answer, Case, JsonObject, Score


@dataclass(frozen=True)
class Agreement:
    """Score the share of the answer's samples that equal its value; unknown with fewer than two samples.

    Samples are compared as JSON values (numbers by value); one that holds no answer agrees with nothing.  A model
    can agree with itself on something false: ``trusted`` is false.  Group: "no agreement".
    """

    name: ClassVar[str] = "agreement"
    trusted: ClassVar[bool] = False
    needs_target: ClassVar[bool] = False

    @property
    def spec(self) -> JsonObject:
        """The kind; there are no settings."""
        return {"kind": self.name}

    def __call__(self, case: Case, answer: Answer) -> Score | None:
        """Judge one answer."""
        if len(answer.samples) < 2:
            return None
        agreeing = sum(sample is not None and equals(sample, answer.value) for sample in answer.samples)
        if agreeing == len(answer.samples):
            return Score(1.0)
        feedback = f"Only {agreeing} of {len(answer.samples)} samples gave this answer; think again."
        return Score(agreeing / len(answer.samples), feedback, "no agreement")
