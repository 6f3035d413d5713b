"""The run as one page to keep: what changed, the proof, what failed on the way, how to check it.

Guarantees: one file that fetches nothing and runs no script (its content security policy forbids both), so that an
answer a model wrote can do no harm even if it were not escaped; everything from outside is escaped all the same.
Every plot stands beside a table of its numbers.  The same records give the same bytes.

Leaves to others: where the page is written, and whether the receipt holds.
"""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gainful.core import Demo, JsonObject, Policy, Value, message_text
from gainful.loop.events import Contribution, ErrorGroup, Event, Standing
from gainful.report import plots, training, words
from gainful.report.story import Round, Story, tell


class ReceiptSummary(Value, frozen=True):
    """What the page says of a receipt: where it lies, what it does not claim, who signed it, whether it was checked.

    ``holds`` is what ``verify`` found, ``None`` where it has not been run.
    """

    path: str
    not_claimed: tuple[str, ...]
    key: str | None = None
    holds: bool | None = None


@dataclass(frozen=True)
class DiffLine:
    """One line of a unified diff; ``kind`` is ``add``, ``remove`` or ``same``."""

    kind: str
    text: str


@dataclass(frozen=True)
class Candidate:
    """One candidate with its fate."""

    round: int
    label: str
    learner: str
    change: str
    standing: Standing | None
    fate: str


@dataclass(frozen=True)
class Worth:
    """A contribution and its bar: where it begins and how long it is, in per cent of the widest span."""

    row: Contribution
    start: float
    length: float


@dataclass(frozen=True)
class Errors:
    """Groups of errors before and after, on one set of cases."""

    where: str
    n_before: int
    n_after: int
    before: tuple[ErrorGroup, ...]
    after: tuple[ErrorGroup, ...]

    @property
    def bars(self) -> tuple[plots.Bar, ...]:
        """One pair of bars a group."""
        return plots.bars(self.before, self.n_before, self.after, self.n_after)


def render(events: Sequence[Event], title: str, receipt: ReceiptSummary | None) -> str:
    """Return the HTML page of a run, or of as much of one as *events* tell."""
    story = tell(events)
    policies = story.policies()
    contributions = story.finished.contributions if story.finished else ()
    return (
        _environment()
        .get_template("report.html")
        .render(
            title=title,
            story=story,
            receipt=receipt,
            receipt_path=_receipt_path(story, receipt),
            candidates=list(_candidates(story.rounds)),
            trainings=[
                *(
                    (training.heading(taught), training.sentences(taught), plots.training(taught))
                    for taught in story.trainings
                ),
                *(("No more training", training.ending(event), None) for event in [story.untrained] if event),
            ],
            controls=[(one, training.comparison(one, story.trainings), training.flags(one)) for one in story.controls],
            races=[(round, plots.race(round)) for round in story.rounds],
            proofs=[(shown, plots.confirmation(shown)) for shown in story.confirmations],
            errors=list(_errors(story)),
            worths=list(_worths(contributions)),
            by_key=any(row.true_gain is not None for row in contributions),
            policies=policies,
            diff=diff(*policies) if policies else [],
        )
    )


def diff(before: Policy, after: Policy) -> list[DiffLine]:
    """Return the unified diff of two policies as indented JSON, each demo folded to what it asks and answers."""
    kinds = {"+": "add", "-": "remove", " ": "same"}
    old, new = _lines(before), _lines(after)
    _, _, _, *lines = [*difflib.unified_diff(old, new, lineterm="", n=len(old))] or [""] * 3  # names, names, one hunk
    return [DiffLine(kinds[line[0]], line) for line in lines]


def _lines(policy: Policy) -> list[str]:
    """Every field, defaults too: a reader does not know them."""
    shown: JsonObject = {
        **msgspec.structs.asdict(policy),
        "demos": [_folded(demo) for demo in policy.demos],
        "format": msgspec.structs.asdict(policy.format),
        "adapter": policy.adapter.label if policy.adapter else None,
        "strategy": {"type": policy.strategy.__struct_config__.tag, **msgspec.structs.asdict(policy.strategy)},
    }
    return _pretty(shown).splitlines()


def _folded(demo: Demo) -> JsonObject:
    """What a demo asks and answers; tools and the rest of the case stand below the diff."""
    asked = " ".join(message_text(message) for message in demo.case.messages)
    return {"asked": words.clip(asked, 90), "answered": demo.value}


def _pretty(value: Any) -> str:
    """Members in order of name, as the store keeps them."""
    return json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False, sort_keys=True)


def _candidates(rounds: Sequence[Round]) -> Iterator[Candidate]:
    for round in rounds:
        for label, proposed in round.proposed.items():
            last = round.last(label)
            yield Candidate(
                round=round.number,
                label=label,
                learner=proposed.proposal.learner,
                change=proposed.proposal.change,
                standing=last[1] if last else None,
                fate=round.fate(label),
            )


def _errors(story: Story) -> Iterator[Errors]:
    decided, baseline, head = story.decided, story.baseline, story.head
    if decided is not None:
        yield Errors("held-out cases", decided.n, decided.n, decided.before_groups, decided.after_groups)
    if baseline is not None:
        n_after, after = (head.score.n, head.groups) if head else (0, ())
        yield Errors("dev cases", baseline.score.n, n_after, baseline.groups, after)


def _worths(rows: Sequence[Contribution]) -> Iterator[Worth]:
    low = min([0.0, *(row.gain for row in rows)])
    span = max([0.0, *(row.gain for row in rows)]) - low or 1.0
    for row in rows:
        yield Worth(row, 100 * (min(row.gain, 0.0) - low) / span, 100 * abs(row.gain) / span)


def _receipt_path(story: Story, receipt: ReceiptSummary | None) -> str | None:
    if receipt is not None:
        return receipt.path
    return story.finished.receipt if story.finished else None


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("gainful.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        gain=words.gain,
        points=words.points,
        percent=lambda share: _whole(words.percent(share)),
        chance=lambda share: _whole(words.chance(share)),
        confidence=lambda share: _whole(words.confidence(share)),
        interval=lambda scored: _whole(words.interval(scored)),
        bounds=words.bounds,
        duration=words.duration,
        count=words.count,
        copies=words.copies,
        certifiable=words.certifiable,
        spent=words.spent,
        unlearned=words.unlearned,
        broken=words.broken,
        margin=words.margin,
        sentence=words.sentence,
        pretty=_pretty,
        quoted=shlex.quote,
    )
    return environment


def _whole(number: str) -> str:
    """Keep a number and its sign on one line."""
    return number.replace(" ", "\u00a0")


def _finalize(value: Any) -> Any:
    """Clean every text that the template prints; jinja2 escapes it afterwards."""
    return words.clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value
