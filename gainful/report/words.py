"""How numbers and foreign text are said to people, the same in the terminal and on the page.

Guarantees: fractions become points and per cent in one way everywhere; text that a model or a case wrote holds no
control character, escape sequence or lone surrogate once it has passed ``clean``, so it can neither move the
cursor nor reverse the line it stands in.  HTML escaping is the template's.
"""

from __future__ import annotations

import unicodedata

from gainful.core import Usage
from gainful.gate import proportion_interval
from gainful.loop.events import Errors, Interval, Power

MINUS = "\u2212"
INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode categories that show nothing or move other text


def gain(fraction: float) -> str:
    """Say a difference in points, always with its sign: the cell of a table.

    >>> gain(0.362), gain(-0.07), gain(-0.0001)
    ('+36.2', '−7.0', '0.0')
    """
    tenths = round(fraction * 100, 1)
    sign = "+" if tenths > 0 else MINUS if tenths < 0 else ""
    return f"{sign}{abs(tenths):,.1f}"


def points(fraction: float) -> str:
    """Say a difference in points, in a sentence.

    >>> points(0.362)
    '+36.2 points'
    """
    return f"{gain(fraction)} points"


def percent(fraction: float) -> str:
    """Say a share in whole per cent; a share that is not quite 0 or 1 never reads as exactly that.

    >>> percent(0.374), percent(0.002), percent(0.999), percent(0.0)
    ('37 %', '<1 %', '>99 %', '0 %')
    """
    whole = round(fraction * 100)
    if whole == 0 and fraction > 0:
        return "<1 %"
    if whole == 100 and fraction < 1:
        return ">99 %"
    return f"{whole} %"


def chance(probability: float) -> str:
    """Say a small probability with two digits that count.

    >>> chance(0.01268), chance(0.00052), chance(0.0)
    ('1.3 %', '0.052 %', '0 %')
    """
    return f"{probability * 100:.2g} %" if probability < 0.1 else percent(probability)


def confidence(share: float) -> str:
    """Say a confidence with the digits that count.

    >>> confidence(0.95), confidence(0.98728), confidence(0.99963)
    ('95 %', '98.7 %', '99.96 %')
    """
    return f"{share * 100:.4g} %" if share > 0.999 else f"{share * 100:.3g} %"


def bounds(scored: Interval) -> str:
    """Say where a score's interval ends, in per cent.

    >>> bounds(Interval(mean=0.371, low=0.283, high=0.459, n=120))
    '28–46'
    """
    return f"{round(scored.low * 100)}–{round(scored.high * 100)}"


def interval(scored: Interval) -> str:
    """Say a score with its interval, in per cent.

    >>> interval(Interval(mean=0.371, low=0.283, high=0.459, n=120))
    '37 % (28–46)'
    """
    return f"{percent(scored.mean)} ({bounds(scored)})"


def certifiable(power: Power) -> str:
    """Say what a hold-out can prove.

    >>> certifiable(Power(size=260, level=0.0127, rank=1, certifiable=0.119, cases_for={}))
    'With this hold-out of 260 cases, gains below 11.9 points cannot be certified.'
    >>> certifiable(Power(size=5, level=0.0127, rank=1, certifiable=None, cases_for={}))
    'With this hold-out of 5 cases no gain can be certified, however large.'
    """
    holdout = f"With this hold-out of {count(power.size, 'case')}"
    if power.certifiable is None:
        return f"{holdout} no gain can be certified, however large."
    return f"{holdout}, gains below {power.certifiable * 100:.1f} points cannot be certified."


