"""Self-improving AI you can check.

A beginner needs three names, ``Task``, ``improve`` and ``serve``; the nouns behind them are in ``gainful.core``.
"""

from gainful.core import Answer, Case, Check, GainfulError, Learner, Model, Policy, Score
from gainful.loop.run import Settings
from gainful.loop.session import Evaluation, Result, evaluate, improve
from gainful.loop.verify import verify
from gainful.proxy import serve
from gainful.tasks import Task, load

__all__ = [
    "Answer",
    "Case",
    "Check",
    "Evaluation",
    "GainfulError",
    "Learner",
    "Model",
    "Policy",
    "Result",
    "Score",
    "Settings",
    "Task",
    "evaluate",
    "improve",
    "load",
    "serve",
    "verify",
]
