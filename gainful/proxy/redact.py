"""What of a request and a reply is stored: all, a digest or nothing, and never what the operator's patterns match.

Guarantees: every text, however deep and names of members included, is redacted before anything is stored or hashed; a
match of up to ``LONGEST_MATCH`` characters is found wherever it stands.  A pattern whose time grows too fast with the
text is refused at the door: redaction runs in the server, and a caller could stop it with one long word.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from gainful.core import JsonObject, ServeError, Verdict, digest

Storing: TypeAlias = Literal["none", "hash", "full"]

INSTEAD = "[redacted]"
PIECE = 20_000  # characters looked at together: what a pattern costs is known up to here, and grows evenly beyond
LONGEST_MATCH = 1_000  # characters by which pieces overlap
MOST_S = 0.1  # a pattern may take for one piece; linear ones take less than a millisecond, quadratic ones seconds

# what the patterns of operators tend to repeat; each alone, and with an end that makes a match fail late
_PROBES = ("a", "1", " ", "a ", "1-", "1 ", "a.", "a@", "A", "=", "-", "ab1", '"', "\n", "é")


class Keeping:
    """How one task's requests and replies are stored.

    Raises ``ServeError`` naming a pattern that is no regular expression or takes too long.
    """

    def __init__(self, storing: Storing, redact: Sequence[str] = ()) -> None:
        self._storing = storing
        self._patterns = [_compiled(pattern) for pattern in redact]

    def kept(self, body: JsonObject) -> JsonObject | None:
        """Return what is stored of a request or a reply: itself, redacted, or ``{"sha256": ...}``, or ``None``.

        The digest is that of the redacted body: a card number could be found from its digest by trying all.
        """
        kept: JsonObject | None = self.kept_value(body)
        return kept

    def kept_value(self, value: Any) -> Any:
        """Return the same of an answer's value, which is part of the reply; ``None`` stays ``None``."""
        if value is None or self._storing == "none":
            return None
        found = self._redacted(value)
        if self._storing == "full":
            return found
        try:
            return {"sha256": digest(found)}
        except (ValueError, RecursionError):  # NaN, or half a surrogate pair: no JSON, so no digest
            return None

    def kept_verdicts(self, verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
        """Return the verdicts with their words redacted, or without them: checks quote the answer and the request."""
        if self._storing == "full":
            return tuple(msgspec.structs.replace(v, feedback=self.kept_text(v.feedback)) for v in verdicts)
        return tuple(msgspec.structs.replace(v, feedback="") for v in verdicts)

    def kept_text(self, text: str) -> str:
        """Return *text* redacted, in every mode: a comment that a caller gives is meant to be read."""
        spans = sorted(span for pattern in self._patterns for span in _matches(pattern, text))
        kept, end = [], 0
        for first, last in spans:
            if first >= end:
                kept += [text[end:first], INSTEAD]
            end = max(end, last)
        return "".join([*kept, text[end:]]) if spans else text

    def _redacted(self, value: Any) -> Any:
        if not self._patterns:
            return value
        if isinstance(value, str):
            return self.kept_text(value)
        if isinstance(value, dict):
            return {self.kept_text(name): self._redacted(member) for name, member in value.items()}
        if isinstance(value, list | tuple):
            return [self._redacted(item) for item in value]
        return value


def _matches(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    """Yield where *pattern* matches something, piece by overlapping piece; a match may come twice."""
    for first in range(0, max(1, len(text) - LONGEST_MATCH), PIECE - LONGEST_MATCH):
        yield from (match.span() for match in pattern.finditer(text, first, first + PIECE) if match.group())


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise ServeError(f"redact has {pattern!r}, which is no regular expression: {error}; correct it") from None
    if _is_slow(found):
        raise ServeError(
            f"redact has {pattern!r}, whose time grows too fast with the length of a text; bound its repeats, "
            r"as in [\w.]{1,64}@[\w.]{1,255}"
        )
    return found


def _is_slow(pattern: re.Pattern[str]) -> bool:
    """Try the pattern on texts that grow from 16 characters, where even an exponential one still ends, to a piece."""
    for probe in _PROBES:
        length = 16
        while length <= PIECE:
            text = (probe * length)[:length]
            for tried in (text, text[:-1] + "\x00"):
                began_s = time.thread_time()
                for _ in _matches(pattern, tried):
                    pass
                if time.thread_time() - began_s > MOST_S:
                    return True
            length = length + 2 if length < 40 else 2 * length
    return False
