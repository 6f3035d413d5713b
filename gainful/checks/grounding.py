"""Does the call say what the request says?  Finds made-up and left-out values without an answer key.

A small model fills a required argument with something plausible rather than with what it was told.  Such a
value usually leaves a trace: its words or digits stand nowhere in the request.  And it leaves out what it was
told, which shows where that was a number.  This is evidence, not proof:
``trusted`` is false.  Leaves to others: the form of the call (``tool_call``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, ClassVar

from gainful.checks.equality import equals
from gainful.checks.number import exact
from gainful.checks.tool_call import is_call, json_text, parameters
from gainful.core import Answer, Case, JsonObject, Score, message_text

_TOKEN = re.compile(r"(?:\d[\d,]*(?:\.\d+)?|(?<![^\W_])\.\d+)(?:e[+-]?\d+)?|[^\W\d_]+|%")
_CLOCK = re.compile(r"(?<=\d)t(?=\d\d:)")  # 2024-05-01t20:00, as ISO 8601 joins date and time
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_SCALE_WORDS = "dozen|hundred|thousand|million|billion"
_ALONE = re.compile(  # a number that is no part of a word, a unit or a larger number
    rf"(?<![\w.^])(?>\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)(?!\w|\s+(?:{_SCALE_WORDS}))"
)
_PERCENT = {"%", "percent", "pct", "percentage"}
_STOP_WORDS = {"a", "an", "and", "at", "by", "for", "from", "in", "is", "of", "on", "or", "the", "to", "with"}
_SMALL = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_TEENS = ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
_MONTHS = ["january", "february", "march", "april", "may", "june"]
_MONTHS += ["july", "august", "september", "october", "november", "december"]
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "k": 1000, "million": 10**6, "billion": 10**9}
_LARGEST = 10**15  # where a run of scales stops growing, so that a text that repeats them costs no more than others
_NUMBER_WORDS: dict[str, Fraction] = {
    **{word: Fraction(n) for n, word in enumerate(_SMALL + _TEENS)},
    **{word: Fraction(10 * n) for n, word in enumerate(_TENS, 2)},
    **{word: Fraction(n) for n, word in enumerate(_ORDINALS, 1)},
    **{"half": Fraction(1, 2), "quarter": Fraction(1, 4), "once": Fraction(1), "twice": Fraction(2)},
    **{"single": Fraction(1), "double": Fraction(2), "pair": Fraction(2), "couple": Fraction(2)},
    **{word: Fraction(n) for n, word in enumerate(_MONTHS, 1)},
    **{word[:3]: Fraction(n) for n, word in enumerate(_MONTHS, 1)},
}


@dataclass(frozen=True)
class Grounding:
    """Score 1 where the request holds every required argument's value and the call every number of the request's.

    Unknown where the answer is no call of one of the case's tools.  Of the call's arguments those that the tool
    requires are looked at, and in them every number and text, however deep in arrays and objects.  Not looked at:
    booleans, null, values of a parameter with an ``enum`` of its own or of its items, and values equal to the
    parameter's ``default``.  An empty text, array or object is never held.

    A number is held where the request has the same number up to its sign, in digits (``1,000``, ``5%`` as 5 or 0.05,
    ``3rd``, ``10k``) or words (``twenty-five``, ``two hundred``, ``half``, a month's name).  A text is held where
    the request has all its words and numbers but for a, an, the and the like; words are equal when one begins
    with the other's stem (``cities``, ``city``) or is made of the initials of neighbours (``NY``).

    The other way round, the user's last turn is looked at, and in it the numbers in digits that stand alone (not
    ``20ft``, ``3rd``, ``m/s^2``, ``5 million``).  One is held where some argument, optional ones too, has it, a
    hundredth of it (``5%``) or, as an hour, 12 more.  Not looked at where a required argument is missing, which is
    another check's to say.

    Groups: "ungrounded value", else "unused number".
    """

    name: ClassVar[str] = "grounding"
    trusted: ClassVar[bool] = False
    needs_target: ClassVar[bool] = False

    @property
    def spec(self) -> JsonObject:
        """The kind; there are no settings."""
        return {"kind": self.name}

    def __call__(self, case: Case, answer: Answer) -> Score | None:
        """Judge one answer; the feedback names the arguments whose values stand nowhere."""
        if not is_call(answer.value):
            return None
        schema = parameters(case, answer.value["name"])
        if schema is None:
            return None
        request = _Words.of("\n".join(message_text(message) for message in case.messages))
        made_up = [
            (name, value)
            for name, value in _looked_at(answer.value["arguments"], schema)
            if not all(request.hold(leaf) for leaf in _leaves(value))
        ]
        if made_up:
            sentences = [
                f"The value {json_text(value)} of the argument {json_text(name)} does not occur in the request."
                for name, value in made_up
            ]
            return Score(0.0, " ".join([*sentences, "Take the values from the request."]), "ungrounded value")
        whole = all(name in answer.value["arguments"] for name in schema.get("required") or ())
        if whole and (unused := _unused(case, answer.value["arguments"])):
            return Score(0.0, f"The request says {', '.join(unused)}, and no argument does.", "unused number")
        return Score(1.0)


def _looked_at(arguments: JsonObject, schema: JsonObject) -> Iterator[tuple[str, Any]]:
    properties = schema.get("properties") or {}
    for name in schema.get("required") or ():
        parameter = properties.get(name) or {}
        items = parameter.get("items") or {}
        if name not in arguments or "enum" in parameter:
            continue
        if "enum" in items and arguments[name] != []:
            continue
        if "default" in parameter and equals(arguments[name], parameter["default"]):
            continue
        yield name, arguments[name]


def _unused(case: Case, arguments: JsonObject) -> list[str]:
    """Return the numbers of the user's last turn that no argument holds, as they are written there."""
    asked = next((message_text(m) for m in reversed(case.messages) if m.get("role") == "user"), "")
    said = _Words.of("\n".join(str(leaf) for leaf in _leaves(arguments)))
    return [number for number in _ALONE.findall(_folded(asked)) if not said.say(number.rstrip(","))]


