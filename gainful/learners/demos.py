"""Propose worked examples: the model's own answers that passed every check, repairs of earlier errors among them.

No answer key is read: what makes an answer a demo is that the checks which learning may use all passed it.  One
demo can lift a tiny model and the next can sink it, and their order matters, so several small sets are raced.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from gainful.core import Choice, Demo, Evidence, Policy, Proposal, canonical

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
        answered = [Demo(replace(case, target=None), attempt.answer.value) for case, attempt in evidence.verified()]
        known = {demo.case.id for demo in answered}
        repaired = [demo for demo in evidence.repairs if demo.case.id not in known]
        verified = [demo for demo in (*answered, *repaired) if _length(demo) <= MOST_CHARACTERS]
        draw = random.Random(f"{evidence.seed} {head.id}")
        draw.shuffle(verified)
        proposals: dict[str, Proposal] = {}
        for number, size in enumerate(self.sizes):
            chosen = _spread(verified, size, balanced=isinstance(evidence.kind, Choice))
            if len(chosen) < size:
                continue
            verified = [demo for demo in verified if demo not in chosen] + chosen  # the next set starts elsewhere
            demos = tuple(chosen)
            names = ", ".join(demo.case.name or demo.case.id[:8] for demo in demos)
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


def _spread(verified: Sequence[Demo], size: int, *, balanced: bool) -> list[Demo]:
    """Take *size* demos, those first that differ in tools from all before them, or in label where labels matter."""
    seen: set[bytes] = set()
    fresh: list[Demo] = []
    repeated: list[Demo] = []
    for demo in verified:
        mark = canonical(demo.value if balanced else [t.get("function", {}).get("name") for t in demo.case.tools])
        (repeated if mark in seen else fresh).append(demo)
        seen.add(mark)
    return (fresh + repeated)[:size]


def _length(demo: Demo) -> int:
    return len(canonical([demo.case.messages, demo.case.tools, demo.value]))
