"""The names of callers' own tasks: ``support@clinic`` is the task ``support`` as the key ``clinic`` alone is served.

Guarantees: a name says whose a task is, for the name of a task that is all callers' holds no ``SIGN``; a key's may.
"""

from __future__ import annotations

SIGN = "@"


def own_name(task: str, key: str) -> str:
    """Return the name of *task* as *key*'s own.

    >>> own_name("support", "ann@clinic.org"), shared_name("support@ann@clinic.org"), owner("support@ann@clinic.org")
    ('support@ann@clinic.org', 'support', 'ann@clinic.org')
    """
    return f"{task}{SIGN}{key}"


def shared_name(task: str) -> str:
    """Return the name under which all other callers are served what *task* is; of a shared task its own.

    >>> shared_name("support")
    'support'
    """
    return task.partition(SIGN)[0]


def owner(task: str) -> str:
    """Return the name of the key that *task* belongs to, "" where it is all callers'."""
    return task.partition(SIGN)[2]