def _leaves(value: Any) -> Iterator[str | int | float]:
    """Yield the texts and numbers in *value*; an empty array or object says as little as an empty text."""
    if isinstance(value, dict | list | tuple):
        inner = list(value.values() if isinstance(value, dict) else value)
        for item in inner or [""]:
            yield from _leaves(item)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield value


@dataclass(frozen=True)
class _Words:
    """What a text says: itself, folded, its words, their initials in a row, and its numbers."""

    text: str
    words: frozenset[str]
    initials: str
    numbers: frozenset[Fraction]

    @classmethod
    @lru_cache(maxsize=1024)  # every candidate's answer to a case is held against the same request
    def of(cls, text: str) -> _Words:
        tokens = _tokens(text)
        words = [token for token in tokens if token[0].isalpha()]
        initials = "".join(word[0] for word in words)
        return cls(_folded(text), frozenset(words), initials, frozenset(_numbers(tokens)))

    def hold(self, leaf: str | int | float) -> bool:
        """Say whether this text says *leaf*; an empty text is never said."""
        if not isinstance(leaf, str):
            number = exact(leaf)
            return number is not None and abs(number) in self.numbers
        if not leaf.isascii() and leaf.strip() and _folded(leaf) in self.text:  # scripts without blanks between words
            return True
        tokens = [token for token in _tokens(leaf) if token != "%"]
        telling = [token for token in tokens if token not in _STOP_WORDS and _number(token) != 0] or tokens
        return bool(telling) and all(map(self._has, telling))

    def say(self, digits: str) -> bool:
        """Say whether this text has the number *digits* of a request: as it is, a share of 100, or an hour after noon.

        ``200,300`` may be one number or two.
        """
        readings = [[digits.replace(",", "")]] if _THOUSANDS.fullmatch(digits) else []
        return any(
            all(number is None or {number, number / 100, number + 12} & self.numbers for number in map(exact, reading))
            for reading in [*readings, [piece for piece in digits.split(",") if piece]]
        )

    def _has(self, token: str) -> bool:
        return (
            token in self.words
            or _number(token) in self.numbers
            or (2 <= len(token) <= 4 and token in self.initials)
            or any(_same_word(token, word) for word in self.words)
        )


def _folded(text: str) -> str:
    """Return *text* in lower case, without accents, its digits those of ASCII."""
    plain = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in plain).casefold()


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(_CLOCK.sub(" ", _folded(text)))


def _number(token: str) -> Fraction | None:
    if token in _NUMBER_WORDS:
        return _NUMBER_WORDS[token]
    digits = token.rstrip(",")
    return exact(digits) if "," not in digits or _THOUSANDS.fullmatch(digits) else None


def _numbers(tokens: list[str]) -> Iterator[Fraction]:
    """Yield the numbers that the tokens say, each alone and each run of them ("two hundred and five") as one."""
    total = part = Fraction(0)
    inside = False
    for token, following in zip(tokens, [*tokens, ""][1:], strict=True):
        for piece in token.split(","):  # "1,2,3" is three numbers, "1,000" one and, harmlessly, two more
            if (found := exact(piece)) is not None:
                yield found
        number = _number(token)
        if number is not None:
            yield number
            if following in _PERCENT:
                yield number / 100
            if following == "pm":
                yield number + 12
            continues = inside and ((part % 10 == 0 and number < 10) or (part % 100 == 0 and number < 100))
            total, part = (total, part + number) if continues else (Fraction(0), number)
            inside = True
        elif token in _SCALES and (inside or token != "k") and part < _LARGEST:
            part = (part if inside else Fraction(1)) * _SCALES[token]
            if _SCALES[token] >= 1000:
                total, part = total + part, Fraction(0)
            inside = True
        elif token != "and":
            total = part = Fraction(0)
            inside = False
        if inside:
            yield total + part


def _same_word(left: str, right: str) -> bool:
    """Say whether one word begins with the other's stem: at least four letters, three quarters of the longer.

    >>> _same_word("city", "cities"), _same_word("restaurants", "restaurant"), _same_word("car", "carpet")
    (True, True, False)
    """
    short, long = sorted((left, right), key=len)
    stem = max(3, len(short) - 2)
    return long.startswith(short[:stem]) and len(short) >= 4 and len(long) - len(short) <= 4
