"""Keep the texts of a request from being read as the marks that a model's chat template is made of.

llama.cpp renders a conversation to one text and then reads every special token in it as one, whoever wrote it: a
caller who writes ``<|im_end|>`` ends their turn and may begin the operator's.  So every mark in a text is parted by an
invisible character, after which it is letters like any other.

Guarantees: a request without such marks stays the same object; one with them changes in nothing but that character.
Leaves to others: the same on other servers, whose vocabulary is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gainful.core import JsonObject
from gainful.models.gguf import damaged, read_header

SHOWN = ("messages", "tools", "chat_template_kwargs")  # members of a request that its prompt is made of
PARTING = "\u200b"  # a zero-width space: in no mark, and in nothing that is seen
NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 3, 4, 6  # kinds of tokens, as GGUF numbers them
ENDING = re.compile(
    r"<[|｜].+[|｜]>|</?s>|<(?:end|start)_of_\w+>"
)  # llama.cpp takes these for marks, whatever their kind


class Specials:
    """The special tokens of one model, and the requests that hold some."""

    def __init__(self, tokens: Iterable[str]) -> None:
        marks = sorted({mark for mark in tokens if len(mark) > 1}, key=lambda mark: (-len(mark), mark))
        self._marks = re.compile("|".join(map(re.escape, marks))) if marks else None

    @classmethod
    def of(cls, path: Path) -> Specials:
        """Read them from the GGUF file at *path*; raises ``ModelNotFound`` where its header cannot be read."""
        metadata = read_header(path).metadata
        try:
            return cls(_marks(metadata))
        except (ValueError, TypeError) as error:
            raise damaged(path, error) from error

    def part(self, body: JsonObject) -> JsonObject:
        """Return *body* with every mark in its texts parted, itself where there is none."""
        changed = {name: self._parted(body[name]) for name in SHOWN if name in body}
        return {**body, **changed} if any(changed[name] is not body[name] for name in changed) else body

    def _parted(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            members = {self._text(name): self._parted(member) for name, member in value.items()}
            same = all(name in members and members[name] is member for name, member in value.items())
            return value if same else members
        if isinstance(value, list | tuple):
            items = [self._parted(item) for item in value]
            return value if all(one is other for one, other in zip(items, value, strict=True)) else items
        return value

    def _text(self, text: str) -> str:
        """Part what overlaps too: each pass parts one of two marks that share letters."""
        while self._marks is not None and self._marks.search(text):
            text = self._marks.sub(lambda mark: mark.group()[0] + PARTING + mark.group()[1:], text)
        return text


def _marks(metadata: JsonObject) -> Iterator[str]:
    """Yield the tokens that llama.cpp takes for special in a rendered conversation.

    Of those that the model's makers added, which may be words or runs of blanks, those alone that look like marks.
    """
    tokens = metadata.get("tokenizer.ggml.tokens", [])
    kinds = metadata.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    for token, kind in zip(tokens, kinds, strict=True):
        if PARTING in token or kind == BYTE:
            continue
        if kind == CONTROL or ENDING.fullmatch(token) or (kind == USER_DEFINED and token.startswith(("<", "["))):
            yield token
