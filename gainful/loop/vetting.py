"""Whether an adapter may race: is it served as it was trained, does it change anything, and does it harm elsewhere?

Guarantees: nothing held out is in reach.  An adapter may race only where trainer and server agree on nearly all greedy
answers and on how likely they are (what is trained is what is served), where what is served is nearer to the adapter
than to its base and some answers are others than the base's, where what the base says to unrelated prompts has not
become less likely by ``HARM``, and where of everyday facts not ``LOST`` are known no more.

The trainer knows of no schema.  A policy that is bound by one is compared twice: without it, word by word, and as it is
served, by how likely the replies are.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain, zip_longest
from statistics import NormalDist, fmean, pstdev

from msgspec.structs import replace

from gainful.answers.prompt import request
from gainful.core import Adapter, Case, JsonObject, Policy, Text
from gainful.gate import lower_bound
from gainful.learners.kinds import kinds
from gainful.learners.teaching import Vetting
from gainful.loop.everyday import facts, unrelated
from gainful.loop.run import Run
from gainful.loop.trainer import Trainer
from gainful.train import FEWEST_PROMPTS, Hear, Parity, Progress, Reading, parity
from gainful.train.parity import LEAST_AGREEMENT, MOST_DIFFERENCE

HARM = 0.2  # nats a token on unrelated replies: a perplexity a fifth higher
MOST_CHANGE = 0.5  # nats a token that one unrelated reply counts for at most, either way
GUARD_TOKENS = 48  # of each unrelated reply
LOST = 0.1  # of everyday facts
FACT_TOKENS = 24  # of an answer that is to name one
LEVEL = 0.05  # of the bounds on what changes elsewhere

MOST_CALLS = 3 * FEWEST_PROMPTS + len(unrelated()) + 2 * len(facts())
"""What a vetting asks the server at most: tuned and base, under a schema and without, and what nobody's task asks."""

Serve = Callable[[Sequence[JsonObject], str], Awaitable[list[Reading]]]
"""Asks the server, and says as progress of what."""


class Inspector:
    """Vets the adapters of *run*, by what *trainer* makes of what *serve* says."""

    def __init__(self, run: Run, trainer: Trainer, serve: Serve) -> None:
        self._run = run
        self._trainer = trainer
        self._serve = serve

    async def vet(self, policy: Policy, practice: Sequence[Case]) -> Vetting:
        """Compare trainer and server, tuned and base, and guard what nobody's task asks.

        Where there are fewer than ``FEWEST_PROMPTS`` cases of *practice*, cases that are raced are taken as well.
        """
        known = {case.id for case in practice}
        rest = [case for case in self._run.task.shown if case.id not in known]
        cases = evenly(practice, FEWEST_PROMPTS)
        cases += evenly(rest, FEWEST_PROMPTS - len(cases))
        bodies = [request(policy, case, self._run.task.kind) for case in cases]
        free = [without_schema(body) for body in bodies]
        plain = await self._serve(
            [request(replace(policy, adapter=None), case, self._run.task.kind) for case in cases],
            "answers of the base",
        )
        served = await self._serve(free, "answers with the new weights")
        found = parity(await self._read(policy.adapter, free, served, policy.max_tokens), served)
        bound = None
        if free != bodies:
            served = await self._serve(bodies, "answers under the schema")
            bound = parity(await self._read(policy.adapter, bodies, served), served)
        base = parity(await self._read(None, bodies, served), served)
        changed = fmean(one.greedy != other.greedy for one, other in zip(served, plain, strict=True))
        changes = await self._unrelated(policy.adapter)
        clipped = [max(-1.0, min(1.0, change / MOST_CHANGE)) for change in changes]
        known_facts, lost = await self._facts(policy.adapter)
        vetting = Vetting(
            parity=found,
            bound=bound,
            changed=changed,
            base_difference=base.mean_difference,
            guard=fmean(changes),
            guard_low=MOST_CHANGE * lower_bound(clipped, LEVEL, len(clipped)),
            facts=known_facts,
            facts_change=fmean(lost),
            facts_low=lowest_change(lost),
        )
        return replace(vetting, refused=refusal(vetting))

    async def _read(
        self, adapter: Adapter | None, bodies: Sequence[JsonObject], served: Sequence[Reading], max_tokens: int = 0
    ) -> Sequence[Reading]:
        prompts, hear = [body["messages"] for body in bodies], self._hear("replies read by the trainer")
        return await self._trainer.read(adapter, prompts, served, max_tokens, hear)

    def _hear(self, step: str) -> Hear:
        def hear(progress: Progress) -> None:
            self._run.journal.progress(step, progress.step, progress.steps)

        return hear

    async def _facts(self, adapter: Adapter | None) -> tuple[float, list[float]]:
        """Return what share of everyday facts the base knows, and for each whether it was won (1) or lost (-1).

        They are asked bare: below words that ask for a function call a student that has learned to call calls one.
        """
        asked = facts()
        replies = []
        for policy in (Policy(max_tokens=FACT_TOKENS), Policy(max_tokens=FACT_TOKENS, adapter=adapter)):
            cases = [Case(messages=({"role": "user", "content": fact.question},)) for fact in asked]
            bodies = [request(policy, case, Text()) for case in cases]
            replies.append([one.greedy for one in await self._serve(bodies, "everyday facts")])
        before, after = ([fact.is_in(reply) for fact, reply in zip(asked, some, strict=True)] for some in replies)
        return fmean(before), [float(now) - float(once) for once, now in zip(before, after, strict=True)]

    async def _unrelated(self, adapter: Adapter | None) -> list[float]:
        """Return how much likelier a token the base's own replies to unrelated prompts have become, in nats.

        What is no number counts as all that one reply may count for.
        """
        bodies = everyday(unrelated())
        served = await self._serve(bodies, "everyday prompts")
        tuned, base = (await self._read(adapter, bodies, served), await self._read(None, bodies, served))
        changes = [
            fmean(after.logprobs) - fmean(before.logprobs)
            for after, before in zip(tuned, base, strict=True)
            if after.logprobs
        ]
        return [change if math.isfinite(change) else -MOST_CHANGE for change in changes]


