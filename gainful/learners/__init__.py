"""What to try next.  A learner is one file here and one line in ``LEARNERS``.

Learners read evidence and propose policies.  They import the nouns and nothing else of ours: no gate, no store,
no held-out case is in their reach.
"""

from gainful.core import Learner
from gainful.learners.demos import Demos
from gainful.learners.format import Formats
from gainful.learners.strategy import Strategies

LEARNERS: tuple[Learner, ...] = (Formats(), Demos(), Strategies())
ON_TRAFFIC: tuple[Learner, ...] = (Formats(), Demos(turns=False), Strategies())
"""What may learn from callers: none of their words becomes a turn of another caller's conversation."""

__all__ = ["LEARNERS", "ON_TRAFFIC", "Demos", "Formats", "Strategies"]
