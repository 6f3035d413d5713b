"""What every store remembers of learning from traffic: cases, repairs, probes, tallies, and who may learn now.

Guarantees, for every store: a write is committed when its call returns and survives the death of the process; what an
exchange adds is added once, for the cursor moves in the same transaction; a case's side, its first caller and its
quarantine never change.  Whether a text may be stored was decided before it became an exchange.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from gainful.core import Answer, Arm, Case, Exchange, JsonObject, StoreError, Value
from gainful.store.traffic import Feedback

Side: TypeAlias = Literal["dev", "held-out", "never"]
"""What a case is for: learning; confirmations alone; nothing of ours, ever, so that others can judge us by it."""

Signal: TypeAlias = Literal["check", "feedback", "judged", ""]
"""Who said whether an answer was right: a trusted check, the caller, a check that nobody trusts, or nobody.

What is only judged guides a search and proves nothing.
"""


class Banked(Value, frozen=True):
    """A case that traffic brought, and how it was last answered.

    ``id`` is the digest of its folded words, the same for all copies; ``key`` is the caller who asked it first.
    ``score`` in [0, 1] is ``None`` where nobody knows; ``group`` is the error's, empty where there is none.  ``target``
    stands in the case where a caller told the right answer.  ``quarantine`` says why nothing learns from it, empty
    where something may.  ``opened`` names the confirmation that has used it up.  ``latest_key`` is the caller whose
    request, or whose word on it, the latest answer and score are; ``target_key`` told the target.
    """

    id: str
    case: Case
    side: Side
    at: float
    last_at: float
    key: str = ""
    signal: Signal = ""
    score: float | None = None
    group: str = ""
    policy: str = ""
    reply: str = ""
    value: Any = None
    count: int = 1
    quarantine: str = ""
    opened: str = ""
    latest_key: str = ""
    target_key: str = ""

    @property
    def hands(self) -> frozenset[str]:
        """The callers whose words the case is or is judged by: who asked it first, told its target or its score.

        Whoever only asks it again has no hand in it: or anybody could use up the share of a key that caps it by.
        """
        told = {self.target_key} if self.case.target is not None else set()
        judged = {self.latest_key} if self.signal == "feedback" else set()
        return frozenset({self.key} | told | judged)


class Repair(Value, frozen=True):
    """An error that was corrected: what was answered, what is right, and who said so.  ``id`` is the case's."""

    id: str
    case: Case
    wrong: Any
    right: Any
    signal: Signal
    at: float
    key: str = ""
    policy: str = ""


class Probe(Value, frozen=True):
    """A case asked at three times: is the model behind the name still the same?

    ``answers`` are those had so far, 1 to 3, the first one first; each has its score in [0, 1], ``None`` where nobody
    knows, and the Unix time at which it was ``asked``.  ``id`` is the case's, ``at`` the first of the times.
    """

    id: str
    case: Case
    policy: str
    model: str
    answers: tuple[Answer, ...]
    scores: tuple[float | None, ...]
    asked: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.answers) <= 3 or not len(self.answers) == len(self.scores) == len(self.asked):
            counts = f"{len(self.answers)} answers, {len(self.scores)} scores and {len(self.asked)} times"
            raise StoreError(f"a probe of case {self.id!r} has {counts}; it needs 1 to 3, as many of each")

    @property
    def at(self) -> float:
        return self.asked[0]

    def with_answer(self, answer: Answer, score: float | None, at: float) -> Probe:
        """Return the probe with one more answer, asked at Unix time *at*."""
        more = {"answers": (*self.answers, answer), "scores": (*self.scores, score), "asked": (*self.asked, at)}
        return msgspec.structs.replace(self, **more)


class Tally(Value, frozen=True):
    """What one hour's requests under one policy and arm came to; ``hour`` is Unix time // 3600.

    ``known`` requests have a score, and ``right`` is the sum of these.  ``cost_usd`` is ``None`` without a price.  What
    corrections took is part of ``calls``, tokens and ``cost_usd``; ``None`` where it was not counted.
    """

    hour: int
    policy: str
    arm: Arm
    requests: int = 0
    known: int = 0
    right: float = 0.0
    corrected: int = 0
    failed_open: int = 0
    errors: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    added_ms: float = 0.0
    correction_calls: int | None = None
    correction_tokens: int | None = None
    correction_usd: float | None = None


class Standing(NamedTuple):
    """How something stood at Unix time ``at``."""

    at: float
    content: JsonObject


class Lease(NamedTuple):
    """The right to do something for a while; a later lease of the same name has a larger ``token``."""

    name: str
    holder: str
    token: int
    until: float


class Forgotten(NamedTuple):
    """How many of each were removed, and the ids of policies that carried some of it."""

    exchanges: int
    cases: int
    repairs: int
    probes: int
    policies: tuple[str, ...]


