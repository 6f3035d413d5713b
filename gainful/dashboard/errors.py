"""What goes wrong, in groups, before and after; and whether what was mended stays mended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from gainful.core import message_text
from gainful.gate import proportion_interval
from gainful.loop.events import ErrorGroup
from gainful.report import words
from gainful.store import Banked, Probe

EXAMPLES = 3
EXAMPLE_CHARACTERS = 300
MOST_GROUPS = 12
LEVEL = 0.05


class Seen(msgspec.Struct, frozen=True):
    """One error as a person reads it, clipped; empty where nothing may be shown."""

    asked: str
    answered: str
    said: str = ""


class Group(msgspec.Struct, frozen=True):
    """Errors of one kind before and after; ``before`` and ``after`` count them.

    ``is_judged``: only checks that nobody trusts say so, which is a hint and no proof.
    """

    group: str
    before: int
    after: int
    examples_before: tuple[Seen, ...] = ()
    examples_after: tuple[Seen, ...] = ()
    is_judged: bool = False


class Groups(msgspec.Struct, frozen=True):
    """Groups on one set of cases, the most frequent first; ``n_before`` and ``n_after`` count its scored cases."""

    where: str
    n_before: int
    n_after: int
    groups: tuple[Group, ...]


class Share(msgspec.Struct, frozen=True):
    """A share of ``n`` with its exact interval at 95 %, for a number fixed beforehand; all ``None`` where n is 0."""

    n: int
    count: int
    low: float | None
    high: float | None


def in_traffic(cases: Sequence[Banked], champion: str | None, *, with_text: bool) -> Groups:
    """Return the errors among *cases* by the policy that answered each last: the champion's are ``after``."""
    scored = [case for case in cases if case.score is not None]
    ours = [case for case in scored if case.policy == champion]
    others = [case for case in scored if case.policy != champion]
    before, after = _by_group(others), _by_group(ours)
    groups = [
        Group(
            group=words.clip(kind.group, 80) or "no group",
            before=len(before.get(kind, ())),
            after=len(after.get(kind, ())),
            examples_before=_shown(before.get(kind, ())) if with_text else (),
            examples_after=_shown(after.get(kind, ())) if with_text else (),
            is_judged=kind.is_judged,
        )
        for kind in {**before, **after}
    ]
    return Groups("traffic", len(others), len(ours), _ranked(groups))


def in_proof(n: int, before: Sequence[ErrorGroup], after: Sequence[ErrorGroup], *, with_text: bool) -> Groups:
    """Return the errors of a confirmation on *n* held-out cases, which both policies answered."""
    old, new = {group.group: group for group in before}, {group.group: group for group in after}
    groups = [
        Group(
            group=words.clip(name, 80),
            before=old[name].count if name in old else 0,
            after=new[name].count if name in new else 0,
            examples_before=_examples(old.get(name)) if with_text else (),
            examples_after=_examples(new.get(name)) if with_text else (),
        )
        for name in {**old, **new}
    ]
    return Groups("held-out cases", n, n, _ranked(groups))


def probed(probes: Iterable[Probe]) -> Share:
    """Return the share of probes that were right twice and wrong the third time, under the same policy."""
    last = [probe.scores[2] for probe in probes if probe.scores[:2] == (1.0, 1.0) and len(probe.scores) == 3]
    known = [score for score in last if score is not None]
    return share(len(known), sum(score != 1.0 for score in known))


def share(n: int, count: int) -> Share:
    """Return *count* of *n* with its interval."""
    low, high = proportion_interval(count, n, LEVEL) if n else (None, None)
    return Share(n, count, low, high)


class _Kind(NamedTuple):
    group: str
    is_judged: bool


def _by_group(cases: Iterable[Banked]) -> dict[_Kind, list[Banked]]:
    found: dict[_Kind, list[Banked]] = {}
    for case in cases:
        if case.score is not None and case.score < 1.0:
            found.setdefault(_Kind(case.group, case.signal == "judged"), []).append(case)
    return found


def _ranked(groups: Iterable[Group]) -> tuple[Group, ...]:
    return tuple(sorted(groups, key=lambda group: (-(group.before + group.after), group.group))[:MOST_GROUPS])


def _shown(cases: Sequence[Banked]) -> tuple[Seen, ...]:
    """Return the newest examples; of what is quarantined, whose words may be an attack, only that it is."""
    return tuple(
        Seen(f"(kept back: {words.clip(case.quarantine, 100)})", "")
        if case.quarantine
        else Seen(_asked(case), words.clip(case.reply, EXAMPLE_CHARACTERS))
        for case in cases[:EXAMPLES]
    )


def _asked(case: Banked) -> str:
    turns = [message_text(message) for message in case.case.messages if message.get("role") == "user"]
    return words.clip(" ".join(turns), EXAMPLE_CHARACTERS)


def _examples(group: ErrorGroup | None) -> tuple[Seen, ...]:
    return tuple(
        Seen(*(words.clip(text, EXAMPLE_CHARACTERS) for text in (one.question, one.answer, one.feedback)))
        for one in (group.examples[:EXAMPLES] if group else ())
    )
