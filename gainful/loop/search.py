"""The greedy part of a run: learners propose, candidates race on dev, the best becomes the head; it claims nothing."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Sequence

from gainful.core import GainfulError, Learner, LearnerError, Policy, Proposal, TaskError
from gainful.loop.board import Board, error_groups, score
from gainful.loop.events import Baseline, Contribution, Controls, Head, Standing
from gainful.loop.race import Runner, leads, race
from gainful.loop.run import Run


class Search:
    """Rounds of proposals, each raced from the head of the lineage."""

    def __init__(self, run: Run, board: Board, learners: Sequence[Learner]):
        self._run, self.board, self.learners = run, board, learners
        self.head = run.champion
        self._lineage = [run.champion]
        self._raced: list[tuple[Runner, Policy]] = []  # every runner with the head it was raced against
        self._taken: set[str] = set()

    async def run(self) -> Policy:
        """Search until a round brings nothing, the rounds are over, or half of the call budget is spent.

        Learners that train are asked in a round of their own, where the others have nothing left that helps, and in the
        last one whatever the others could still bring.
        """
        dear = [learner for learner in self.learners if getattr(learner, "trains", False)]
        cheap = [learner for learner in self.learners if learner not in dear]
        await self._baseline()
        asked, rounds = cheap or dear, self._run.settings.rounds
        for number in range(1, rounds + 1):
            if dear and number == rounds:
                asked = dear
            improved = await self._round(number, asked)
            if not improved and (asked is dear or not dear):
                break
            asked = (cheap or dear) if improved else dear
        return self.head

    async def _round(self, number: int, learners: Sequence[Learner]) -> bool:
        """Race what *learners* propose, and say whether the head has changed."""
        settings = self._run.settings
        runners = await self._runners(learners)
        if not runners or not self.board.affords([r.proposal.policy for r in runners], settings.halving.rungs[0]):
            return False
        best = await race(self.head, runners, self.board, self._run.journal, number, settings)
        self._raced += [(runner, self.head) for runner in runners]
        improved = best is not None and leads(best, settings.cheaper)
        self._crown(number, best if improved else None, runners)
        return improved

    def contributions(self) -> tuple[Contribution, ...]:
        """Return what every raced candidate changed against the head of its round, harm included."""
        found = []
        for runner, head in self._raced:
            policy = runner.proposal.policy
            if not self.board.answered(policy):
                continue  # the budget ended before its first case
            gain = self.board.paired(policy, head)
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

    def controls(self) -> Iterator[Controls]:
        """Yield for every raced candidate with new weights what it is worth beside the best policy without any."""
        for runner, head in self._raced:
            policy = runner.proposal.policy
            if policy.adapter is None or policy.adapter == head.adapter:
                continue
            lineage = self._lineage[: self._lineage.index(head) + 1]
            control = next((one for one in reversed(lineage) if one.adapter is None), head)
            found = self.board.controls(runner.label, policy, control, self.board.errors((*lineage, policy)))
            if found is not None:
                yield found

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

    async def _runners(self, learners: Sequence[Learner]) -> list[Runner]:
        """Ask every one of *learners*; leave out what was raced before, and a change that lost in an earlier round."""
        seen = {runner.proposal.policy.id for runner, _ in self._raced} | {self.head.id}
        lost = {(r.proposal.learner, r.proposal.change) for r, _ in self._raced if r.label not in self._taken}
        runners: list[Runner] = []
        for learner in learners:
            for proposal in await _propose(learner, self.head, self.board):
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
            self._lineage.append(self.head)
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
                gain_over_champion=self.board.paired(self.head, self._run.champion).mean,
                groups=error_groups(self.board.cases, attempts),
                errors=self.board.errors(self._lineage),
            )
        )


async def _propose(learner: Learner, head: Policy, board: Board) -> Sequence[Proposal]:
    """Ask one learner: the one boundary between us and a user's learner."""
    try:
        found = learner.propose(head, board.evidence(head))
        proposals = list(await found if isinstance(found, Coroutine) else found)
    except GainfulError:
        raise  # of the house the learner works in, and said in our words
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
