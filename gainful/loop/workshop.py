"""The house in which a learner trains: it samples through the run's memo, judges by its checks, and vets what came.

Guarantees: every call is remembered, so that a killed run samples nothing twice; a training is named by its work, so
that it goes on from its checkpoint; nothing held out is in reach.  An adapter may race only where trainer and server
agree on nearly all greedy answers (what is trained is what is served), where it answers something otherwise than its
base, where what the base says to unrelated prompts has not become less likely by ``HARM``, and where of everyday facts
not ``LOST`` are known no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from statistics import fmean
from typing import TypeVar

from msgspec.structs import replace

from gainful.answers.extract import extract
from gainful.answers.prompt import request
from gainful.core import (
    Adapter,
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
from gainful.gate import lower_bound
from gainful.learners.teaching import Taught, Vetting
from gainful.loop.board import Board
from gainful.loop.everyday import facts, unrelated
from gainful.loop.run import Run
from gainful.loop.trainer import Trainer, base_name
from gainful.train import LEAST_AGREEMENT, Lesson, Parity, Progress, Reading, Sampling, Trained, Work, parity

SEEDS = 1_000_003  # between those of samples with other numbers
LEAST_UNBOUND = 0.1  # of cases that are to be answered rightly without the schema, or the server draws with it
PROMPTS = 200  # on which they are compared
HARM = 0.2  # nats a token on unrelated replies: a perplexity a fifth higher
MOST_CHANGE = 0.5  # nats a token that one unrelated reply counts for at most, either way
GUARD_TOKENS = 48  # of each unrelated reply
LOST = 0.1  # of everyday facts
FACT_TOKENS = 24  # of an answer that is to name one
LEVEL = 0.05  # of the bound on the change on unrelated replies

Asked = TypeVar("Asked")


class Workshop:
    """One run's house, where its trainer trains; it shares the run's call budget with the *board*.

    ``usage`` is what the server was asked for here.  What the trainer draws and reads itself is no call.
    """

    def __init__(self, run: Run, board: Board) -> None:
        self.usage = Usage()
        self._run = run
        self._board = board

    @property
    def _trainer(self) -> Trainer:
        if self._run.trainer is None:
            raise TrainError(f"nobody trains for task {self._run.task.name!r}; open the run with a trainer")
        return self._run.trainer

    @property
    def base(self) -> str:
        """What an adapter for the run's model calls its base."""
        return base_name(self._run.model)

    async def sample(self, asked: Sequence[tuple[Policy, Case]], samples: range, temperature: float) -> list[Rollout]:
        """Answer each case at random under its policy, judged by the checks that learning may use.

        The trainer draws, several times as fast as the server, and bound by no schema; where answers are no words and a
        schema is what makes them right, so that without it hardly a case was answered rightly, the server draws.
        """
        bodies = [request(policy, case, self._run.task.kind) for policy, case in asked]
        if not any("tools" in body for body in bodies):
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
        drawn = await self._trainer.sample(first.adapter, [body["messages"] for body in bodies], how)
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
            self._run.journal.progress("answers to practice cases", len(rollouts), len(cases))
        return rollouts

    async def train(self, work: Work, student: Policy) -> Trained:
        """Train; raises ``TrainError``."""
        task = self._run.task
        cases = {case.id: case for case in (*task.dev, *task.practice)}

        def reward(case: str, replies: Sequence[str]) -> list[float]:
            return [self._worth(cases[case], student, reply) for reply in replies]

        def watch(progress: Progress) -> None:
            self._run.journal.progress("training", progress.step, progress.steps)

        return await self._trainer.fine_tune(work, watch, reward)

    async def vet(self, policy: Policy, cases: Sequence[Case]) -> Vetting:
        """Compare trainer and server on the first *cases*, tuned and base, and guard unrelated prompts."""
        bodies = self._bodies(policy, cases[:PROMPTS])
        served = await self._served(bodies)
        plain = await self._served(self._bodies(replace(policy, adapter=None), cases[:PROMPTS]))
        prompts, replies = [body["messages"] for body in bodies], [one.greedy for one in served]
        found = parity(await self._trainer.read(policy.adapter, prompts, replies, policy.max_tokens), served)
        changed = fmean(one.greedy != other.greedy for one, other in zip(served, plain, strict=True))
        changes = await self._unrelated(policy.adapter)
        clipped = [max(-1.0, min(1.0, change / MOST_CHANGE)) for change in changes]
        low = MOST_CHANGE * lower_bound(clipped, LEVEL, len(clipped))
        known, lost = await self._facts(policy.adapter)
        facts_low = lower_bound(lost, LEVEL, len(lost))
        return Vetting(
            parity=found,
            changed=changed,
            guard=fmean(changes),
            guard_low=low,
            facts=known,
            facts_change=fmean(lost),
            facts_low=facts_low,
            refused=_refusal(found, changed, low, facts_low),
        )

    def tell(self, taught: Taught) -> None:
        """Write down what came of a training."""
        self._run.journal.write(taught)

    def _affordable(self, asked: Sequence[Asked], calls: int) -> Sequence[Asked]:
        """Return as many of what is *asked*, at *calls* each, as half of the run's budget has left."""
        budget = self._run.settings.budget_calls
        if budget is None:
            return asked
        return asked[: max(0, budget // 2 - self._board.usage.calls - self.usage.calls) // calls]

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
        """Return a reply's lowest score by the checks that learning may use; what nobody can tell is worth nothing."""
        return lowest(judge(self._run.task.checks, case, self._read(case, student, reply))) or 0.0

    def _bodies(self, policy: Policy, cases: Sequence[Case]) -> list[JsonObject]:
        """Return the requests for *cases*, free of any schema: the trainer knows of none."""
        bodies = [request(policy, case, self._run.task.kind) for case in cases]
        return [{k: v for k, v in body.items() if k != "response_format"} for body in bodies]

    async def _served(self, bodies: Sequence[JsonObject]) -> list[Reading]:
        """Ask the server; a request that it refuses has an empty reply."""
        model = self._run.model

        async def ask(body: JsonObject) -> Reading:
            try:
                reply = await model.complete({**body, "logprobs": True})
            except RequestRefused:
                return Reading("")
            self.usage += reply.usage
            tokens = (reply.body["choices"][0].get("logprobs") or {}).get("content") or ()
            return Reading(
                message_text(reply.message).strip(), tuple(token["logprob"] for token in tokens if token["token"])
            )

        return [one async for one in in_order(map(ask, bodies), WINDOW * model.concurrency)]

    async def rehearsal(self) -> list[Lesson]:
        """Return what the base itself says to everyday prompts, none of which the guard asks.

        Learned along, it keeps a training from changing more than it should.
        """
        prompts, replies = await self._everyday(unrelated()[::2])
        return [
            Lesson(tuple(prompt), reply, f"everyday {number}")
            for number, (prompt, reply) in enumerate(zip(prompts, replies, strict=True))
            if reply
        ]

    async def _everyday(self, asked: Sequence[str]) -> tuple[list[list[JsonObject]], list[str]]:
        """Return prompts of these words, and the base's replies."""
        prompts: list[list[JsonObject]] = [[{"role": "user", "content": words}] for words in asked]
        bodies: list[JsonObject] = [{"messages": p, "max_tokens": GUARD_TOKENS, "temperature": 0} for p in prompts]
        return prompts, [one.greedy for one in await self._served(bodies)]

    async def _facts(self, adapter: Adapter | None) -> tuple[float, list[float]]:
        """Return what share of everyday facts the base knows, and for each whether it was won (1) or lost (-1)."""
        asked = facts()
        replies = []
        for policy in (Policy(max_tokens=FACT_TOKENS), Policy(max_tokens=FACT_TOKENS, adapter=adapter)):
            cases = [Case(messages=({"role": "user", "content": fact.question},)) for fact in asked]
            replies.append([one.greedy for one in await self._served(self._bodies(policy, cases))])
        before, after = ([fact.is_in(reply) for fact, reply in zip(asked, some, strict=True)] for some in replies)
        return fmean(before), [float(now) - float(once) for once, now in zip(before, after, strict=True)]

    async def _unrelated(self, adapter: Adapter | None) -> list[float]:
        """Return how much likelier a token the base's own replies to unrelated prompts have become, in nats."""
        prompts, replies = await self._everyday(unrelated()[1::2])
        tuned = await self._trainer.read(adapter, prompts, replies, 0)
        base = await self._trainer.read(None, prompts, replies, 0)
        return [
            fmean(after.logprobs) - fmean(before.logprobs)
            for after, before in zip(tuned, base, strict=True)
            if after.logprobs
        ]


def _refusal(found: Parity, changed: float, low: float, facts_low: float) -> str:
    """Say why an adapter may not race; nothing where it may."""
    if not found.holds:
        return (
            f"server and trainer agree on {100 * found.agreement:.0f} % of prompts where {100 * LEAST_AGREEMENT:.0f} "
            "are needed: what was trained is not what is served"
        )
    if changed == 0.0:
        return "it answers every prompt as its base does: nothing was learned, or the server did not apply it"
    if low < -HARM:
        return (
            f"replies to unrelated prompts may have become less likely by {-low:.2f} nats a token where {HARM} are "
            "allowed; train with a smaller learning rate, or fewer epochs"
        )
    if facts_low < -LOST:
        return (
            f"{100 * -facts_low:.0f} of 100 everyday facts may be known no more where {100 * LOST:.0f} are allowed; "
            "train with a smaller learning rate, or fewer epochs"
        )
    return ""
