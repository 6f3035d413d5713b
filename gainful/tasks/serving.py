"""How a task is served: streaming, correction and its limits, what is kept out of the store."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from gainful.core import TaskError, Value

Streaming: TypeAlias = Literal["pass", "hold", "segment"]
Method: TypeAlias = Literal["reask", "refine", "vote", "escalate"]


class Serving(Value, frozen=True):
    """The ``[serve]`` table of a task file.

    ``stream``: ``pass``, pieces as they come, checked behind; ``hold``, released once checked; ``segment``, released
    sentence by sentence or JSON value by value.  ``segment_checks`` names the checks that judge each sentence.
    ``methods`` may correct a reply, once the evidence has opened them; ``escalate`` asks the model named there.
    The limits count what one request spends beyond the call that the caller asked for.  ``redact`` are regular
    expressions; what they match is not stored.
    """

    stream: Streaming = "pass"
    segment_checks: tuple[str, ...] = ()
    methods: tuple[Method, ...] = ("reask", "refine", "vote")
    escalate: str = ""
    deadline_ms: float | None = None
    extra_calls: int | None = 5  # what a vote of five samples takes
    extra_tokens: int | None = None
    extra_cost_usd: float | None = None
    redact: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("deadline_ms", "extra_calls", "extra_tokens", "extra_cost_usd"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise TaskError(f"serve.{name} is {value!r}; it must be a number from 0 on")
        for pattern in self.redact:
            try:
                re.compile(pattern)
            except re.error as error:
                raise TaskError(f"serve.redact has {pattern!r}, which is no regular expression: {error}") from None
        if "escalate" in self.methods and not self.escalate:
            raise TaskError("serve.methods has 'escalate', but serve.escalate names no model; give one")
