"""What every store remembers of serving: exchanges, feedback, trials of corrections, detectors, and callers' keys.

Guarantees, for every store: a write is committed when its call returns and survives the death of the process; a
batch is stored as a whole or not at all.  Exchanges and feedback are appended: what is written twice is there twice.
Whether a prompt may be stored at all is decided before it gets here; a key's secret never gets here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from gainful.core import Exchange, JsonObject, Trial, Value


class Feedback(Value, frozen=True):
    """What a caller thinks of a reply: ``score`` in [0, 1], 1 is right; ``at`` is Unix time, ``key`` the caller's.

    ``target`` is the right answer in the caller's eyes, as far as the operator lets it be stored; ``None``: not told.
    """

    reply: str
    score: float
    at: float
    comment: str = ""
    key: str = ""
    target: Any = None


class Key(Value, frozen=True):
    """Who may call: a name and the SHA-256 of a secret, 64 hexadecimal digits.

    ``own_data`` keeps this caller's data apart from all others': nothing is learned from its words.
    ``own_task``: its requests are answered, kept and learned from under tasks of its own (``tasks.own``).
    ``requests_per_minute`` is ``None`` where nothing limits them.
    """

    name: str
    sha256: str
    created_at: float
    revoked: bool = False
    requests_per_minute: int | None = None
    own_data: bool = False
    own_task: bool = False


class Traffic(Protocol):
    """What is remembered of serving.  Every method raises ``StoreError`` when the store cannot be read or written."""

    # --- exchanges and feedback

    def put_exchanges(self, exchanges: Iterable[Exchange]) -> None:
        """Store all of *exchanges* or none, in one transaction; their policies need not be stored."""
        ...

    def exchange(self, reply: str) -> Exchange | None:
        """Return the exchange with this reply id, the latest where there are several, ``None`` where there is none."""
        ...

    def exchanges(self, task: str, *, limit: int = 100, before: int | None = None) -> list[Exchange]:
        """Return *limit* exchanges of *task*, the newest first.

        They are counted from 0 in the order of storing; with *before*, only those with a smaller number.  Whoever
        begins at ``before=exchange_count(task)`` and goes down by *limit* reads each once, whatever is added meanwhile.
        """
        ...

    def exchange_count(self, task: str | None = None) -> int:
        """Return how many exchanges the store holds, of *task* or of all tasks."""
        ...

    def put_feedback(self, feedback: Feedback) -> None:
        """Store *feedback* on a reply that the store knows; raises ``StoreError`` for any other."""
        ...

    def feedback(self, reply: str) -> list[Feedback]:
        """Return the feedback on the reply with this id in the order of storing."""
        ...

    # --- corrections

    def put_trials(self, trials: Iterable[Trial]) -> None:
        """Store all of *trials* or none.

        One made on ``cases`` replaces the earlier one of the same task, model, method and case: calibrating again
        must not count a case twice.  Those from traffic and feedback are all kept.
        """
        ...

    def trials(self, task: str, model: str, *, limit: int = 1000) -> list[Trial]:
        """Return the last *limit* trials on *task* with *model*, the oldest first."""
        ...

    def put_detector(self, task: str, model: str, content: JsonObject) -> None:
        """Put a detector of wrong answers into service for *task* with *model*."""
        ...

    def detector(self, task: str, model: str) -> JsonObject | None:
        """Return the detector put last, ``None`` where there never was one."""
        ...

    # --- keys

    def put_key(self, key: Key) -> None:
        """Let a caller in; raises ``StoreError`` where the name or the secret is known already, revoked or not."""
        ...

    def keys(self) -> list[Key]:
        """Return all keys, revoked ones too, in the order of storing."""
        ...

    def revoke_key(self, name: str) -> None:
        """Shut the key *name* out for good; doing so twice is fine."""
        ...

    def find_key(self, sha256: str) -> Key | None:
        """Return the key whose secret has this SHA-256, ``None`` where there is none.

        A revoked one comes back as such: whoever opens the door looks at ``revoked``.
        """
        ...
