"""What is in service and how it came about, in words: for the terminal, one statement a line, and for the page.

Guarantees: text that a model or a caller may have written is cleaned; a time is said in UTC; what is not known is said
to be unknown, and never as 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from rich.console import Console
from rich.text import Text

from gainful.core import JsonObject, Once, Policy, Usage
from gainful.report import words
from gainful.store import Installed, LedgerEntry
from gainful.watch.forget import Forgetting
from gainful.watch.policies import Known
from gainful.watch.promotions import Promotion
from gainful.watch.standings import Evidence, Held, Learns
from gainful.watch.status import CorrectionCost, LastRun, Running, Status

ID_DIGITS = 12  # of a policy's id, as everywhere in the terminal
CAME = {
    "baseline": "the task's own policy",
    "confirmed": "confirmed by a run of its own",
    "promoted": "promoted through canary stages",
    "rolled-back": "back in service after a roll-back",
    "begun": "the champion of all callers when this one's own task began",
}

RIGHTS = {"certified": "certified", "forced": "forced in", "own": "the task's", "": "unproven"}
SHAPES = {"free": "words", "schema": "a schema", "arguments": "a schema of arguments", "native": "native calls"}


class Told(msgspec.Struct, frozen=True):
    """One line of the history: ``at`` in Unix seconds, what happened, why, and which guarantee it voids."""

    at: float | None
    kind: str
    policy: str
    what: str
    why: str = ""
    void: str = ""
    took: Promotion | None = None


def history(
    ledger: Sequence[LedgerEntry],
    champions: Sequence[Installed],
    times: Sequence[float],
    promotions: Sequence[Promotion] = (),
) -> list[Told]:
    """Return every line of a service ledger, and each champion that came in without one, the oldest first.

    Those that *promotions* speak of say what they took.
    """
    told = {entry.hash for entry in ledger}
    took = {(one.policy, one.at): one for one in promotions}
    others = [
        Told(
            at,
            one.reason,
            one.policy,
            f"{_short(one.policy)} in service: {came(one.reason)}",
            took=took.get((one.policy, at)),
        )
        for one, at in zip(champions, times, strict=True)
        if one.ledger not in told
    ]
    return sorted([*others, *(_told(entry, took) for entry in ledger)], key=lambda line: line.at or 0.0)


def _told(entry: LedgerEntry, took: Mapping[tuple[str, float], Promotion]) -> Told:
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
        took.get((policy, content.get("at", 0.0))) if entry.kind == "promoted" else None,
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
        took = _took(line.took) if line.took and line.took.run else ""
        for label, said in (("why", line.why), ("voids", line.void), ("took", took)):
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
    lines += _evidence_lines(status.canary.evidence) if status.canary and status.canary.evidence else []
    lines += [("hold-back", _stage(status.holdback) if status.holdback else "none")]
    lines += [("", _held(status.held, is_compared=status.holdback is not None))] if status.held else []
    switches = [word for word, is_on in (("paused", status.is_paused), ("pinned", status.is_pinned)) if is_on]
    lines += [("levers", " and ".join(switches) or "neither paused nor pinned")]
    alarm = status.alarm
    lines += [("last alarm", f"{words.clip(alarm.about, 80)}, {when(alarm.at)}" if alarm else "none")]
    lines += [("watcher", words.clean(status.watcher) if status.watcher else "none: nobody learns or takes back")]
    lines += [("learning", _learning(status.learning) if status.learning else "no watcher has said what it waits for")]
    lines += [("last run", _run(status.run) if status.run else "none yet"), ("budget", _budget(status))]
    lines += [("promoted", f"{_short(one.policy)} {when(one.at)}: {_took(one)}") for one in status.promotions[-1:]]
    lines += [("correction", _correction(status.correction))] if status.correction else []
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


def _evidence_lines(found: Evidence) -> list[tuple[str, str]]:
    """Say how a challenger stands: what was seen, and what it takes to go on or to be taken back."""
    here = "" if found.seen is None else f"{words.count(found.seen, 'comparison')} in this stage"
    said = words.clip(found.why, 200) or here or "nothing has been compared yet"
    lines = [("", f"{said}, said {when(found.at)}" if found.at is not None else "evidence as this stage began:")]
    for bet in found.bets:
        n = "unknown" if bet.n is None else words.count(bet.n, "comparison")
        mean = "" if bet.mean is None else f", {words.points(bet.mean)}"
        needs = f"to go on {_of(bet.worth, bet.worth_needed)}, to be taken back {_of(bet.harm, bet.harm_needed)}"
        lines.append(("", f"{words.clip(bet.name, 40)}: {n}{mean}; {needs}"))
    return lines if found.bets or found.at is not None else [("", "nothing has been compared yet")]


def _held(found: Held, *, is_compared: bool) -> str:
    gain = "" if found.gain is None else f", {words.points(found.gain)} on the former champion"
    against = f"{words.count(found.compared, 'comparison')}{gain}, to be taken back "
    compared = f"{against}{_of(found.against_former, found.needed)}; " if is_compared else ""
    reference = "not known yet" if found.reference is None else f"{found.reference:.3f}"
    alone = f"{words.count(found.known, 'score')}, held against {reference}, alarm {_of(found.by_itself, found.needed)}"
    failing = f"failing more often {_of(found.failing, found.needed)}; " if found.beside else ""
    whose = "what it was before it left" if found.is_back else "what was before"
    before = (
        "" if found.before is None else f"; against {found.before:.3f}, {whose}, {_of(found.as_before, found.needed)}"
    )
    return f"{compared}{failing}{alone}{before}; said {when(found.at)}"


def _of(value: float | None, needed: float | None) -> str:
    """Say how far evidence is.

    >>> _of(7.54, 20.0), _of(0.0012, 10_000), _of(None, None)
    ('7.5 of 20', '0.0012 of 10,000', 'unknown')
    """
    if value is None:
        return "unknown"
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
    return shown if needed is None else f"{shown} of {needed:,.0f}"


def _learning(found: Learns) -> str:
    left = [f"{found.calls_left:,} calls"] if found.calls_left is not None else []
    left += [f"${found.usd_left:,.2f}"] if found.usd_left is not None else []
    budget = f"; left today: {', '.join(left)}" if left else ""
    return f"{words.clip(found.state, 40)}: {words.clip(found.why, 300).rstrip('.')}{budget}; said {when(found.at)}"


def _took(one: Promotion) -> str:
    """Say what a promotion took; what cannot be told is said to be unknown."""
    certified, service = _minutes(one.minutes_to_certified), _minutes(one.minutes)
    labels = "labels unknown" if one.labels is None else words.count(one.labels, "label")
    return f"first failure to certified {certified}, to service {service}; {labels}; {_spent(one.spent, one.runs)}"


def _spent(usage: Usage | None, runs: int | None) -> str:
    if usage is None:
        return "what was spent is unknown"
    money = "" if usage.cost_usd is None else f", ${usage.cost_usd:,.4f}"
    tokens = words.count(usage.prompt_tokens + usage.completion_tokens, "token")
    return f"{words.count(usage.calls, 'call')}, {tokens}{money} in {words.count(runs or 0, 'run')}"


def _minutes(minutes: float | None) -> str:
    return "unknown" if minutes is None else words.duration(60 * minutes)


def _correction(found: CorrectionCost) -> str:
    money = "" if found.usd is None else f", ${found.usd:,.4f}"
    return (
        f"{found.calls:,.0f} calls, {found.tokens:,.0f} tokens{money} per 1,000 requests, "
        f"of which {found.corrected:,.0f} were corrected"
    )


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


def show_policies(console: Console, found: Sequence[Known]) -> None:
    """Print *found*, a line for each: id, since when, its role, by what right it is there, and what it is."""
    for one in found:
        since = when(one.since) if one.since is not None else "never served"
        role = f"{one.role or '-':10}  {RIGHTS[one.right]:10}"
        what = "its words were forgotten" if one.content is None else in_a_line(one.content)
        console.print(Text(f"{_short(one.policy)}  {since:16}  {role}  {what}"), soft_wrap=True)


def show_policy(console: Console, policy: Policy, known: Known | None) -> None:
    """Print *policy* whole, and what its task knows of it."""
    lines = [("policy", policy.id), ("what", in_a_line(policy))]
    if known is None:
        lines.append(("role", "none: it never was in service here, nor staged or proven"))
    else:
        since = "never" if known.since is None else when(known.since)
        lines += [("role", known.role or "none"), ("proof", RIGHTS[known.right]), ("served", f"since {since}")]
    for name, said in lines:
        console.print(Text(f"{name:10} {said}"), soft_wrap=True)
    whole = {name: getattr(policy, name) for name in policy.__struct_fields__}
    console.print(Text(words.clean(msgspec.json.format(msgspec.json.encode(whole)).decode())), soft_wrap=True)


def in_a_line(policy: Policy) -> str:
    """Say what *policy* is.

    >>> in_a_line(Policy(instructions="Call the function.", max_tokens=9))
    '"Call the function." in words'
    """
    parts = [f'"{words.clip(policy.instructions, 60)}" in {SHAPES[policy.format.shape]}']
    parts += [words.count(len(policy.demos), "demo")] if policy.demos else []
    parts += [f"by {policy.strategy.__struct_config__.tag}"] if not isinstance(policy.strategy, Once) else []
    parts += [policy.adapter.label] if policy.adapter else []
    return ", ".join(parts)


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
