"""What happened to a task: every move of its service in words, and the policies that came into service.

Guarantees: an unknown time is ``None``; where a move has no time of its own it gets the first hour in which the policy
that it put into service answered, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from gainful.core import Policy, StoreError
from gainful.dashboard.quality import HOUR_S
from gainful.report import service, words
from gainful.report.html import DiffLine, diff
from gainful.store import Installed, LedgerEntry, Tally
from gainful.watch.service import service_key

MOST_MOVES = 100
MOST_POLICIES = 20
LINE_CHARACTERS = 2000  # of one line of a diff: instructions may be long, and a page is no place to read a book


class Move(msgspec.Struct, frozen=True):
    """One line of a service ledger, or a champion that came in without one.

    ``at`` is Unix time in seconds, to the hour where ``to_the_hour``.  ``void`` says which guarantee it voids.
    """

    kind: str
    at: float | None
    policy: str
    text: str
    void: str = ""
    to_the_hour: bool = False


class InService(msgspec.Struct, frozen=True):
    """A policy that came into service, newest last: its change against the one before, and its receipt.

    ``diff`` is empty for the first policy, and ``None`` where words are gone.
    """

    policy: str
    reason: str
    at: float | None
    to_the_hour: bool
    diff: tuple[DiffLine, ...] | None
    receipt: str | None


def moves(
    task: str, ledger: Sequence[LedgerEntry], history: Sequence[Installed], tallies: Sequence[Tally]
) -> list[Move]:
    """Return the last moves of *task*, the oldest first."""
    told = {entry.hash for entry in ledger}
    first_hours = _first_hours(tallies)
    alone = [
        Move(one.reason, first_hours.get(one.policy), one.policy, service.came(one.reason), "", True)
        for one in history
        if one.ledger not in told
    ]
    lines = [_move(entry) for entry in ledger if entry.key == service_key(task)]
    return sorted([*alone, *lines], key=lambda move: move.at or 0.0)[-MOST_MOVES:]


def _move(entry: LedgerEntry) -> Move:
    content = entry.content
    at = (content.get("stage") or content).get("at")
    why = f": {content['reason']}" if content.get("reason") else ""
    text = words.clip(service.said(entry) + why, 300)
    return Move(entry.kind, at, service.policy_of(entry), text, content.get("void") or "")


# --- policies -------------------------------------------------------------------------------------------


def policies(
    history: Sequence[Installed],
    ledger: Sequence[LedgerEntry],
    tallies: Sequence[Tally],
    found: Callable[[str], Policy],
    receipts: dict[str, str],
    *,
    with_text: bool,
) -> list[InService]:
    """Return the last policies that came into service; *receipts* are by policy, *found* gives a policy's content."""
    lines = {entry.hash: entry for entry in ledger}
    first_hours = _first_hours(tallies)
    shown = []
    for k, one in list(enumerate(history))[-MOST_POLICIES:]:
        line = lines.get(one.ledger or "")
        content = line.content if line else {}
        before = history[k - 1].policy if k else None
        shown.append(
            InService(
                policy=one.policy,
                reason=one.reason,
                at=content.get("at", first_hours.get(one.policy)),
                to_the_hour="at" not in content,
                diff=() if before is None else difference(found, before, one.policy, with_text=with_text),
                receipt=receipts.get(one.policy),
            )
        )
    return shown


def difference(
    found: Callable[[str], Policy], before: str, after: str, *, with_text: bool
) -> tuple[DiffLine, ...] | None:
    """Return the difference of two policies; of demos, which traffic brought, only how many there are without text."""
    try:
        old, new = found(before), found(after)
    except StoreError:  # its words were forgotten
        return None
    lines = diff(old, new) if with_text else diff(_bare(old), _bare(new))
    if not with_text and len(old.demos) != len(new.demos):
        lines.append(DiffLine("add", f"+ {len(new.demos)} demos in place of {len(old.demos)}, not shown"))
    return tuple(DiffLine(line.kind, words.clean(line.text[:LINE_CHARACTERS])) for line in lines)


def _bare(policy: Policy) -> Policy:
    return msgspec.structs.replace(policy, demos=())


def _first_hours(tallies: Sequence[Tally]) -> dict[str, float]:
    """Return when each policy first answered as champion, to the hour, in Unix seconds."""
    found: dict[str, float] = {}
    for tally in tallies:
        if tally.arm == "champion":
            found.setdefault(tally.policy, float(tally.hour * HOUR_S))
    return found
