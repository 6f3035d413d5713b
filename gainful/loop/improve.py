"""A run: find the model's errors, propose, race on dev, confirm once, promote or not.

Search is free and claims nothing.  Its head goes to one confirmation on held-out cases, which spends from the
lifetime budget and is the only thing that can promote.  Everything decided is written to the journal; a run that
was killed is run again and takes the same steps from the memo.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from gainful.core import Learner, LearnerError, Policy, Proposal, TaskError, Usage
from gainful.gate import cases_for, certifiable_gain, interval
from gainful.learners import LEARNERS
from gainful.loop.board import Board, difference, error_groups, score
from gainful.loop.calibrate import Bench, refresh_detector
from gainful.loop.confirm import Lifetime, Plan, confirm
from gainful.loop.events import (
    Baseline,
    Contribution,
    Finished,
    Head,
    Interval,
    Power,
    Standing,
    Started,
    Unconfirmed,
)
from gainful.loop.race import Runner, leads, race
from gainful.loop.run import Run

QUOTED_GAINS = (20, 10, 5, 2)  # points, for which the power statement says how many cases they take


async def improve(run: Run, learners: Sequence[Learner] = LEARNERS) -> Finished:
    """Run to the end and return its last record."""
    hopeless = _start(run)
    board = Board(run)
    search = Search(run, board, learners)
    head = await search.run()
    gain = paired(board, head, run.champion)
    most = affordable(run, head, board.usage.calls)
    obstacle = hopeless or _too_small(run, gain) or _too_dear(run, most)
    receipt, decided = None, None
    if obstacle:
        run.journal.write(Unconfirmed(reason=obstacle))
    else:
        decided, folder = await confirm(run, head, Plan(gain.mean, most))
        receipt = str(folder)
    promoted = decided is not None and decided.promoted
    finished = Finished(
        champion=head.id if promoted else run.champion.id,
        promoted=promoted,
        receipt=receipt,
        contributions=search.contributions(),
        search_usage=board.usage,
        confirm_usage=decided.usage if decided else Usage(),
    )
    run.journal.write(finished)
    _refresh_detector(run, board, head if promoted else run.champion)
    return finished


def _refresh_detector(run: Run, board: Board, champion: Policy) -> None:
    """Fit P(wrong) of the champion's answers from its dev attempts, where their truth is known; no model is asked."""
    with contextlib.suppress(Exception):  # the run is decided and written; what breaks here must not undo it
        refresh_detector(run.store, Bench(run.task, champion, run.model), board.answered(champion), run.settings.seed)


def _start(run: Run) -> str | None:
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


def paired(board: Board, challenger: Policy, champion: Policy) -> Interval:
    """Return the mean difference on the dev cases that both have answered, with its interval."""
    pairs = list(zip(board.answered(challenger), board.answered(champion), strict=False))
    gains = [difference(ours, theirs) for ours, theirs in pairs]
    low, high = interval(gains, 0.05, len(gains), -1.0, 1.0)
    return Interval(mean=sum(gains) / len(gains), low=low, high=high, n=len(gains))


def _too_small(run: Run, gain: Interval) -> str | None:
    """Say why a gain on dev is not worth a confirmation, ``None`` where it is."""
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


def _too_dear(run: Run, most: int | None) -> str | None:
    """Say why what is left of the budget cannot confirm anything, ``None`` where it can."""
    fewest = cases_for(1.0, Lifetime.of(run).budget.level)
    if most is None or most >= fewest:
        return None
    return f"the budget of {run.settings.budget_calls} calls leaves {most} held-out cases, and proof takes {fewest}"