def count(number: int, noun: str) -> str:
    """Say how many there are of something.

    >>> count(1, "case"), count(1465, "case")
    ('1 case', '1,465 cases')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Say a time.

    >>> duration(4.24), duration(59.96), duration(245), duration(7325)
    ('4.2 s', '1 min', '4 min 5 s', '2 h 2 min')
    """
    if round(seconds, 1) < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    parts = [(hours, "h"), (minutes, "min")] if hours else [(minutes, "min"), (rest, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def spent(usage: Usage) -> str:
    """Say what was spent: calls, tokens, time in the model, and money where a price is known.

    >>> spent(Usage(calls=120, prompt_tokens=30000, completion_tokens=4500, elapsed_ms=61000))
    '120 calls, 34,500 tokens, 1 min 1 s in overlapping calls'
    """
    parts = [
        count(usage.calls, "call"),
        count(usage.prompt_tokens + usage.completion_tokens, "token"),
        f"{duration(usage.elapsed_ms / 1000)} in overlapping calls",
    ]
    if usage.cost_usd is not None:
        parts.append(f"${usage.cost_usd:,.2f}")
    return ", ".join(parts)


def clean(text: str) -> str:
    """Return *text* with nothing in it that a display would obey rather than show; line breaks stay.

    >>> clean("a\\x1b[31mb\\u202ec\\td")
    'a�[31mb�c d'
    """
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character == "\n":
        return character
    if character in "\t\r\x0b\x0c":
        return " "
    return "\ufffd" if unicodedata.category(character) in INVISIBLE else character


def margin(value: float) -> str:
    """Say what a margin asks of the challenger.

    >>> margin(0.01)
    'The challenger must be better by more than 1.0 points.'
    >>> margin(-0.05)
    'The challenger saves tokens, and must be worse by less than 5.0 points.'
    """
    if value < 0:
        return f"The challenger saves tokens, and must be worse by less than {-100 * value:.1f} points."
    return f"The challenger must be better by more than {100 * value:.1f} points."


def copies(dropped: int) -> str:
    """Say how many copies of cases were dropped; nothing where none was.

    >>> copies(3), copies(1), copies(0)
    (' (3 copies of cases were dropped)', ' (1 copy of a case was dropped)', '')
    """
    said = "1 copy of a case was" if dropped == 1 else f"{dropped:,} copies of cases were"
    return f" ({said} dropped)" if dropped else ""


def share(part: int, whole: int) -> str:
    """Say a share of counted cases with its exact interval.

    >>> share(3, 40), share(0, 0)
    ('8 % (2–20)', 'none')
    """
    if not whole:
        return "none"
    low, high = proportion_interval(part, whole, 0.05)
    return interval(Interval(mean=part / whole, low=low, high=high, n=whole))


def unlearned(errors: Errors) -> str:
    """Say what a lineage got right once and gets wrong now, as rates; nothing where it got nothing right before."""
    if not errors.worked:
        return ""
    said = (
        f"Broke what worked: {share(errors.broken, errors.worked)} of {count(errors.worked, 'case')} that an earlier "
        "policy got right."
    )
    if errors.corrected:
        said += f" Repeated errors: {share(errors.repeated, errors.corrected)} of {errors.corrected} corrected before."
    worst = max(errors.kinds, key=lambda kind: kind.broken / kind.worked, default=None)
    if worst is not None and worst.broken and len(errors.kinds) > 1:
        said += f" Most where questions are like “{clip(worst.example, 60)}”: {worst.broken} of {worst.worked}."
    return said


def broken(before: Interval, lost: int) -> str:
    """Say what a challenger breaks on held-out cases, by those that only the champion got right; nothing of nothing.

    >>> broken(Interval(mean=0.25, low=0.2, high=0.3, n=200), lost=3)
    'Broke what worked: 6 % (1–17) of 50 held-out cases that the policy in service got right.'
    """
    worked = round(before.mean * before.n)
    if not lost <= worked > 0:
        return ""
    cases = count(worked, "held-out case")
    return f"Broke what worked: {share(lost, worked)} of {cases} that the policy in service got right."


def sentence(text: str) -> str:
    """Return *text*, cleaned, as a sentence: a capital first, a full stop last.

    >>> sentence("no candidate gains 4 points")
    'No candidate gains 4 points.'
    """
    shown = clean(text).strip()
    return shown[:1].upper() + shown[1:] + ("" if shown.endswith((".", "!", "?")) or not shown else ".")


def clip(text: str, width: int) -> str:
    """Return *text* on one line of at most *width* characters, cleaned, with an ellipsis where it was cut.

    >>> clip("Find the area\\nof a triangle", 18)
    'Find the area of…'
    """
    line = " ".join(clean(text).split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"
