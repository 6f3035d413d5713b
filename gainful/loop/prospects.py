"""What a run can prove, said before it spends anything, and whether what it found is worth a confirmation."""

from __future__ import annotations

from gainful.core import Policy
from gainful.gate import cases_for, certifiable_gain
from gainful.loop.confirm import Lifetime
from gainful.loop.events import Interval, Power, Started
from gainful.loop.run import Run

QUOTED_GAINS = (20, 10, 5, 2)  # points, for which the power statement says how many cases they take


def announce(run: Run) -> str | None:
    """Say what will be done and, before anything is spent, what can be certified; return why nothing can, if so."""
    task, budget = run.task, Lifetime.of(run).budget
    size = task.holdout.size if task.holdout.size is not None else run.settings.fresh_cases
    certifiable = certifiable_gain(size, budget.level) if size else None
    obstacle = task.obstacle
    if obstacle is None and certifiable is None:
        obstacle = (
            f"the hold-out of {size} cases is too small to certify any gain at level {budget.level:.2g}; "
            f"it takes at least {cases_for(1.0, budget.level)}, so give the task more cases"
        )
    run.journal.write(
        Started(
            run=run.journal.run,
            task=task.name,
            model=run.model.name,
            seed=run.settings.seed,
            dev=len(task.dev),
            holdout=size,
            champion=run.champion,
            learn_checks=tuple(check.name for check in task.checks),
            proof_checks=tuple(check.name for check in task.proof),
            budget_calls=run.settings.budget_calls,
            obstacle=obstacle,
            holdout_digest=task.holdout.digest,
            copies=task.spec.get("copies", 0),
        )
    )
    run.journal.write(
        Power(
            size=size,
            level=budget.level,
            rank=budget.rank,
            certifiable=certifiable,
            cases_for={str(points): cases_for(points / 100, budget.level) for points in QUOTED_GAINS},
        )
    )
    return obstacle


def too_small(run: Run, head: Policy, gain: Interval) -> str | None:
    """Say why a gain on dev is not worth a confirmation, ``None`` where it is."""
    if run.settings.cheaper is not None:
        return None if head.id != run.champion.id else "nothing that is as good takes fewer tokens; the champion stays"
    failures = Lifetime.of(run).failures
    wanted = run.settings.least_gain + run.settings.gain_step * failures
    if gain.mean >= wanted:
        return None
    after = f" after {failures} failed confirmation{'s' if failures > 1 else ''}" if failures else ""
    return (
        f"the best policy found gains {100 * gain.mean:.1f} points on dev, and a confirmation takes "
        f"{100 * wanted:.1f}{after}; the champion stays"
    )


def affordable(run: Run, challenger: Policy, spent_calls: int) -> int | None:
    """Return how many held-out cases the rest of the call budget covers at worst; ``None`` where there is no budget."""
    budget = run.settings.budget_calls
    return None if budget is None else (budget - spent_calls) // (run.champion.most_calls + challenger.most_calls)


def too_dear(run: Run, most: int | None) -> str | None:
    """Say why what is left of the budget cannot confirm anything, ``None`` where it can."""
    fewest = cases_for(1.0, Lifetime.of(run).budget.level)
    if most is None or most >= fewest:
        return None
    return f"the budget of {run.settings.budget_calls} calls leaves {most} held-out cases, and proof takes {fewest}"
