"""Write a run's records to the store, and tell whoever watches.

A record is written once.  A resumed run writes the same records again; the store accepts the same bytes and
refuses different ones, so a run that no longer repeats itself is noticed where it parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from gainful.core import canonical
from gainful.loop.events import Event, Finished, Progress
from gainful.store import Store

Watcher = Callable[[Event | Progress], None]


class Journal:
    """The records of one run, in order."""

    def __init__(self, store: Store, run: str, watchers: Sequence[Watcher] = ()):
        self.run = run
        self._store = store
        self._watchers = watchers
        self._written = 0

    def write(self, event: Event) -> None:
        """Commit *event* as the run's next record."""
        last = isinstance(event, Finished)
        self._store.append_event(self.run, self._written, canonical(event), last=last)
        self._written += 1
        for watch in self._watchers:
            watch(event)

    def ahead(self) -> Event | None:
        """Return what this run wrote here when it was tried before, the next record; ``None`` where there is none."""
        written = read_events(self._store, self.run)
        return written[self._written] if len(written) > self._written else None

    def progress(self, step: str, done: int, total: int) -> None:
        """Say how far the running step has come; nothing is stored."""
        for watch in self._watchers:
            watch(Progress(step=step, done=done, total=total))


def read_events(store: Store, run: str) -> list[Event]:
    """Return the records of *run*, oldest first."""
    return [msgspec.json.decode(record, type=Event) for record in store.events(run)]
