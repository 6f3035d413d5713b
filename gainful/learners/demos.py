"""Propose worked examples: the model's own answers that passed every check.

No answer key is read: what makes an answer a demo is that the checks which learning may use all passed it.  One
demo can lift a tiny model and the next can sink it, and their order matters, so several small sets are raced.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from gainful.core import Attempt, Case, Choice, Demo, Evidence, Policy, Proposal, canonical

MOST_CHARACTERS = 1_500  # of one demo; longer ones cost more prompt than they teach


@dataclass(frozen=True)
class Demos:
    """Sets of verified answers, ``sizes`` demos each, drawn by the evidence's seed.

    With ``turns`` the first and the last set are proposed as turns of the conversation too.
    """

    name: str = "demos"
    sizes: tuple[int, ...] = (1, 1, 2, 3)
    turns: bool = True

    def propose(self, head: Policy, evidence: Evidence) -> Sequence[Proposal]:
        """Return one proposal a size, of answers that differ where they can; none where too few are verified."""
        verified = [pair for pair in evidence.verified() if _length(pair) <= MOST_CHARACTERS]
        draw = random.Random(f"{evidence.seed} {head.id}")
        draw.shuffle(verified)
        proposals: dict[str, Proposal] = {}
        for number, size in enumerate(self.sizes):
            chosen = _spread(verified, size, balanced=isinstance(evidence.kind, Choice))
            if len(chosen) < size:
                continue
            verified = [pair for pair in verified if pair not in chosen] + chosen  # the next set starts elsewhere
            demos = tuple(Demo(case=replace(case, target=None), value=attempt.answer.value) for case, attempt in chosen)
            names = ", ".join(case.name or case.id[:8] for case, _ in chosen)
            change = f"show {size} own verified answer{'s' if size > 1 else ''} ({names})"
            form = replace(head.format, turns=head.format.turns and self.turns)
            policies = {change: replace(head, demos=demos, format=form)}
            if self.turns and number in (0, len(self.sizes) - 1):
                policies[f"{change} as turns"] = replace(head, demos=demos, format=replace(head.format, turns=True))
            for change, policy in policies.items():
                if policy.id != head.id:
                    proposals[policy.id] = Proposal(policy=policy, learner=self.name, change=change)
        if head.demos:
            proposals["none"] = Proposal(policy=replace(head, demos=()), learner=self.name, change="show no examples")
        return list(proposals.values())


def _spread(verified: Sequence[tuple[Case, Attempt]], size: int, *, balanced: bool) -> list[tuple[Case, Attempt]]:
    """Take *size* pairs, those first that differ in tools from all before them, or in label where labels matter."""
    seen: set[bytes] = set()
    fresh: list[tuple[Case, Attempt]] = []
    repeated: list[tuple[Case, Attempt]] = []
    for case, attempt in verified:
        mark = canonical(attempt.answer.value if balanced else [t.get("function", {}).get("name") for t in case.tools])
        (repeated if mark in seen else fresh).append((case, attempt))
        seen.add(mark)
    return (fresh + repeated)[:size]


def _length(pair: tuple[Case, Attempt]) -> int:
    case, attempt = pair
    return len(canonical([case.messages, case.tools, attempt.answer.value]))
