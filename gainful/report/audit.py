"""How detection and correction stand, as a table for people and as JSON for scripts."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gainful.answers.rule import Standing
from gainful.loop.calibrate import Audit, Calibration
from gainful.report import words

HEADINGS = ("method", "trials", "fixed", "broken", "right", "wrong", "net (least)", "calls", "tokens")
"""``right`` and ``wrong`` stayed so; narrow enough, with the state, for a terminal of 80 columns."""


def show_audit(console: Console, found: Audit) -> None:
    """Print the detector in a sentence, and a line for each method with the reason under it."""
    head = f"{words.clean(found.task)} with {words.clean(found.model)}, policy {found.policy[:12]}"
    console.print(Text(head), soft_wrap=True)
    console.print(Text(f"  {_detection(found)}"), soft_wrap=True)
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    table.add_column("state")
    for standing in found.standings:
        table.add_row(*_cells(standing), Text(_state(found, standing)))
    console.print(table)
    for standing in found.standings:
        console.print(Text(f"  {standing.method} is {_state(found, standing)}: {found.why(standing)}"), soft_wrap=True)


def show_calibration(console: Console, found: Calibration) -> None:
    """Print what a calibration found, and how everything stands after it."""
    drafts = f"{words.count(found.drafts, 'draft')} with a known truth, {found.wrong} wrong, {found.suspects} suspected"
    refused = f"; the model refused {found.refused}" if found.refused else ""
    console.print(Text(f"{drafts}{refused}; {words.spent(found.usage)}"), soft_wrap=True)
    if found.reason:
        console.print(Text(f"No detector was fitted: {found.reason}"), soft_wrap=True)
    show_audit(console, found.audit)


def audit_json(found: Audit) -> dict[str, Any]:
    """Return *found* for scripts: every field of every method, with its state and the reason."""
    return {
        "task": found.task,
        "model": found.model,
        "policy": found.policy,
        "detector": None if found.detector is None else msgspec.to_builtins(found.detector),
        "methods": [
            {name: getattr(standing, name) for name in standing.__struct_fields__}
            | {"is_open": found.is_open(standing), "why": found.why(standing)}
            for standing in found.standings
        ],
    }


def calibration_json(found: Calibration) -> dict[str, Any]:
    """Return *found* for scripts."""
    counts = {name: getattr(found, name) for name in ("drafts", "wrong", "suspects", "refused", "reason")}
    return {**counts, "usage": msgspec.to_builtins(found.usage), "audit": audit_json(found.audit)}


def _state(found: Audit, standing: Standing) -> str:
    return "open" if found.is_open(standing) else "closed"


def _detection(found: Audit) -> str:
    if found.detector is None:
        return "P(wrong) is unknown: no detector is fitted; run gainful calibrate"
    stale = "" if found.detector.policy == found.policy else " (fitted under another policy: calibrate again)"
    return found.detector.describe() + stale


def _cells(standing: Standing) -> list[str]:
    if standing.net is None or standing.low is None:
        return [standing.method, "0", *["–"] * (len(HEADINGS) - 2)]
    counts = (standing.n, standing.fixed, standing.broken, standing.kept_right, standing.kept_wrong)
    return [
        standing.method,
        *map(str, counts),
        f"{words.gain(standing.net)} ({words.gain(standing.low)})",
        f"{standing.extra_calls:.1f}",
        f"{standing.extra_tokens:,.0f}",
    ]
