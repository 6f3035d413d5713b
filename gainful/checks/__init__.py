"""How an answer is judged: one small file a check, and the line that wires them.

Guarantees: ``from_spec(check.spec)`` gives an equal check.  Leaves to ``core.judge`` what happens when a check
breaks.
"""

from __future__ import annotations

from gainful.checks.answer_key import AnswerKey
from gainful.checks.grounding import Grounding
from gainful.checks.tool_call import ToolCall
from gainful.core import Check, JsonObject

__all__ = ["AnswerKey", "Grounding", "ToolCall", "from_spec"]

KINDS = {c.name: c for c in (ToolCall, Grounding, AnswerKey)}


def from_spec(spec: JsonObject) -> Check:
    """Return the check that *spec* describes."""
    return KINDS[spec["kind"]]()
