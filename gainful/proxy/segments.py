"""Text that streams in, cut into segments that mean something alone: sentences, or the members of a JSON value.

Guarantees: the segments together are the text, to the character; where they are cut depends on the text and not on the
pieces in which it came; a cut is made as early as it is certain, and no input makes it raise.

Sentences are found by simple rules.  Where these fail, two sentences come as one: "Plan B. Then", or after an
abbreviation that ends its sentence.
"""

from __future__ import annotations

import re
from typing import Literal

FULL_WIDTH = "。！？．｡"  # end a sentence by themselves; the others do so before white space: 3.14, example.com
ENDS = ".!?…" + FULL_WIDTH
CLOSERS = "\"'”’)]»*_`」』）】》"  # belong to the sentence whose end they follow
OPENERS = "\"'“‘([«*_`"
ABBREVIATIONS = frozenset(
    {"mr", "mrs", "ms", "dr", "prof", "sr", "jr", "st", "mt", "inc", "ltd", "co", "corp", "dept"}
    | {"vs", "etc", "approx", "cf", "al", "fig", "figs", "eq", "est", "resp"}
    | {"jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec"}
)

_end = re.compile(
    rf"\n|(?<![{re.escape(ENDS)}])(?P<ends>[{re.escape(ENDS)}]++)[{re.escape(CLOSERS)}]*+(?P<next>[\s\S])"
)
_initials = re.compile(r"([^\W\d_]{1,2}\.)*[^\W\d_]")  # J, e.g, U.S, Ph.D
_fence = re.compile(r"(?P<mark>`{3,}|~{3,})(?P<info>[^\n]*)(?P<end>\n?)")


class Segmenter:
    """Takes text in pieces and gives the segments that are complete.

    ``text``: a sentence with the space or line end after it; a line; a code block between fences, however indented.
    ``json``: each member of an object, each item of an array, with the comma before it, and the closing bracket.

    >>> segmenter = Segmenter("text")
    >>> segmenter.feed("Pi is 3."), segmenter.feed("14. See Dr. No"), segmenter.feed(". Then"), segmenter.close()
    ([], ['Pi is 3.14. '], ['See Dr. No. '], ['Then'])
    >>> segmenter = Segmenter("json")
    >>> segmenter.feed('{"a": "x'), segmenter.feed('}", "b": [1'), segmenter.feed("]}"), segmenter.close()
    ([], ['{"a": "x}"'], [', "b": [1]', '}'], [])
    """

    def __init__(self, kind: Literal["text", "json"]) -> None:
        self._cutter = _Members() if kind == "json" else _Sentences()

    def feed(self, piece: str) -> list[str]:
        """Return the segments that *piece* completes, in order."""
        return self._cutter.feed(piece)

    def close(self) -> list[str]:
        """Return what is left at the end of the text, if anything."""
        rest, self._cutter.waiting = self._cutter.waiting, ""
        return [rest] if rest else []


class _Sentences:
    def __init__(self) -> None:
        self.waiting = ""  # text that belongs to no complete segment yet
        self._at_line_start = True  # whether its first word begins a line
        self._blank = 0  # how much white space it begins with
        self._seen = 0  # how much of it was searched: no segment ends before

    def feed(self, piece: str) -> list[str]:
        if self.waiting.endswith(tuple(ENDS)) and not piece.strip(ENDS):
            self.waiting += piece  # a row of dots becomes longer: where it ends is still open
            return []
        self.waiting += piece
        segments = []
        while end := self._end():
            segments.append(self.waiting[:end])
            self._at_line_start = self.waiting[end - 1] == "\n"
            self.waiting, self._blank, self._seen = self.waiting[end:], 0, 0
        return segments

    def _end(self) -> int:
        """Return where the first segment ends, 0 where none does."""
        if self._is_blank():
            return 0
        fence = _fence.match(self.waiting, self._blank) if self._at_line_start else None
        if fence and not fence["end"]:
            return 0  # whether this is a fence, its whole line says
        if fence and (fence["mark"][0] == "~" or "`" not in fence["info"]):
            return self._fence_end(fence["mark"], fence.end())
        while found := _end.search(self.waiting, self._seen):
            if found["ends"] is None:
                return found.end()
            if self._is_end(found):
                return found.end() if found["next"].isspace() else found.start("next")
            self._seen = found.start("next")
        open_end = self.waiting.rstrip(CLOSERS)
        self._seen = len(open_end.rstrip(ENDS)) if open_end.endswith(tuple(ENDS)) else len(self.waiting)
        return 0

    def _is_blank(self) -> bool:
        """Whether nothing but white space came, and so no segment; notes whether what follows begins a line."""
        if self._blank == self._seen:
            words = self.waiting[self._blank :].lstrip()
            start = len(self.waiting) - len(words)
            self._at_line_start = self._at_line_start or "\n" in self.waiting[self._blank : start]
            self._blank = self._seen = start
        return self._blank == len(self.waiting)

    def _is_end(self, found: re.Match[str]) -> bool:
        ends, before = found["ends"], self.waiting[: found.start()]
        if not found["next"].isspace():
            return any(end in FULL_WIDTH for end in ends)
        if ends != "." or not before or before[-1].isspace():
            return True
        word = before.rsplit(maxsplit=1)[-1].lstrip(OPENERS)
        numbers_an_item = before.strip().isdigit()
        return not (numbers_an_item or word.lower() in ABBREVIATIONS or _initials.fullmatch(word))

    def _fence_end(self, mark: str, start: int) -> int:
        """Return where the line that closes the block ends."""
        self._seen = max(self._seen, start)
        while (end := self.waiting.find("\n", self._seen)) >= 0:
            line = self.waiting[self._seen : end].strip()
            self._seen = end + 1
            if len(line) >= len(mark) and set(line) == {mark[0]}:
                return self._seen
        return 0


class _Members:
    def __init__(self) -> None:
        self.waiting = ""
        self._depth = 0
        self._in_text = self._is_escaped = False
        self._in_array = self._is_value = False  # at the first level: in an array, or behind a colon
        self._in_bare = False  # there, in a number, true, false or null: it is over at what follows it

    def feed(self, piece: str) -> list[str]:
        start, text = 0, self.waiting + piece
        segments = []
        for at in range(len(self.waiting), len(text)):
            for end in self._step(text[at], at):
                segments.append(text[start:end])
                start = end
        self.waiting = text[start:]
        return segments

    def _step(self, character: str, at: int) -> list[int]:
        """Read the character that stands *at* this place; return where segments end, here or behind it."""
        if self._in_text:
            return self._step_in_text(character, at)
        ends = []
        if self._in_bare and (character in ",}]" or character.isspace()):
            self._in_bare = False
            ends.append(at)
        if character in "{[":
            self._depth += 1
            if self._depth == 1:
                self._in_array, self._is_value = character == "[", False
        elif not self._depth:
            pass  # words around the JSON
        elif character in "}]":
            self._depth -= 1
            if self._depth <= 1:
                ends.append(at + 1)
        elif character == '"':
            self._in_text = True
        elif self._depth == 1:
            if character in ":,":
                self._is_value = character == ":"
            elif not character.isspace():
                self._in_bare = True
        return ends

    def _step_in_text(self, character: str, at: int) -> list[int]:
        if self._is_escaped:
            self._is_escaped = False
        elif character == "\\":
            self._is_escaped = True
        elif character == '"':
            self._in_text = False
            if self._depth == 1 and (self._in_array or self._is_value):
                return [at + 1]
        return []
