"""A task made by Python code of the user's: ``path/to/file.py:NAME``."""

from __future__ import annotations

from pathlib import Path

from gainful.checks.source import named_object
from gainful.core import TaskError
from gainful.tasks.task import Task


def load(reference: str) -> Task:
    """Return the task that *reference* names, ``task`` where it names a file alone; see ``make_task``.

    Raises ``TaskError`` where there is no such file or name, it cannot be run, or it is no task.
    """
    full = f"{reference}:task" if reference.endswith(".py") else reference
    found, _ = named_object(full, Path())
    if not isinstance(found, Task):
        raise TaskError(f"{full!r} is {found!r}, which is no task; make it with gainful.tasks.make_task")
    return found