class Bank(Protocol):
    """What is remembered of learning from traffic.  Every method raises ``StoreError`` as the others do."""

    # --- reading what was served, from its oldest to its newest

    def exchanges_after(self, task: str, after: int, *, limit: int = 1000) -> list[tuple[int, Exchange]]:
        """Return the next *limit* exchanges of *task* behind row *after* (0: from the first), each with its row."""
        ...

    def last_exchange_row(self) -> int:
        """Return the row of the latest exchange of any task, 0 where there is none."""
        ...

    def feedback_after(self, task: str, after: int, *, limit: int = 1000) -> list[tuple[int, Feedback]]:
        """Return the next *limit* pieces of feedback on replies of *task* behind row *after*, each with its row."""
        ...

    # --- taking it in

    def cursor(self, task: str, name: str) -> int:
        """Return how far the reader *name* has come, 0 where it has not begun."""
        ...

    def take_in(
        self, task: str, name: str, upto: int, cases: Iterable[Banked] = (), tallies: Iterable[Tally] = ()
    ) -> None:
        """Move the cursor *name* to *upto*, enter *cases* and add *tallies* up: all of it or nothing.

        Of a case that is known already its ``count`` grows, and ``last_at``, ``signal``, ``score``, ``group``,
        ``policy``, ``reply``, ``value`` and ``latest_key`` become the new ones, its target and ``target_key`` too where
        the new one has a target and no confirmation has used the case up; nothing else changes.  Nothing happens where
        the cursor stands at *upto* or beyond.
        """
        ...

    def banked(
        self, task: str, side: Side, *, limit: int = 1000, only_free: bool = True, only_targets: bool = False
    ) -> list[Banked]:
        """Return the latest *limit* cases of a side, by ``last_at``, the newest first.

        With *only_free* those alone that are neither quarantined nor opened; with *only_targets* those alone of which
        a caller told the right answer.
        """
        ...

    def find_banked(self, task: str, ids: Iterable[str]) -> list[Banked]:
        """Return the cases with these ids, in their order; those that are not there any more are left out."""
        ...

    def count_banked(self, task: str, side: Side, *, only_free: bool = True, only_targets: bool = False) -> int:
        """Return how many there are."""
        ...

    def open_banked(
        self, task: str, count: int, confirmation: str, *, only_targets: bool = False, most_of_a_key: float = 1.0
    ) -> list[Banked]:
        """Return *count* free held-out cases for *confirmation*, which are used up by that, in the order of their ids.

        They are drawn by digests of *confirmation* and their ids: as good as at random, and nobody who words a case
        can know it beforehand.  Where there are several keys, one has a hand in more than ``most_of_a_key`` of them, or
        its equal part, only if the others bring too few; who asked a case first and who told its target count, not who
        said how it was answered before, for it is answered anew.  Asked again, the same confirmation gets the same
        cases with the same targets.  Raises ``StoreError`` where there are not as many, or for another *count* than
        before.
        """
        ...

    def put_repairs(self, task: str, repairs: Iterable[Repair]) -> None:
        """Store *repairs*; a later one of the same case replaces the earlier."""
        ...

    def repairs(self, task: str, *, limit: int = 1000) -> list[Repair]:
        """Return the latest *limit* repairs, the newest first."""
        ...

    def put_probes(self, task: str, probes: Iterable[Probe]) -> None:
        """Store *probes*; one of the same case and time ``at`` replaces the earlier."""
        ...

    def probes(self, task: str, *, limit: int = 1000) -> list[Probe]:
        """Return the last *limit* probes, the oldest first."""
        ...

    def tallies(self, task: str, *, since_hour: int = 0) -> list[Tally]:
        """Return the tallies of *task* from an hour on, the oldest first."""
        ...

    def put_standing(self, task: str, name: str, at: float, content: JsonObject) -> None:
        """Keep how *name* stands at Unix time *at*, in place of what was kept of it before."""
        ...

    def standing(self, task: str, name: str) -> Standing | None:
        """Return how *name* stood last, ``None`` where nobody has said so."""
        ...

    # --- who may learn now

    def take_lease(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        """Take or renew the lease *name* for *ttl_s* seconds; ``None`` while another holder has it.

        A holder that renews in time keeps its token; whoever takes it over gets a larger one.
        """
        ...

    def find_lease(self, name: str) -> Lease | None:
        """Return the lease *name* as somebody holds it now, ``None`` where nobody does."""
        ...

    def end_lease(self, lease: Lease) -> None:
        """Give *lease* back before its time; nothing happens where it is another's by now."""
        ...

    # --- forgetting

    def brought_by(self, key: str) -> list[str]:
        """Return the ids of the cases and repairs that the caller *key* brought, both the bank's and the cases' own.

        Among them are cases of others' whose target is what *key* told: what was learned there was learned from that.
        """
        ...

    def forget_key(self, key: str, policies: Sequence[str] = ()) -> Forgotten:
        """Remove all that the caller *key* brought, in one transaction, and leave no byte of it on the disk.

        Exchanges and feedback, cases, repairs and probes go, attempts on these cases with their remembered calls, and
        what records of runs quote of them: whoever resumes such a run is told that it no longer repeats itself.  A case
        of another's stays, and loses the target that *key* told, all that stands on this target, and the answer and
        score that came of *key*'s request or word.
        *policies*, and those that show a forgotten case, are blanked out: their ids stay in ledgers and history, their
        words and attempts are gone, and ``policy`` raises ``StoreError`` for them.  Raises it, and forgets nothing,
        where one of them is a task's champion, or where no such policy is stored.

        No row number of what was removed comes again.  Nobody can write while the file is written anew.  Whoever works
        with what is being forgotten, a run or a server, must have let go of it, or may store it again.
        """
        ...
