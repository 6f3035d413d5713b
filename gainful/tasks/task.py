"""A task: cases, what an answer looks like, and who judges it, for learning and for proof."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import msgspec

from gainful.core import AnswerKind, Case, Check, JsonObject, Policy, TaskError
from gainful.tasks.holdout import Holdout


@dataclass(frozen=True)
class Task:
    """What is to be done well.

    ``checks`` are those that learning may use on ``dev``; ``proof`` are those of the confirmation on ``holdout``.
    ``spec`` says where all of it came from, enough to load the task again: ``spec["load"]`` is what ``load`` takes.
    Raises ``TaskError`` where there is no dev case, no check to learn from, or a dev case without words.
    """

    name: str
    kind: AnswerKind
    dev: tuple[Case, ...]
    holdout: Holdout
    checks: tuple[Check, ...]
    proof: tuple[Check, ...]
    baseline: Policy
    spec: JsonObject

    def __post_init__(self) -> None:
        if not self.dev:
            raise TaskError(f"task {self.name!r} has no dev case; learning needs some, 50 or better 200")
        if not self.checks:
            raise TaskError(f"task {self.name!r} has no check to learn from; add one that may be used on dev cases")

    @property
    def obstacle(self) -> str | None:
        """Why no gain on this task can ever be proven, in one sentence; ``None`` where it can."""
        if not any(check.trusted for check in self.proof):
            judged = ", ".join(check.name for check in self.proof) or "none at all"
            return (
                f"task {self.name!r} can be explored but nothing on it can be promoted: none of its proof checks is "
                f"trusted (it has: {judged}); add a check that compares with a target, validates or executes"
            )
        if self.holdout.size == 0:
            return f"task {self.name!r} has no held-out case, so nothing on it can be promoted; give it more cases"
        return None

    @property
    def provable(self) -> bool:
        """Whether a gain on this task could be proven at all, given enough cases."""
        return self.obstacle is None

    @cached_property
    def shown(self) -> tuple[Case, ...]:
        """The dev cases as learners may see them: without targets, unless a check for learning reads targets."""
        if any(check.needs_target for check in self.checks):
            return self.dev
        return tuple(msgspec.structs.replace(case, target=None) for case in self.dev)
