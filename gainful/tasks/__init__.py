"""Where cases come from, and what becomes of them: a part to learn from, a part that is held out.

Guarantees: whatever the source, copies of a case never straddle the two parts, and the held-out part is sealed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gainful.core import TaskError
from gainful.tasks import bfcl, gym, python, toml
from gainful.tasks.holdout import Holdout
from gainful.tasks.split import Divided, Split, divide
from gainful.tasks.task import Task, make_task

__all__ = ["TEMPLATE", "Divided", "Holdout", "Split", "Task", "divide", "load", "make_task", "name_of"]

TEMPLATE = Path(__file__).parent / "template"
"""The folder that ``gainful init`` copies: a commented task file and its cases."""


def load(spec: str) -> Task:
    """Return the task that *spec* names.

    ``bfcl:CATEGORY``, ``reasoning-gym:DATASET?parameter=value&...``, ``path/to/task.toml``, ``path/to/file.py:NAME``
    or ``package.module:NAME``.  The task's ``spec["load"]`` is *spec*.  Raises ``TaskError`` where there is no such
    task or it cannot be used, ``ModelNotFound`` where its files cannot be fetched.
    """
    source, _, rest = spec.partition(":")
    if source == "bfcl":
        task = bfcl.load(rest)
    elif source == "reasoning-gym":
        task = gym.load(rest)
    elif spec.endswith(".toml"):
        task = toml.load(Path(spec).expanduser())
    elif source.endswith(".py") or rest:
        task = python.load(spec)
    else:
        raise TaskError(
            f"task {spec!r} is not known; give a task file (NAME.toml), FILE.py:NAME, bfcl:simple_python or "
            "reasoning-gym:DATASET"
        )
    return replace(task, spec={"load": spec, **task.spec})


def name_of(spec: str) -> str:
    """Return the name under which a store knows the task *spec*, without loading it: no code runs, no case is read.

    A task file's own name; of Python objects only the file knows it, so whoever names one gives the name itself.

    >>> name_of("bfcl:simple_python")
    'bfcl:simple_python'
    """
    return toml.name_in(Path(spec).expanduser()) if spec.endswith(".toml") else spec
