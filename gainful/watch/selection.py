"""Which of the cases that traffic brought a run learns from: errors first, and nobody's too many.

Guarantees: nothing that is quarantined, held out or used up; at most a share of what is asked for has one key's hand in
it, where there are several, and is of one template, so that sending more of the same gains nothing; equal cases,
settings and seeds give equal choices, in whatever order the cases come.  Who was last asked by does not matter, and so
nobody is kept out by being asked again.  Leaves to others: what is quarantined (``screen``).
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest

from gainful.store.bank import Banked
from gainful.tasks.improving import Improving

MOST_OF_A_TEMPLATE = 0.05  # share of the cases asked for; real traffic repeats itself, and so does an attacker
ERRORS = 0.5  # share that is taken from errors; the rest shows what must stay right

_ADDRESS = re.compile(r"\b(?:https?://|www\.)\S{1,300}|\S{1,64}@\S{1,255}")
_QUOTED = re.compile(r"\"[^\"\n]{1,300}\"|“[^”\n]{1,300}”|«[^»\n]{1,300}»|(?<!\w)'[^'\n]{1,300}'(?!\w)|`[^`\n]{1,300}`")
_ID = re.compile(r"\b(?=\w{0,40}\d)[\w.,:/+-]{0,60}\w")
_NAME = re.compile(r"(?<![.!?:\n] )(?<!^)(?<!\n)\b[A-Z]\w*(?:[ ,'’-]{1,2}[A-Z]\w*)*", re.MULTILINE)


def select(banked: Sequence[Banked], improving: Improving, most: int, seed: int) -> tuple[Banked, ...]:
    """Return up to *most* of the dev cases in *banked*, in an order drawn by *seed*, since races look at the first.

    Half are errors, taken in turn from each group, the newest first, whoever says that they are: to choose proves
    nothing.  Half are drawn uniformly from all others.  Where one half has too few, the other fills up.  Where several
    keys have a hand in cases (``Banked.hands``; none is a key of its own), one may have it in ``most_of_a_key`` of
    *most*; a template, text with numbers, names and quotations masked, may make up 5 %; its equal part where there are
    too few keys or templates for that, and at least one case.  The shares are of *most*, not of what is found: a second
    key that asks one question must not keep all others from being learned from.

    With ``apart``, words are used only where a template came from two keys or more: what one caller alone says is not
    for all.
    """
    if most < 1:
        return ()
    fit = [one for one in banked if one.side == "dev" and not one.quarantine and not one.opened]
    fit.sort(key=lambda one: one.id)
    templates = {one.id: template(one.case.text) for one in fit}
    if improving.apart:
        fit = _shared(fit, templates)
    keys = len({hand for one in fit for hand in one.hands})
    share = max(improving.most_of_a_key, 1 / keys) if keys > 1 else 1.0
    of_a_template = max(MOST_OF_A_TEMPLATE, 1 / max(1, len({templates[one.id] for one in fit})))
    caps = _Caps(templates, max(1, int(share * most)), max(1, int(of_a_template * most)))
    draw = random.Random(seed)
    errors = list(_in_turn(fit))
    others = draw.sample(fit, len(fit))
    chosen = list(caps.admit(errors, most - int((1 - ERRORS) * most)))
    ids = {one.id for one in chosen}
    faults = {one.id for one in errors}
    chosen += caps.admit((one for one in others if one.id not in faults), most - len(chosen))
    chosen += caps.admit((one for one in others if one.id in faults - ids), most - len(chosen))
    return tuple(draw.sample(chosen, len(chosen)))


def template(text: str) -> str:
    """Return the words of *text*, folded, with numbers, ids, addresses, quotations and names masked.

    >>> template("Pay Anna Berg 12.50 for 'rent'") == template("Pay Otto 9  for 'the car'")
    True
    """
    masked = _QUOTED.sub("<quote>", _ADDRESS.sub("<address>", unicodedata.normalize("NFKC", text)))
    masked = _ID.sub("<id>", _NAME.sub("<name>", masked))
    return " ".join(masked.casefold().split())


@dataclass
class _Caps:
    """How many of a key and of a template may still come in."""

    templates: dict[str, str]
    of_a_key: int
    of_a_template: int
    keys: Counter[str] = field(default_factory=Counter)
    shapes: Counter[str] = field(default_factory=Counter)

    def admit(self, candidates: Iterable[Banked], most: int) -> Iterator[Banked]:
        """Yield up to *most* of *candidates* that the caps allow, in their order."""
        admitted = 0
        for one in candidates:
            shape = self.templates[one.id]
            if admitted == most:
                return
            if all(self.keys[hand] < self.of_a_key for hand in one.hands) and self.shapes[shape] < self.of_a_template:
                self.keys.update(one.hands)
                self.shapes[shape] += 1
                admitted += 1
                yield one


def _shared(fit: Sequence[Banked], templates: dict[str, str]) -> list[Banked]:
    """Return the cases whose template came from several keys."""
    callers: dict[str, set[str]] = defaultdict(set)
    for one in fit:
        callers[templates[one.id]].add(one.key)
    return [one for one in fit if len(callers[templates[one.id]]) > 1]


def _in_turn(fit: Iterable[Banked]) -> Iterator[Banked]:
    """Yield the errors, one of each group in turn, the newest of each first."""
    groups: dict[str, list[Banked]] = defaultdict(list)
    for one in fit:
        if one.group or (one.score is not None and one.score < 1.0):
            groups[one.group].append(one)
    ranked = [sorted(groups[name], key=lambda one: (-one.last_at, one.id)) for name in sorted(groups)]
    return (one for one in chain.from_iterable(zip_longest(*ranked)) if one is not None)
