"""The house in which a learner trains: it samples, judges by the run's checks, trains, and vets what came of it.

Guarantees: what was asked of the server or drawn by the trainer once is remembered, so that a killed run samples
nothing twice; a training is named by its work, so that it goes on from its checkpoint; nothing held out is in reach;
the calls stay within the search's half of the run's budget.  Where the trainer fails, that is written down and it
trains no more in this run, though what it had trained before may be vetted: who resumes the run gets the same end.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TypeVar

from gainful.answers.extract import extract
from gainful.answers.prompt import request
from gainful.core import (
    Answer,
    Attempt,
    Case,
    Choice,
    JsonObject,
    Number,
    Policy,
    RequestRefused,
    Rollout,
    Text,
    TrainError,
    Usage,
    judge,
    lowest,
    message_text,
)
from gainful.engine.local import WINDOW, in_order
from gainful.learners.teaching import Taught, Vetting
from gainful.loop.board import Board
from gainful.loop.events import Untrained
from gainful.loop.everyday import rehearsed
from gainful.loop.run import Run
from gainful.loop.trainer import Trainer, base_name
from gainful.loop.vetting import MOST_CALLS, Inspector, everyday
from gainful.train import Hear, Lesson, Progress, Reading, Sampling, Trained, Work

log = logging.getLogger("gainful.loop")

SEEDS = 1_000_003  # between those of samples with other numbers
LEAST_UNBOUND = 0.1  # of cases that are to be answered rightly without the schema, or the server draws with it

REHEARSED_TOKENS = 24  # of a reply at most

Asked = TypeVar("Asked")


class Workshop:
    """One run's house, where its trainer trains; it shares the run's call budget with the *board*.

    ``usage`` is what the server was asked for here.  What the trainer draws and reads itself is no call.
    """

    def __init__(self, run: Run, board: Board) -> None:
        self.usage = Usage()
        self._run = run
        self._board = board
        self._ended = ""  # why nothing is trained any more
        self._lent = 0  # how often the trainer was asked for something
        self._rehearsed: list[Lesson] | None = None

    @contextmanager
    def _training(self) -> Iterator[Trainer]:
        """Lend the trainer to whoever samples or trains, as long as nothing has failed."""
        if self._ended:
            raise TrainError(self._ended)
        with self._trainer() as trainer:
            yield trainer

    @contextmanager
    def _trainer(self) -> Iterator[Trainer]:
        """Lend the trainer; where it fails, or failed here when the run was tried before, training ends."""
        ahead = self._run.journal.ahead()
        if isinstance(ahead, Untrained) and self._lent >= ahead.after:
            self.usage = ahead.usage
            raise self._end(ahead)
        before, self._lent = self._lent, self._lent + 1
        try:
            if self._run.trainer is None:
                raise TrainError(f"nobody trains for task {self._run.task.name!r}; open the run with a trainer")
            yield self._run.trainer
        except TrainError as error:
            raise self._end(Untrained(reason=str(error), usage=self.usage, after=before)) from error

    def _end(self, untrained: Untrained) -> TrainError:
        self._ended = untrained.reason
        self._run.journal.write(untrained)
        log.warning("no weights are learned any more in this run: %s", untrained.reason)
        return TrainError(untrained.reason)

    @property
    def base(self) -> str:
        """What an adapter for the run's model calls its base."""
        return base_name(self._run.model)

    async def sample(self, asked: Sequence[tuple[Policy, Case]], samples: range, temperature: float) -> list[Rollout]:
        """Answer each case at random under its policy, judged by the checks that learning may use.

        The trainer draws unless the teaching names the server: on a CPU several times as fast as that, and bound by no
        schema.  Where there are tools, or answers are no words and a schema is what makes them right, so that without
        it hardly a case was answered rightly, the server draws.
        """
        with self._training():
            self._check_budget()
        bodies = [request(policy, case, self._run.task.kind) for policy, case in asked]
        teaching = self._run.settings.teaching
        is_servers = teaching is not None and teaching.draws == "server"
        if not is_servers and not any("tools" in body for body in bodies):
            rollouts = await self._drawn(asked, bodies, samples, temperature)
            is_bound = any("response_format" in body for body in bodies)
            is_in_words = isinstance(self._run.task.kind, Text | Number | Choice)  # and is learned in words
            solved = sum(bool(one.verified) for one in rollouts)
            if not is_bound or is_in_words or solved >= LEAST_UNBOUND * len(rollouts):
                return rollouts
        return await self._served_rollouts(self._affordable(asked, len(samples)), samples, temperature)

    async def _drawn(
        self, asked: Sequence[tuple[Policy, Case]], bodies: Sequence[JsonObject], samples: range, temperature: float
    ) -> list[Rollout]:
        """Let the trainer draw; policies that differ in their prompts alone are one piece of work."""
        first, _ = asked[0]
        seed = self._run.settings.seed + SEEDS * samples.start
        how = Sampling(len(samples), temperature, first.max_tokens, seed)
        prompts, hear = [body["messages"] for body in bodies], self._hear("practice cases answered by the trainer")
        with self._training() as trainer:
            drawn = await trainer.sample(first.adapter, prompts, how, hear)
        return [self._judged(case, policy, replies) for (policy, case), replies in zip(asked, drawn, strict=True)]

    async def _served_rollouts(
        self, asked: Sequence[tuple[Policy, Case]], samples: range, temperature: float
    ) -> list[Rollout]:
        rollouts: list[Rollout] = []
        for policy, some in groupby(asked, key=lambda one: one[0]):
            cases = [case for _, case in some]
            async for rollout in self._run.engine.rollouts(policy, cases, self._run.task.checks, samples, temperature):
                rollouts.append(rollout)
                self.usage += sum((attempt.usage for attempt in rollout.attempts), Usage())
                self._run.journal.progress("answers to practice cases", len(rollouts), len(asked))
        return rollouts

    async def answer(self, policy: Policy, cases: Sequence[Case]) -> list[Rollout]:
        """Answer *cases* once each as *policy* does in service, judged likewise."""
        rollouts: list[Rollout] = []
        cases = self._affordable(cases, policy.most_calls)
        async for attempt in self._run.attempts(policy, cases, self._run.task.checks):
            rollouts.append(Rollout(case=cases[len(rollouts)], attempts=(attempt,)))
            self.usage += attempt.usage
            self._run.journal.progress("answers as in service", len(rollouts), len(cases))
        return rollouts

    async def train(self, work: Work, student: Policy) -> Trained:
        """Train; raises ``TrainError``."""
        task = self._run.task
        cases = {case.id: case for case in (*task.dev, *task.practice)}

        def reward(case: str, replies: Sequence[str]) -> list[float]:
            return [self._worth(cases[case], student, reply) for reply in replies]

        with self._training() as trainer:
            return await trainer.fine_tune(work, self._hear("training"), reward)

    async def vet(self, policy: Policy, cases: Sequence[Case]) -> Vetting:
        """Say whether the weights of *policy* may race, by its answers to practice *cases* and to everyday prompts."""
        with self._trainer() as trainer:
            self._check_budget()  # enough for one was put aside
            return await Inspector(self._run, trainer, self._served).vet(policy, cases)

    def tell(self, taught: Taught) -> None:
        """Write down what came of a training."""
        self._run.journal.write(taught)

    def _hear(self, step: str) -> Hear:
        def hear(progress: Progress) -> None:
            self._run.journal.progress(step, progress.step, progress.steps)

        return hear

    def _left(self) -> int | None:
        """Return how many calls half of the run's budget has left beside what vetting takes; ``None``: no budget."""
        budget = self._run.settings.budget_calls
        spent = self._board.usage.calls + self.usage.calls
        return None if budget is None else budget // 2 - spent - MOST_CALLS

    def _check_budget(self) -> None:
        """Raise ``TrainError`` where what may be learned could not be vetted any more, before anything is spent."""
        left, budget = self._left(), self._run.settings.budget_calls
        if budget is not None and left is not None and left < 0:
            raise TrainError(
                f"half of the budget of {budget} calls is for searching, and has {-left} too few left to vet what "
                f"would be learned; give a budget of {budget - 2 * left} calls or more"
            )

    def _affordable(self, asked: Sequence[Asked], calls: int) -> Sequence[Asked]:
        """Return as many of what is *asked*, at *calls* each, as the budget has left."""
        left = self._left()
        return asked if left is None else asked[: max(0, left) // calls]

    def _judged(self, case: Case, policy: Policy, replies: Sequence[str]) -> Rollout:
        """Return the replies to *case* as attempts; what they took is not known."""
        attempts = []
        for reply in replies:
            answer = self._read(case, policy, reply)
            verdicts = judge(self._run.task.checks, case, answer)
            attempts.append(Attempt(case.id, policy.id, answer, verdicts, lowest(verdicts)))
        return Rollout(case=case, attempts=tuple(attempts))

    def _read(self, case: Case, policy: Policy, reply: str) -> Answer:
        message = {"role": "assistant", "content": reply}
        return Answer(text=reply, value=extract(self._run.task.kind, message, case, policy.format))

    def _worth(self, case: Case, student: Policy, reply: str) -> float:
        """Return a reply's lowest score by the checks that learning may use; 0 where no trusted one can tell."""
        verdicts = judge(self._run.task.checks, case, self._read(case, student, reply))
        is_known = any(verdict.trusted and verdict.score is not None for verdict in verdicts)
        return (lowest(verdicts) or 0.0) if is_known else 0.0

    async def _served(self, bodies: Sequence[JsonObject], step: str) -> list[Reading]:
        """Ask the server; a request that it refuses has an empty reply.  *step* says what for, beside the progress."""
        model = self._run.model
        done: list[Reading] = []

        async def ask(body: JsonObject) -> Reading:
            try:
                reply = await model.complete({**body, "logprobs": True})
            except RequestRefused:
                return Reading("")
            self.usage += reply.usage
            said = (reply.body["choices"][0].get("logprobs") or {}).get("content") or ()
            tokens = [(token["token"], token["logprob"]) for token in said if token["token"]]
            cut, logprobs = zip(*tokens, strict=True) if tokens else ((), ())
            return Reading(message_text(reply.message).strip(), logprobs, cut=cut)

        async for one in in_order(map(ask, bodies), WINDOW * model.concurrency):
            done.append(one)
            self._run.journal.progress(step, len(done), len(bodies))
        return done

    async def rehearsal(self) -> list[Lesson]:
        """Return what the base itself says to everyday prompts, none of which a vetting asks.

        Learned along, it keeps a training from changing more than it should.
        """
        if self._rehearsed is None:
            prompts, hear = [body["messages"] for body in everyday(rehearsed())], self._hear("everyday prompts")
            with self._training() as trainer:
                replies = await trainer.sample(None, prompts, Sampling(1, 0.0, REHEARSED_TOKENS), hear)
            self._rehearsed = rehearsal(prompts, [reply for (reply,) in replies])
        return self._rehearsed


def rehearsal(prompts: Sequence[Sequence[JsonObject]], replies: Sequence[str]) -> list[Lesson]:
    """Return lessons of how the base's own *replies* begin; where they end is not learned, for they were cut off."""
    return [
        Lesson(tuple(prompt), reply.strip(), f"everyday {number}", is_cut=True)
        for number, (prompt, reply) in enumerate(zip(prompts, replies, strict=True))
        if reply.strip()
    ]
