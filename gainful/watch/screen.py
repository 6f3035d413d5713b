"""Why nothing may learn from a case: a screen for what hostile callers plant in traffic.

It lowers the rate at which such cases get through, and proves nothing: a wrong fact in plain words passes, and whoever
knows these tables can write around them.  What protects is elsewhere: what is learned is shown as data
(``answers/prompt.py``), no key and no template may bring much of it (``selection``), answers count only where trusted
checks pass them, and nothing goes into service that the gate and the canary have not let in.

Guarantees: the same case gets the same answer; the work is bounded, whatever the text, and linear in its length.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any

from gainful.core import AnswerKind, Case, Text, message_text
from gainful.watch.disguises import disguise, folded, readings
from gainful.watch.signs import PATTERNS_FOR_ALL, PATTERNS_FOR_USERS

MOST_CHARACTERS = 20_000  # of a case and its answer; no demo of a tenth of it is ever shown
GAP = "\n" * 5  # between texts that are never shown as one
KNOWN_TEXTS = 512  # tools and system turns that come with every request are read once
OPERATORS = ("system", "developer")  # roles in which orders are usual
LEAST_SECRET = 20  # letters and digits in a row from which a token may be a key; the parts of a UUID have 12 at most
SECRET_TURNS = 4  # changes between letters and digits in it; identifiers and account numbers have fewer

_SECRET = re.compile(rf"[A-Za-z0-9]{{{LEAST_SECRET},}}")
_TURN = re.compile(r"(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])")
_KNOWN_SECRETS = re.compile(
    r"\b(?:sk|pk|rk)[-_](?:live|test|proj|ant|or)?[-_]?[A-Za-z0-9_-]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bAKIA[A-Z0-9]{12,}"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bAIza[A-Za-z0-9_-]{20,}|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\."
    r"|-----BEGIN [A-Z ]{0,30}KEY-----|\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,64}:[^\s/@]{1,128}@"
    r"|[?&](?:token|key|api_?key|secret|password|sig|signature|access_token)=[^\s&]{8,}"
)
_CANARY = re.compile(r"canary[\W_]{0,3}(?:guid|string|token|word)|never appear in training")
_ADDRESS = re.compile(
    r"\b(?:https?://|www\.)[^\s<>\"')\]]{3,200}|[\w.+-]{1,64}@[\w-]{1,64}\.[\w.-]{2,64}|\+?\d[\d ()/.-]{5,24}\d"
)
_WORD = re.compile(r"[^\W_]{4,}")


def screen(case: Case, value: Any, *, kind: AnswerKind | None = None, canaries: Collection[str] = ()) -> str:
    """Return why nothing may learn from *case* and the answer *value*, in a few words that quote neither; else "".

    *canaries* are texts of the operator's that no traffic has a reason to hold.  Orders to the model count in what
    users say, in tools and in answers; an operator's system turn gives them by right, so there only attempts to
    override, marks of a template and disguises count.  Where *kind* is free text, an answer must not bring addresses
    and long numbers that the case does not say, and a target, which is a caller's word, no word of 4 letters and more.
    """
    operators, users = _texts(case, value)
    whole = GAP.join((*operators, *users))
    if len(whole) > MOST_CHARACTERS:
        return f"is longer than {MOST_CHARACTERS:,} characters"
    return (
        disguise(whole)
        or _canary(whole, canaries)
        or _secret(whole)
        or next(filter(None, (_sign(text, by_user=True) for text in users)), "")
        or next(filter(None, (_sign(text, by_user=False) for text in operators)), "")
        or (_unfounded(case, value) if isinstance(kind, Text) else "")
    )


def _texts(case: Case, value: Any) -> tuple[list[str], list[str]]:
    """Return the texts of operators' turns, and all others: turns, tools, target and answer, names of members too."""
    said: dict[bool, list[str]] = {True: [], False: []}
    rest: list[Any] = [tool.get("function", tool) for tool in case.tools] + [case.target, value]
    for message in case.messages:
        said[message.get("role") in OPERATORS].append(message_text(message))
        rest += [member for name, member in message.items() if name not in ("role", "content")]
    return ["\n".join(said[True])], ["\n".join(said[False]), *_leaves(rest)]


def _leaves(value: Any) -> Iterator[str]:
    """Yield every text in *value*, however deep; images and other data URLs are not read."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += [*one.values(), *one.keys()]
        elif isinstance(one, list | tuple):
            waiting += one
        elif isinstance(one, str) and not one.startswith("data:"):
            yield one


@lru_cache(KNOWN_TEXTS)
def _sign(text: str, *, by_user: bool) -> str:
    """Return what in *text* reads like an order.  Texts are read apart: none is ever shown within another."""
    signs = (*PATTERNS_FOR_ALL, *PATTERNS_FOR_USERS) if by_user else PATTERNS_FOR_ALL
    for reading in readings(text):
        for sign in signs:
            if sign.pattern.search(reading):
                return sign.reason
    return ""


def _canary(text: str, canaries: Collection[str]) -> str:
    seen = folded(text)
    if _CANARY.search(seen) or any(folded(canary) in seen for canary in canaries):
        return "holds a canary string"
    return ""


def _secret(text: str) -> str:
    keys = (run for run in _SECRET.findall(text) if len(_TURN.findall(run)) >= SECRET_TURNS)
    return "holds what looks like a key or a password" if _KNOWN_SECRETS.search(text) or any(keys) else ""


def _unfounded(case: Case, value: Any) -> str:
    """Name what a free answer brings along that the case does not say."""
    asked = folded("\n".join(message_text(message) for message in case.messages))
    claimed = folded("\n".join(_leaves(case.target)))
    answered = claimed + "\n" + folded("\n".join(_leaves(value)))
    if any(address.strip(".,;") not in asked for address in _ADDRESS.findall(answered)):
        return "answers with an address or a number that was not asked about"
    if set(_WORD.findall(claimed)) - set(_WORD.findall(asked)):
        return "has a target with words that were not asked about"
    return ""
