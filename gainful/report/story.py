"""A run's records, put where a reader looks for them: rounds, confirmations, the end.

Guarantees: takes any beginning of a run, so that an interrupted one can be reported too; changes no record.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gainful.core import Policy
from gainful.learners.teaching import Taught
from gainful.loop.events import (
    Baseline,
    Controls,
    Decided,
    Event,
    Finished,
    Head,
    Looked,
    Opened,
    Power,
    Proposed,
    Rung,
    Standing,
    Started,
    Unconfirmed,
    Untrained,
)
from gainful.report import words


@dataclass
class Round:
    """One round of the search: who entered, how the race went, who heads the lineage after it."""

    number: int
    proposed: dict[str, Proposed] = field(default_factory=dict)
    rungs: list[Rung] = field(default_factory=list)
    head: Head | None = None

    def last(self, label: str) -> tuple[Rung, Standing] | None:
        """Return the last step of the race that *label* took part in, and how it stood there."""
        for rung in reversed(self.rungs):
            for standing in rung.standings:
                if standing.label == label:
                    return rung, standing
        return None

    def fate(self, label: str) -> str:
        """Say what became of a candidate, in a few words."""
        if self.head is not None and self.head.label == label:
            return "became the best policy"
        last = self.last(label)
        if last is None:
            return "not raced"
        rung, standing = last
        if not standing.kept:
            return f"dropped after {words.count(rung.n, 'case')}"
        return "still racing" if self.head is None else "did not beat the best policy"


@dataclass
class Confirmation:
    """One confirmation: what was registered, each look, the decision."""

    opened: Opened
    looks: list[Looked] = field(default_factory=list)
    decided: Decided | None = None


@dataclass
class Story:
    """One run, as far as its records go."""

    started: Started | None = None
    power: Power | None = None
    baseline: Baseline | None = None
    trainings: list[Taught] = field(default_factory=list)
    untrained: Untrained | None = None
    rounds: list[Round] = field(default_factory=list)
    controls: list[Controls] = field(default_factory=list)
    confirmations: list[Confirmation] = field(default_factory=list)
    unconfirmed: Unconfirmed | None = None
    finished: Finished | None = None

    @property
    def decided(self) -> Decided | None:
        """The last decision."""
        return self.confirmations[-1].decided if self.confirmations else None

    @property
    def head(self) -> Head | None:
        """The last head of the lineage that the search came to."""
        return next((round.head for round in reversed(self.rounds) if round.head is not None), None)

    def policy(self, identity: str) -> Policy | None:
        """Return the policy of that digest, where a record holds it in full."""
        proposals = [proposed.proposal.policy for round in self.rounds for proposed in round.proposed.values()]
        known = proposals if self.started is None else [self.started.champion, *proposals]
        return next((policy for policy in known if policy.id == identity), None)

    def policies(self) -> tuple[Policy, Policy] | None:
        """Return the policies before and after: of the last confirmation, else of the search."""
        if self.started is None:
            return None
        before, after = self.started.champion.id, self.head.policy if self.head else self.started.champion.id
        if self.confirmations:
            before, after = self.confirmations[-1].opened.champion, self.confirmations[-1].opened.challenger
        old, new = self.policy(before), self.policy(after)
        return (old, new) if old is not None and new is not None else None


def tell(events: Iterable[Event]) -> Story:
    """Put *events*, in the order in which they were written, into a story."""
    story = Story()
    for event in events:
        match event:
            case Started():
                story.started = event
            case Power():
                story.power = event
            case Baseline():
                story.baseline = event
            case Proposed() | Rung() | Head():
                _search(story, event)
            case Taught():
                story.trainings.append(event)
            case Controls():
                story.controls.append(event)
            case Opened():
                story.confirmations.append(Confirmation(event))
            case Looked() | Decided():
                _confirm(story, event)
            case Untrained():
                story.untrained = event
            case Unconfirmed():
                story.unconfirmed = event
            case Finished():
                story.finished = event
    return story


def _search(story: Story, event: Proposed | Rung | Head) -> None:
    if not story.rounds or story.rounds[-1].number != event.round:
        story.rounds.append(Round(event.round))
    current = story.rounds[-1]
    match event:
        case Proposed():
            current.proposed[event.label] = event
        case Rung():
            current.rungs.append(event)
        case Head():
            current.head = event


def _confirm(story: Story, event: Looked | Decided) -> None:
    if not story.confirmations:  # records of a damaged run: there is nothing these could belong to
        return
    if isinstance(event, Looked):
        story.confirmations[-1].looks.append(event)
    else:
        story.confirmations[-1].decided = event
