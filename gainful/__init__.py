"""Self-improving AI you can check.

A beginner needs three names, ``Task``, ``improve`` and ``serve``; the nouns behind them are in ``gainful.core``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gainful.core import Answer, Case, Check, GainfulError, Learner, Model, Policy, Score

if TYPE_CHECKING:
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

_HOMES = {  # loaded when first asked for: a process that judges needs neither server nor loop
    "Evaluation": "gainful.loop.session",
    "Result": "gainful.loop.session",
    "Settings": "gainful.loop.run",
    "Task": "gainful.tasks",
    "evaluate": "gainful.loop.session",
    "improve": "gainful.loop.session",
    "load": "gainful.tasks",
    "serve": "gainful.proxy",
    "verify": "gainful.loop.verify",
}


def __getattr__(name: str) -> Any:
    """Return a public name from where it is defined (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
