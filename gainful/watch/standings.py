"""What a watcher said last of a task: the evidence on what is being compared, and whether it tries anything now.

Guarantees: what was said of another stage or champion is not taken for this one's; nothing is written; what is unknown
is ``None``.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gainful.core import JsonObject
from gainful.store import LedgerEntry, Store
from gainful.watch.holdback import RUN_LENGTH
from gainful.watch.service import Stage


class Bet(msgspec.Struct, frozen=True):
    """One line of a stage's evidence: what is compared, on how many pairs, their mean difference, and the two bets.

    ``harm_needed`` takes the challenger back, ``worth_needed`` lets it go on, where a watcher says how much it takes.
    """

    name: str
    n: int | None
    mean: float | None
    harm: float | None
    worth: float | None
    harm_needed: float | None = None
    worth_needed: float | None = None


class Evidence(msgspec.Struct, frozen=True):
    """The evidence on a challenger, quality first: as of ``at``, or what its stage began with where that is ``None``.

    It counts over all stages of the challenger; ``seen`` counts the comparisons of the present one.
    """

    bets: tuple[Bet, ...]
    at: float | None = None
    seen: int | None = None
    verdict: str = ""
    why: str = ""


class Held(msgspec.Struct, frozen=True):
    """The evidence against a champion as of ``at``; ``needed`` of either takes it back or raises an alarm.

    ``gain`` is its mean score less the former champion's on ``compared`` pairs in the hold-back, ``against_former`` the
    evidence that it is the worse one.  ``known`` of its scores were read; from ``reference`` on, the bound that quality
    is held against, ``by_itself`` is the evidence that quality has fallen; ``as_before`` is that against ``before``, a
    bound below what the former champion's was before it left, or its own where it came back (``is_back``).  ``failing``
    is the evidence that its requests fail more often, on ``beside`` pairs.
    """

    at: float
    compared: int
    gain: float | None
    against_former: float | None
    known: int
    reference: float | None
    by_itself: float | None
    before: float | None = None
    as_before: float | None = None
    is_back: bool = False
    beside: int = 0
    failing: float | None = None
    needed: float = RUN_LENGTH


class Learns(msgspec.Struct, frozen=True):
    """What learning is at, as of ``at``, and why nothing is tried; what is left to spend today, where it is limited."""

    at: float
    state: str
    why: str
    calls_left: int | None
    usd_left: float | None


def evidence_on(store: Store, task: str, stage: Stage, ledger: Sequence[LedgerEntry]) -> Evidence:
    """Return the evidence on the challenger of *stage*: the latest, else what the stage began with."""
    latest = store.standing(task, "canary")
    if latest is not None and latest.content.get("stage") == stage.id:
        said = latest.content
        return Evidence(
            _bets(said.get("evidence") or {}),
            latest.at,
            said.get("seen"),
            str(said.get("verdict") or ""),
            str(said.get("why") or ""),
        )
    line = next((entry for entry in ledger if entry.hash.startswith(stage.id)), None)
    return Evidence(_bets(line.content.get("evidence") or {}) if line else ())


def evidence_against(store: Store, task: str, champion: str | None, stage: Stage | None) -> Held | None:
    """Return the evidence against *champion*, with the hold-back *stage* where there is one; ``None`` where unknown."""
    latest = store.standing(task, "hold-back")
    if latest is None:
        return None
    said = latest.content
    if (said.get("champion"), said.get("stage")) != (champion, stage.id if stage else ""):
        return None
    errors = said.get("errors") or {}
    return Held(
        at=latest.at,
        compared=said.get("compared") or 0,
        gain=said.get("gain"),
        against_former=said.get("against former"),
        known=said.get("known") or 0,
        reference=said.get("reference"),
        by_itself=said.get("by itself"),
        before=said.get("before"),
        as_before=said.get("as before"),
        is_back=champion is not None and said.get("before of") == champion,
        beside=errors.get("compared") or 0,
        failing=errors.get("against former"),
    )


def learns(store: Store, task: str) -> Learns | None:
    """Return what a watcher last said of learning; ``None`` where none has."""
    latest = store.standing(task, "learning")
    if latest is None:
        return None
    said = latest.content
    return Learns(
        latest.at,
        str(said.get("state") or ""),
        str(said.get("why") or ""),
        said.get("calls_left"),
        said.get("usd_left"),
    )


def _bets(evidence: JsonObject) -> tuple[Bet, ...]:
    """Return the lines of *evidence*; whatever else a watcher wrote there is left out."""
    told = sorted(
        (item for item in evidence.items() if isinstance(item[1], dict)), key=lambda item: item[0] != "quality"
    )
    return tuple(Bet(name, *(bet.get(field) for field in _BET)) for name, bet in told)


_BET = Bet.__struct_fields__[1:]
