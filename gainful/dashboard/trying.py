"""What is being tried now: the newest run's race and confirmation, the challenger on its way in, and why nothing is.

Guarantees: a time at which a watcher told something is given to the minute, since it tells the same every few seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gainful.dashboard.moves import difference
from gainful.dashboard.quality import HOUR_S, Rate, rate
from gainful.report import words
from gainful.report.html import DiffLine
from gainful.report.story import Confirmation, Round, Story
from gainful.store import Run, Store, Tally
from gainful.watch.service import Stage, replay, service_key
from gainful.watch.standings import Evidence, Held, Learns, evidence_against, evidence_on, learns

CHANGE_CHARACTERS = 200


class Racer(msgspec.Struct, frozen=True):
    """A candidate of the race: its gain over the best so far after ``n`` cases, step by step, and its fate."""

    label: str
    learner: str
    change: str
    n: tuple[int, ...]
    gain: tuple[float, ...]
    fate: str


class Race(msgspec.Struct, frozen=True):
    """The newest round of a search."""

    round: int
    racers: tuple[Racer, ...]
    gain_over_champion: float | None


class Looks(msgspec.Struct, frozen=True):
    """A confirmation, look by look: columns of equal length, and the decision once there is one.

    ``boundary`` is the statistic that promotes, ``None`` where none does at that look.
    """

    challenger: str
    test: str
    level: float
    size: int
    planned: tuple[int, ...]
    n: tuple[int, ...]
    statistic: tuple[float, ...]
    boundary: tuple[float | None, ...]
    chance: tuple[float, ...]
    promoted: bool | None
    reason: str
    low: float | None
    mean: float | None


class Trying(msgspec.Struct, frozen=True):
    """The newest run of a task; ``state`` says in a word or two how far it is, ``why`` what it was begun for, and when.

    Runs that a person began say neither: empty, and ``None``.
    """

    run: str
    at: float | None
    why: str
    model: str
    state: str
    certifiable: str
    obstacle: str
    dev: int
    holdout: int
    race: Race | None
    looks: Looks | None


class Staged(msgspec.Struct, frozen=True):
    """Two policies between which requests are seated at random: a challenger's stage, or the hold-back.

    ``evidence`` is that on a challenger, ``None`` in a hold-back; ``ours`` and ``theirs`` are what the policy and the
    champion have scored since the stage began, to the hour.  ``diff`` is what a challenger would change, ``None`` where
    words are gone.
    """

    mode: str
    policy: str
    champion: str
    share: float
    step: int
    at: float
    evidence: Evidence | None
    ours: Rate
    theirs: Rate
    diff: tuple[DiffLine, ...] | None


def trying(run: Run, story: Story) -> Trying | None:
    """Return how far *run* has come by its records; ``None`` where nothing is written yet."""
    if story.started is None:
        return None
    shown = story.confirmations[-1] if story.confirmations else None
    reason = story.started.obstacle or (story.unconfirmed.reason if story.unconfirmed else "")
    round = story.rounds[-1] if story.rounds else None
    begun = run.spec.get("watch") or {}
    return Trying(
        run=story.started.run,
        at=begun.get("at"),
        why=words.clip(begun.get("why", ""), 200),
        model=words.clip(story.started.model, 100),
        state=_state(round, shown, finished=run.finished),
        certifiable=words.certifiable(story.power) if story.power else "",
        obstacle=words.clip(words.sentence(reason), 300),
        dev=story.started.dev,
        holdout=story.started.holdout,
        race=_race(round) if round and round.rungs else None,
        looks=_looks(shown) if shown else None,
    )


def _state(round: Round | None, shown: Confirmation | None, *, finished: bool) -> str:
    if shown is not None and shown.decided is not None:
        return "confirmed" if shown.decided.promoted else "not confirmed"
    if finished:
        return "ended without a confirmation"
    if shown is not None:
        return "confirming"
    return "baseline" if round is None else f"searching, round {round.number}"


def _race(round: Round) -> Race:
    racers = []
    for label, proposed in round.proposed.items():
        raced = [(rung.n, s.gain) for rung in round.rungs for s in rung.standings if s.label == label]
        racers.append(
            Racer(
                label=label,
                learner=words.clip(proposed.proposal.learner, 40),
                change=words.clip(proposed.proposal.change, CHANGE_CHARACTERS),
                n=tuple(n for n, _ in raced),
                gain=tuple(gain for _, gain in raced),
                fate=round.fate(label),
            )
        )
    return Race(round.number, tuple(racers), round.head.gain_over_champion if round.head else None)


def _looks(shown: Confirmation) -> Looks:
    opened, decided = shown.opened, shown.decided
    return Looks(
        challenger=opened.challenger,
        test=opened.test,
        level=opened.level,
        size=opened.size,
        planned=opened.looks,
        n=tuple(look.n for look in shown.looks),
        statistic=tuple(look.statistic for look in shown.looks),
        boundary=tuple(look.boundary for look in shown.looks),
        chance=tuple(look.conditional_power for look in shown.looks),
        promoted=decided.promoted if decided else None,
        reason=words.clip(decided.reason, 300) if decided else "",
        low=decided.difference.low if decided else None,
        mean=decided.difference.mean if decided else None,
    )


# --- in service -----------------------------------------------------------------------------------------


def staged(store: Store, task: str, tallies: Sequence[Tally], *, with_text: bool = True) -> list[Staged]:
    """Return the canary and the hold-back under way."""
    ledger = store.ledger(service_key(task))
    service = replay(ledger)
    found = []
    for stage in (service.canary, service.holdback):
        if stage is not None:
            is_new = stage.mode != "holdback"
            found.append(
                _staged(
                    stage,
                    tallies,
                    _clipped(evidence_on(store, task, stage, ledger)) if is_new else None,
                    difference(store.policy, stage.champion, stage.policy, with_text=with_text) if is_new else (),
                )
            )
    return found


def _clipped(found: Evidence) -> Evidence:
    bets = tuple(msgspec.structs.replace(bet, name=words.clip(bet.name, 80)) for bet in found.bets)
    at = None if found.at is None else to_the_minute(found.at)
    return msgspec.structs.replace(found, bets=bets, at=at, why=words.clip(found.why, 300))


def _staged(
    stage: Stage, tallies: Sequence[Tally], evidence: Evidence | None, diff: tuple[DiffLine, ...] | None
) -> Staged:
    since = [tally for tally in tallies if tally.hour >= int(stage.at) // HOUR_S]
    arms = {"shadow": ("shadow",), "canary": ("challenger",), "holdback": ("former",)}[stage.mode]
    return Staged(
        mode=stage.mode,
        policy=stage.policy,
        champion=stage.champion,
        share=stage.share,
        step=stage.step,
        at=stage.at,
        evidence=evidence,
        ours=rate([tally for tally in since if tally.policy == stage.policy and tally.arm in arms]),
        theirs=rate([tally for tally in since if tally.policy == stage.champion and tally.arm == "champion"]),
        diff=diff,
    )


def held(store: Store, task: str, champion: str | None, stage: Stage | None) -> Held | None:
    """Return the evidence against the champion."""
    found = evidence_against(store, task, champion, stage)
    return found and msgspec.structs.replace(found, at=to_the_minute(found.at))


def learning(store: Store, task: str) -> Learns | None:
    """Return what learning is at."""
    found = learns(store, task)
    return found and msgspec.structs.replace(found, at=to_the_minute(found.at), why=words.clip(found.why, 300))


def to_the_minute(at: float) -> float:
    """Return when the minute of *at* began: what is told anew every few seconds is no news each time."""
    return at // 60 * 60
