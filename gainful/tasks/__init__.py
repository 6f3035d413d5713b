"""Where cases come from, and what becomes of them: a part to learn from, a part that is held out.

Guarantees: whatever the source, duplicates never straddle the two parts and the held-out part is sealed.
"""

from __future__ import annotations

from gainful.core import TaskError
from gainful.tasks import bfcl
from gainful.tasks.holdout import Holdout
from gainful.tasks.split import Split
from gainful.tasks.task import Task

__all__ = ["Holdout", "Split", "Task", "load"]


def load(spec: str) -> Task:
    """Return the task that *spec* names; raises ``TaskError``."""
    source, _, rest = spec.partition(":")
    if source == "bfcl":
        return bfcl.load(rest, Split())
    raise TaskError(f"task {spec!r} is not known; give bfcl:simple_python")
