"""Propose other ways to spend calls on an answer: vote, or check and ask again.

Both look clever and often lower the score of a small model, which the race has to find out case by case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from gainful.core import Evidence, Once, Policy, Proposal, Refine, Strategy, Vote


@dataclass(frozen=True)
class Strategies:
    """Vote over samples, refine with the checks' words, or go back to asking once."""

    name: str = "strategy"
    choices: tuple[Strategy, ...] = (Once(), Refine(rounds=1), Vote(samples=3))

    def propose(self, head: Policy, evidence: Evidence) -> Sequence[Proposal]:
        """Return one proposal for each strategy the head does not follow, cheapest first."""
        return [
            Proposal(policy=replace(head, strategy=choice), learner=self.name, change=_words(choice))
            for choice in self.choices
            if choice != head.strategy
        ]


def _words(strategy: Strategy) -> str:
    match strategy:
        case Once():
            return "ask once"
        case Vote(samples=samples, temperature=temperature):
            return f"vote over {samples} samples at temperature {temperature:g}"
        case Refine(rounds=rounds):
            return f"check, and ask again with the checks' words, {rounds} time{'s' if rounds > 1 else ''} at most"
