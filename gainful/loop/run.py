"""What one run is made of: the task, the model, the store and the settings that decide how it goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gainful.core import Model, Policy, Stopped, Usage, Value
from gainful.engine.local import Engine
from gainful.loop.journal import Journal
from gainful.loop.race import Halving
from gainful.store import Store
from gainful.tasks.task import Task


class Settings(Value, frozen=True):
    """How a run goes; part of the run's name, so that the same command finds the same run again.

    ``alpha`` bounds the chance of any false promotion over the life of a hold-out.  A head is sent to its
    confirmation once its dev gain over the champion is ``least_gain``, and ``gain_step`` more for each
    confirmation that failed since the last promotion.  ``fresh_cases`` caps a confirmation on a task that makes
    new cases.  ``budget_calls`` caps the model calls of the run, repeated ones included; ``None``: no cap.
    """

    seed: int = 0
    rounds: int = 5
    halving: Halving = Halving()
    alpha: float = 0.05
    least_gain: float = 0.04
    gain_step: float = 0.02
    fresh_cases: int = 400
    budget_calls: int | None = None


@dataclass(frozen=True)
class Run:
    """One run under way.  ``model`` remembers its calls; ``model_spec`` is how to connect to it again."""

    task: Task
    model: Model
    model_spec: str
    store: Store
    journal: Journal
    settings: Settings
    receipts: Path
    signing_key: Path

    @property
    def engine(self) -> Engine:
        """The engine for this task: strategies may consult the checks that read no answer key."""
        consult = tuple(check for check in self.task.checks if not check.needs_target)
        return Engine(model=self.model, kind=self.task.kind, consult=consult)

    def champion(self) -> Policy:
        """Return the policy in service, installing the task's baseline where there is none yet."""
        current = self.store.champion(self.task.name)
        if current is None:
            self.store.set_champion(self.task.name, self.task.baseline, "baseline")
            return self.task.baseline
        return self.store.policy(current)


def search_share(budget_calls: int | None) -> int | None:
    """Return the calls that searching may use: half; the other half is the confirmation's."""
    return None if budget_calls is None else budget_calls // 2


def require_budget(spent: Usage, budget_calls: int | None, step: str) -> None:
    """Raise ``Stopped`` when *spent* has reached the budget."""
    if budget_calls is not None and spent.calls >= budget_calls:
        raise Stopped(
            f"{step}: all {budget_calls} calls of the budget are spent; run the same command with a larger --budget"
        )