class Search:
    """The greedy part: rounds of proposals, each raced from the head of the lineage."""

    def __init__(self, run: Run, board: Board, learners: Sequence[Learner]):
        self._run, self.board, self.learners = run, board, learners
        self.head = run.champion
        self._raced: list[tuple[Runner, Policy]] = []  # every runner with the head it was raced against
        self._taken: set[str] = set()

    async def run(self) -> Policy:
        """Search until a round brings nothing, the rounds are over, or half of the call budget is spent."""
        settings = self._run.settings
        await self._baseline()
        for number in range(1, settings.rounds + 1):
            runners = self._runners()
            if not runners or not self.board.affords([r.proposal.policy for r in runners], settings.halving.rungs[0]):
                break
            best = await race(self.head, runners, self.board, self._run.journal, number, settings.halving)
            self._raced += [(runner, self.head) for runner in runners]
            improved = best is not None and leads(best)
            self._crown(number, best if improved else None, runners)
            if not improved:
                break
        return self.head

    def contributions(self) -> tuple[Contribution, ...]:
        """Return what every raced candidate changed against the head of its round, harm included."""
        found = []
        for runner, head in self._raced:
            policy = runner.proposal.policy
            if not self.board.answered(policy):
                continue  # the budget ended before its first case
            gain = paired(self.board, policy, head)
            found.append(
                Contribution(
                    label=runner.label,
                    learner=runner.proposal.learner,
                    change=runner.proposal.change,
                    n=gain.n,
                    gain=gain.mean,
                    true_gain=self.board.true_gain(policy, head),
                    taken=runner.label in self._taken,
                )
            )
        return tuple(found)

    async def _baseline(self) -> None:
        settings, done = self._run.settings, 0
        n = min(settings.halving.rungs[-1], len(self.board.cases))
        while n > 0 and not self.board.affords([self.head], n):
            n -= 1
        if n == 0:
            raise TaskError(f"a budget of {settings.budget_calls} calls is too small to begin with; give 200 or more")

        def tick() -> None:
            nonlocal done
            done += 1
            self._run.journal.progress("baseline on dev", done, n)

        attempts = await self.board.fill(self.head, n, tick)
        self._run.journal.write(
            Baseline(
                policy=self.head.id,
                score=score(attempts),
                groups=error_groups(self.board.cases, attempts),
                usage=self.board.usage,
            )
        )

    def _runners(self) -> list[Runner]:
        """Ask every learner; leave out what was raced before, and a change that lost in an earlier round."""
        seen = {runner.proposal.policy.id for runner, _ in self._raced} | {self.head.id}
        lost = {(r.proposal.learner, r.proposal.change) for r, _ in self._raced if r.label not in self._taken}
        runners: list[Runner] = []
        for learner in self.learners:
            for proposal in _propose(learner, self.head, self.board):
                if proposal.policy.id not in seen and (proposal.learner, proposal.change) not in lost:
                    seen.add(proposal.policy.id)
                    runners.append(Runner(label=f"c{len(self._raced) + len(runners) + 1}", proposal=proposal))
        return runners

    def _crown(self, number: int, best: Standing | None, runners: Sequence[Runner]) -> None:
        """Make the best runner the head, if it beat it, and write down where the lineage stands."""
        winner = next((r for r in runners if best is not None and r.label == best.label), None)
        if winner is not None:
            self.head = winner.proposal.policy
            self._taken.add(winner.label)
        attempts = self.board.answered(self.head)
        self._run.journal.write(
            Head(
                round=number,
                policy=self.head.id,
                label=winner.label if winner else None,
                learner=winner.proposal.learner if winner else None,
                change=winner.proposal.change if winner else None,
                score=score(attempts),
                gain=best.gain if best else 0.0,
                gain_over_champion=paired(self.board, self.head, self._run.champion).mean,
                groups=error_groups(self.board.cases, attempts),
            )
        )


def _propose(learner: Learner, head: Policy, board: Board) -> Sequence[Proposal]:
    """Ask one learner: the one boundary between us and a user's learner."""
    try:
        proposals = list(learner.propose(head, board.evidence(head)))
    except (Exception, SystemExit) as error:  # the learner is not ours: name it, whatever it raised
        raise LearnerError(
            f"learner {learner.name!r} raised {type(error).__name__}: {error}; leave it out or mend it"
        ) from error
    for proposal in proposals:
        if not isinstance(proposal, Proposal):
            raise LearnerError(
                f"learner {learner.name!r} proposed {proposal!r}; a learner must return Proposal objects"
            )
    return proposals
