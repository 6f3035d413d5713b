"""What is in service and how it came about, in words: for the terminal, one statement a line, and for the page.

Guarantees: text that a model or a caller may have written is cleaned; a time is said in UTC; what is not known is said
to be unknown, and never as 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from rich.console import Console
from rich.text import Text

from gainful.core import JsonObject
from gainful.report import words
from gainful.store import Installed, LedgerEntry
from gainful.watch.forget import Forgetting
from gainful.watch.status import LastRun, Running, Status

ID_DIGITS = 12  # of a policy's id, as everywhere in the terminal
CAME = {
    "baseline": "the task's own policy",
    "confirmed": "confirmed by a run of its own",
    "promoted": "promoted through canary stages",
    "rolled-back": "back in service after a roll-back",
    "begun": "the champion of all callers when this one's own task began",
}


class Told(msgspec.Struct, frozen=True):
    """One line of the history: ``at`` in Unix seconds, what happened, why, and which guarantee it voids."""

    at: float | None
    kind: str
    policy: str
    what: str
    why: str = ""
    void: str = ""


def history(ledger: Sequence[LedgerEntry], champions: Sequence[Installed], times: Sequence[float]) -> list[Told]:
    """Return every line of a service ledger, and each champion that came in without one, the oldest first."""
    told = {entry.hash for entry in ledger}
    others = [
        Told(at, one.reason, one.policy, f"{_short(one.policy)} in service: {came(one.reason)}")
        for one, at in zip(champions, times, strict=True)
        if one.ledger not in told
    ]
    return sorted([*others, *map(_told, ledger)], key=lambda line: line.at or 0.0)


def _told(entry: LedgerEntry) -> Told:
    content, policy = entry.content, policy_of(entry)
    why = content.get("reason") or _evidence(content.get("evidence"))
    if entry.kind == "staged" and not why:
        why = f"confirmed in registration {content['registration'][:16]}"
    return Told(
        content.get("at"),
        entry.kind,
        policy,
        f"{_short(policy)} {said(entry)}".lstrip(),
        words.clip(why, 300),
        words.clean(content.get("void") or ""),
    )


def came(reason: str) -> str:
    """Say how a champion came into service."""
    return CAME.get(reason) or words.clean(reason)


def policy_of(entry: LedgerEntry) -> str:
    """Return the policy that a line of a service ledger is about, empty where it is about none."""
    content = entry.content
    stage: JsonObject = content.get("stage") or {}
    return stage.get("policy") or content.get("champion") or content.get("challenger") or ""


def said(entry: LedgerEntry) -> str:
    """Say what a line of a service ledger did, in words that follow the name of its policy where it has one."""
    content = entry.content
    match entry.kind:
        case "staged":
            stage = content["stage"]
            unheard = " unheard, beside the champion" if stage["mode"] == "shadow" else ""
            return f"answers {words.percent(stage['share'])} of requests{unheard}"
        case "promoted":
            by = ", by a person" if content.get("void") else ""
            return f"in service{by}{_kept(content)}"
        case "begun":
            return "in service: the champion of all callers when this one's own task began"
        case "rolled-back":
            return f"back in service, {_short(content['left'])} out"
        case "rejected":
            return "does not come in"
        case "alarm":
            return f"alarm: {words.clip(content['about'], 80)}"
        case "asked":
            return "a person asked for an improvement"
        case "forgotten":
            return "a caller was forgotten" if content.get("is_done", True) else "a caller is being forgotten"
        case "pinned":
            return "the champion is pinned"
        case "unpinned":
            return "the champion may be replaced again"
        case "paused":
            return "learning is paused"
        case "resumed":
            return "learning goes on"
    return entry.kind


def _kept(content: JsonObject) -> str:
    stage, former = content.get("holdback"), content.get("former")
    if not stage:
        return f", {_short(former)} out" if former else ""
    return f"; {_short(former or '')} keeps {words.percent(stage['share'])} of requests"


def _evidence(found: JsonObject | None) -> str:
    """Say what the comparisons that led to a move came to."""
    parts = []
    for name, seen in (found or {}).items():
        if isinstance(seen, dict) and seen.get("n") and seen.get("mean") is not None:
            parts.append(f"{words.clip(name, 40)} {words.gain(seen['mean'])} on {words.count(seen['n'], 'comparison')}")
    return ", ".join(parts)


def show_history(console: Console, lines: Sequence[Told]) -> None:
    """Print *lines*: time and what, and under it why and what it voids."""
    for line in lines:
        console.print(Text(f"{when(line.at)}  {line.what}"), soft_wrap=True)
        for label, said in (("why", line.why), ("voids", line.void)):
            if said:
                console.print(Text(f"{'':18}{label}: {said}"), soft_wrap=True)


def show_status(console: Console, status: Status) -> None:
    """Print *status*, a line for each thing."""
    for name, said in _lines(status):
        console.print(Text(f"{name:10} {said}"), soft_wrap=True)


def _lines(status: Status) -> list[tuple[str, str]]:
    lines = [("task", words.clean(status.task)), ("champion", _champion(status))]
    lines += [("voids", words.clean(status.void))] if status.void else []
    lines += [("canary", _stage(status.canary) if status.canary else "none: nobody is on the way in")]
    lines += [("hold-back", _stage(status.holdback) if status.holdback else "none")]
    switches = [word for word, is_on in (("paused", status.is_paused), ("pinned", status.is_pinned)) if is_on]
    lines += [("levers", " and ".join(switches) or "neither paused nor pinned")]
    alarm = status.alarm
    lines += [("last alarm", f"{words.clip(alarm.about, 80)}, {when(alarm.at)}" if alarm else "none")]
    lines += [("watcher", words.clean(status.watcher) if status.watcher else "none: nobody learns or takes back")]
    lines += [("last run", _run(status.run) if status.run else "none yet"), ("budget", _budget(status))]
    cases = status.cases
    bank = f"{cases.dev:,} to learn from, {cases.held_out:,} held out and unused, {cases.never:,} for nobody"
    requests = f"{status.taken_in:,} of this task taken in; {status.exchanges:,} stored so far, of all tasks"
    return [*lines, ("requests", requests), ("cases", bank)]


def _champion(status: Status) -> str:
    if status.champion is None:
        return "none yet: the task's own policy answers once it is served"
    by_hand = status.came == "promoted" and status.void
    how = "put into service by a person" if by_hand else came(status.came)
    weights = f"; {status.adapter}" if status.adapter else ""
    return f"{_short(status.champion)} since {when(status.since)}, {how}{weights}"


def _stage(stage: Running) -> str:
    unheard = " unheard" if stage.mode == "shadow" else ""
    step = "" if stage.mode == "holdback" else f", step {stage.step + 1}"
    share = f"answers {words.percent(stage.share)} of requests{unheard}"
    return f"{_short(stage.policy)} {share}{step}, since {when(stage.at)}"


def _run(run: LastRun) -> str:
    end = {None: "not finished", True: "found a policy that was proven better", False: "promoted nothing"}
    began = f", begun {when(run.at)}" if run.at else ""
    return f"{run.run[:16]}, {end[run.is_promoted]}{began}{': ' + words.clip(run.why, 80) if run.why else ''}"


def _budget(status: Status) -> str:
    found = status.budget
    if found is None:
        return "whole: no run has used it"
    left = f"{words.chance(found.left)} chance of a false promotion left of {words.chance(found.alpha)}"
    return f"{left}, the next confirmation may spend {words.chance(found.level)}; {found.confirmations:,} so far"


def forgotten(found: Forgetting) -> str:
    """Say what was removed.

    >>> forgotten(Forgetting(1, 2, 0, 0, ("ab" * 32,), (), ("mood",)))
    "Removed: 1 exchange, 2 cases. 1 policy lost its words. Taken out of service for 'mood'."
    """
    counts = {"exchange": found.exchanges, "case": found.cases, "repair": found.repairs, "probe": found.probes}
    parts = [words.count(number, noun) for noun, number in counts.items() if number]
    said = [f"Removed: {', '.join(parts)}." if parts else "Removed: nothing that can be counted."]
    if found.policies:
        lost = "1 policy lost its" if len(found.policies) == 1 else f"{len(found.policies)} policies lost their"
        said.append(f"{lost} words.")
    if found.receipts:
        said.append(f"{words.count(len(found.receipts), 'receipt')} quoted it, and can no longer be replayed.")
    if found.taken_back:
        said.append(f"Taken out of service for {', '.join(map(repr, found.taken_back))}.")
    if found.adapters:
        said.append(f"Deleted, for they were trained on it: {'; '.join(found.adapters)}.")
    if found.unknown:
        said.append(
            f"Still in service: {'; '.join(found.unknown)}; what they were trained on was not noted: if this caller's "
            "words were among it, roll back and train again."
        )
    return " ".join(said)


def when(at: float | None) -> str:
    """Say a time in UTC, to the minute.

    >>> when(1.79e9), when(None)
    ('2026-09-21 14:13', 'unknown')
    """
    return "unknown" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def _short(policy: str) -> str:
    return policy[:ID_DIGITS]
