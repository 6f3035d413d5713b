"""What one run is made of: the task, the model, the store and the settings that decide how it goes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gainful.core import Attempt, Case, Check, Model, Policy, TaskError, Value
from gainful.engine.local import Engine
from gainful.learners.teaching import Teaching
from gainful.loop.attempts import kept_attempts
from gainful.loop.journal import Journal
from gainful.loop.trainer import Trainer
from gainful.store import Lease, Store
from gainful.tasks.task import Task


class Halving(Value, frozen=True):
    """``rungs``: how many dev cases have been answered at each step of a race.  ``keep``: the share that races on."""

    rungs: tuple[int, ...] = (8, 20, 40)
    keep: float = 0.4


class Cheaper(Value, frozen=True):
    """The goal of a run that saves instead of improving.

    A policy wins that takes at most 1 - ``saving`` of the champion's tokens, and is proven worse by less than
    ``margin``, in (0, 1) of score (non-inferiority).
    """

    margin: float = 0.05
    saving: float = 0.2

    def __post_init__(self) -> None:
        if not 0.0 < self.margin < 1.0:
            raise TaskError(f"the margin is {self.margin!r}; it must be a score above 0 and below 1, such as 0.05")
        if not 0.0 < self.saving < 1.0:
            raise TaskError(f"the saving is {self.saving!r}; it must be a share above 0 and below 1, such as 0.2")


class Settings(Value, frozen=True):
    """How a run goes; part of the run's name, so that the same command finds the same run again.

    ``alpha`` bounds the chance of any false promotion over the life of a hold-out.  A head is sent to its
    confirmation once its dev gain over the champion is ``least_gain``, and ``gain_step`` more for each
    confirmation that failed since the last promotion.  ``fresh_cases`` caps a confirmation on a task that makes
    new cases.  ``budget_calls`` caps the model calls of the run, repeated ones included; ``None``: no cap.
    ``teaching`` says how the model's own weights are learned; ``None``: they are not.  ``cheaper``: the run looks for
    a policy that costs less and is as good.
    """

    seed: int = 0
    rounds: int = 5
    halving: Halving = Halving()
    alpha: float = 0.05
    least_gain: float = 0.04
    gain_step: float = 0.02
    fresh_cases: int = 400
    budget_calls: int | None = None
    teaching: Teaching | None = None
    cheaper: Cheaper | None = None


@dataclass(frozen=True)
class Run:
    """One run under way, from ``champion`` and from line ``ledger_start`` of its hold-out's ledger.

    ``model`` remembers its calls; ``model_spec`` connects to it again.  What is proven comes into service only where
    the run ``installs``; where it does not, somebody else lets it in step by step.  ``lease`` is the right to write to
    the ledger, where one is needed.  ``trainer`` trains where the settings say so.  ``earlier`` says how former
    champions did on dev (``former_marks``), as it was when the run began.
    """

    task: Task
    champion: Policy
    ledger_start: int
    model: Model
    model_spec: str
    store: Store
    journal: Journal
    settings: Settings
    receipts: Path
    signing_key: Path
    installs: bool = True
    lease: Lease | None = None
    trainer: Trainer | None = None
    earlier: Mapping[str, str] = field(default_factory=dict)

    @property
    def engine(self) -> Engine:
        """The engine for this task: strategies may consult the checks that read no answer key."""
        consult = tuple(check for check in self.task.checks if not check.needs_target)
        return Engine(model=self.model, kind=self.task.kind, consult=consult)

    def attempts(self, policy: Policy, cases: Iterable[Case], checks: Sequence[Check]) -> AsyncGenerator[Attempt, None]:
        """Yield one attempt a case, in order, storing them."""
        return kept_attempts(self.store, self.task.name, self.engine, policy, cases, checks)
