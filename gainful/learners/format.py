"""Propose other ways to ask for the same answer: constrained decoding, native tools, a thought first.

Mechanical: every format that differs from the head's in one respect and can matter for this kind of answer.  A
hard schema helps one model and hurts another, so nothing is assumed and everything is raced.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from gainful.core import AnswerKind, Evidence, Format, Policy, Proposal, ToolCall

CONSTRAINED = ("schema", "arguments")


@dataclass(frozen=True)
class Formats:
    """Formats one step away from the head's."""

    name: str = "format"

    def propose(self, head: Policy, evidence: Evidence) -> Sequence[Proposal]:
        """Return one proposal for each neighbouring format, boldest first."""
        one_tool = all(len(case.tools) == 1 for case in evidence.cases)
        neighbours = _neighbours(head.format, evidence.kind, one_tool=one_tool)
        return [
            Proposal(policy=replace(head, format=form), learner=self.name, change=change) for form, change in neighbours
        ]


def _neighbours(form: Format, kind: AnswerKind, *, one_tool: bool) -> Iterator[tuple[Format, str]]:
    is_call = isinstance(kind, ToolCall)
    if form.shape != "schema":
        yield replace(form, shape="schema"), "constrain decoding to the answer's JSON schema"
    if is_call and one_tool and form.shape != "arguments":
        yield replace(form, shape="arguments"), "generate only the arguments, constrained to the function's schema"
    if is_call and form.shape != "native":
        yield Format(shape="native"), "pass the tools in the request's own field"
    if form.shape != "free":
        yield Format(signatures=form.signatures), "ask in words, unconstrained"
    if form.shape in CONSTRAINED and is_call:
        left = "let optional arguments be generated" if form.required_only else "leave optional arguments out"
        yield replace(form, required_only=not form.required_only), left
    if is_call and form.shape != "native":
        shown = "show functions as JSON schemas" if form.signatures else "show functions as one-line signatures"
        yield replace(form, signatures=not form.signatures), shown
    if form.shape in CONSTRAINED:
        yield replace(form, think=not form.think), "answer at once" if form.think else "write one thought first"