def evenly(cases: Sequence[Case], most: int) -> list[Case]:
    """Return *most* of *cases*, all where there are fewer: of each kind of question as many, as far as it has them."""
    kind_of = kinds(cases)
    of_kind: dict[int, list[Case]] = {}
    for case in cases:
        of_kind.setdefault(kind_of[case.id], []).append(case)
    turns = zip_longest(*(of_kind[kind] for kind in sorted(of_kind)))
    return [case for case in chain.from_iterable(turns) if case is not None][:most]


def lowest_change(changes: Sequence[float]) -> float:
    """Return a lower bound on the mean of *changes*, each -1, 0 or 1, at ``LEVEL``.

    A normal approximation with a correction for continuity, which does not depend on their order: this is a guard, and
    no claim rests on it.

    >>> round(lowest_change([-1.0] * 9 + [1.0] * 7 + [0.0] * 84), 3), lowest_change([0.0] * 100)
    (-0.096, -0.01)
    """
    return (
        fmean(changes)
        - NormalDist().inv_cdf(1.0 - LEVEL) * pstdev(changes) / math.sqrt(len(changes))
        - 1 / len(changes)
    )


def without_schema(body: JsonObject) -> JsonObject:
    """Return *body* free of any schema."""
    return {name: value for name, value in body.items() if name != "response_format"}


def everyday(asked: Sequence[str]) -> list[JsonObject]:
    """Return requests of these words, which no task brings."""
    return [
        {"messages": [{"role": "user", "content": words}], "max_tokens": GUARD_TOKENS, "temperature": 0}
        for words in asked
    ]


def refusal(vetting: Vetting) -> str:
    """Say why an adapter may not race; nothing where it may."""
    return _not_as_trained(vetting.parity, vetting.bound) or _without_effect(vetting) or _harmful(vetting)


def _not_as_trained(found: Parity, bound: Parity | None) -> str:
    if not found.agrees:
        return (
            f"server and trainer agree on {100 * found.agreement:.0f} % of prompts where {100 * LEAST_AGREEMENT:.0f} "
            "are needed: what was trained is not what is served"
        )
    if not found.is_comparable:
        return (
            f"{found.compared} of {found.prompts} replies came with a log-probability for each of the tokens that the "
            "trainer reads: nobody knows whether what was trained is what is served; serve it with an engine that "
            "gives `logprobs`"
        )
    for one, words in ((found, ""), (bound, "under the schema, ")):  # what an engine keeps back there the report says
        if one is not None and one.is_comparable and not one.is_near:
            return (
                f"{words}server and trainer are {one.mean_difference:.2f} nats a token apart where {MOST_DIFFERENCE} "
                "are allowed: what was trained is not what is served"
            )
    return ""


def _without_effect(vetting: Vetting) -> str:
    apart = (vetting.bound or vetting.parity).mean_difference
    if vetting.changed == 0.0:
        return "it answers every prompt as its base does: nothing was learned, or the server did not apply it"
    if apart is not None and vetting.base_difference is not None and vetting.base_difference <= apart:
        return (
            f"what is served is as near to its base ({vetting.base_difference:.3f} nats a token apart) as to what was "
            f"trained ({apart:.3f}): nothing was learned, or the server did not apply it"
        )
    return ""


def _harmful(vetting: Vetting) -> str:
    if vetting.guard_low < -HARM:
        return (
            f"replies to unrelated prompts may have become less likely by {-vetting.guard_low:.2f} nats a token where "
            f"{HARM} are allowed; train with a smaller learning rate, or fewer epochs"
        )
    if vetting.facts_low < -LOST:
        return (
            f"{100 * -vetting.facts_low:.0f} of 100 everyday facts may be known no more where {100 * LOST:.0f} are "
            "allowed; train with a smaller learning rate, or fewer epochs"
        )
    return ""
