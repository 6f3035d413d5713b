"""What to try next.  A learner is one file here and one line in ``LEARNERS``.

Learners read evidence and propose policies.  They import the nouns and nothing else of ours: no gate, no store,
no held-out case is in their reach.
"""

from gainful.core import Learner
from gainful.learners.demos import Demos
from gainful.learners.format import Formats
from gainful.learners.strategy import Strategies

LEARNERS: tuple[Learner, ...] = (Formats(), Demos(), Strategies())

__all__ = ["LEARNERS", "Demos", "Formats", "Strategies"]
