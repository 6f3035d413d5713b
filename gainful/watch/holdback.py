"""After a promotion, for ever: is the champion still no worse than the one before, and as good as when it came in?

Three comparisons, each of quality and of errors: with the former champion in the same blocks, where a hold-back stage
keeps it; with what the former champion was before it left, or, of a champion that was taken back into service, what it
was itself before it left; and with what the champion was at first.  The first alone takes a champion back.  Where one
of the others rings, the blocks from then on say whether the champion is to blame, or what callers ask: whether the
former champion fell as far.  Where nothing is held back that could say so, the champion is taken back at once.

Guarantees: without cause each alarm rings no more often than once in ``RUN_LENGTH`` comparisons or scores on average,
the last two where the bound that they hold the champion against is below the truth.  An answer that failed open, or
that the model refused, is an error; a model that was out of reach is one only beside the former champion's requests,
which it meets as often.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from gainful.core import Exchange, JsonObject
from gainful.gate import Alarm, mean_interval, proportion_interval
from gainful.store import Store
from gainful.tasks import Task
from gainful.watch.evidence import Blocks, Scorer, is_error
from gainful.watch.service import Stage

RUN_LENGTH = 10_000  # comparisons between two false alarms, on average at least
REFERENCE = 500  # known scores; a bound below their mean is what the champion is held against
ERR = 0.05  # chance to blame a champion for what callers ask, and the other way round, about
LEAST_BEFORE = 20  # known scores of the former champion, to say what it was
REFERENCE_LEVEL = 0.05  # two-sided: in 1 of 40 promotions a bound is above the truth, and its alarm rings sooner
LOOK_BACK = 200_000  # exchanges read again when a watcher starts: an alarm may begin anywhere
LOOK_BEFORE = 20_000  # exchanges before the champion came in, among which the former one's last scores are
BATCH = 500

WORSE = {"quality": "worse than the former champion", "errors": "requests fail more often than the former champion's"}
FALLEN = {"quality": "quality", "errors": "the share of requests that do not fail"}

Blame: TypeAlias = Literal["champion", "callers", ""]


class Former(NamedTuple):
    """Whose last answers the champion is held against, maybe its own, and the last exchange before it left."""

    policy: str
    row: int


class Level:
    """Whether scores stay above a reference: the given one, or a bound below the mean of the first ones."""

    def __init__(self, margin: float, reference: float | None = None) -> None:
        self.alarm = Alarm(margin, RUN_LENGTH)
        self.reference = reference
        self.known = 0
        self._first: list[float] = []

    def see(self, score: float) -> None:
        """Enter the next score, in [0, 1]."""
        self.known += 1
        if self.reference is not None:
            self.alarm.see(score - self.reference)
            return
        self._first.append(score)
        if len(self._first) == REFERENCE:
            self.reference = _lowest(self._first)


class Pairs:
    """Differences between the champion and the former one."""

    def __init__(self, margin: float) -> None:
        self.alarm = Alarm(margin, RUN_LENGTH)
        self._sum, self.n = 0.0, 0

    @property
    def mean(self) -> float | None:
        """The champion's mean score minus the former one's; ``None`` where nothing was compared."""
        return self._sum / self.n if self.n else None

    def see(self, difference: float) -> None:
        """Enter the next, in [-1, 1]."""
        self.n += 1
        self._sum += difference
        self.alarm.see(difference)


class Inquest:
    """Whom to blame for a fall below *reference*: the champion, which fell alone, or callers, who ask harder things.

    A sequential test of two likelihoods (Wald 1945, Annals of Mathematical Statistics 16, 117-186) on what comes after
    the alarm, between differences that are as large as the fall and none, with the largest *variance* they can have.
    """

    def __init__(self, reference: float, margin: float, variance: float) -> None:
        self.reference = reference
        self._margin, self._variance = margin, variance
        self._scores, self._known = 0.0, 0
        self._differences, self.n = 0.0, 0
        self._decided: Blame = ""

    def see(self, score: float) -> None:
        """Enter the champion's next score."""
        self._scores, self._known = self._scores + score, self._known + 1
        self._decide()

    def compare(self, difference: float) -> None:
        """Enter its next mean score less the former champion's."""
        self._differences, self.n = self._differences + difference, self.n + 1
        self._decide()

    @property
    def verdict(self) -> Blame:
        """Who is to blame: once decided, for good; empty while it is too early to say.

        A fall that is over before it was decided is not the champion's, so far.
        """
        return self._decided or ("callers" if self._known >= LEAST_BEFORE and self._fall >= -self._margin else "")

    @property
    def _fall(self) -> float:
        return self._scores / self._known - self.reference

    def _decide(self) -> None:
        if self._decided or self._known < LEAST_BEFORE or (fall := self._fall) >= -self._margin:
            return
        likelier = (fall * self._differences - self.n * fall * fall / 2.0) / self._variance
        if abs(likelier) >= math.log((1.0 - ERR) / ERR):
            self._decided = "champion" if likelier > 0.0 else "callers"


class HoldbackWatch:
    """Reads what *champion* answered, and what the former one did in its hold-back *stage*, where there is one.

    A champion that was in service before is no other by having been away: its first scores are those of its first time.
    """

    def __init__(
        self,
        store: Store,
        task: Task,
        champion: str | None,
        stage: Stage | None,
        since: int,
        quality: Scorer,
        former: Former | None = None,
    ) -> None:
        self._store = store
        self._task = task
        self._champion = champion
        self._quality = quality
        self._row = max(since, store.last_exchange_row() - LOOK_BACK)
        self._blocks = None if stage is None else Blocks(stage)
        self._scores: dict[str, dict[str, float | None]] = {}
        self._margin = margin = task.improving.margin
        self._inquests: dict[str, Inquest] = {}
        self.served = 0
        self._former = former
        self._came_in = 0 if former is None else former.row
        self.against_former = {name: Pairs(margin) for name in WORSE}
        self.by_itself = {name: Level(margin) for name in WORSE}
        self.as_before = {name: Level(margin, bound) for name, bound in self._before(former).items()}

    @property
    def told(self) -> JsonObject:
        """The evidence, for ledger and page."""
        quality, itself, before = self.against_former["quality"], self.by_itself["quality"], self.as_before
        return {
            "served": self.served,
            "compared": quality.n,
            "gain": quality.mean,
            "against former": quality.alarm.evidence,
            "known": itself.known,
            "reference": itself.reference,
            "by itself": itself.alarm.evidence,
            "before": before["quality"].reference if "quality" in before else None,
            "before of": self._former.policy if self._former else None,
            "as before": before["quality"].alarm.evidence if "quality" in before else None,
            "errors": {
                "compared": self.against_former["errors"].n,
                "gain": self.against_former["errors"].mean,
                "against former": self.against_former["errors"].alarm.evidence,
                "by itself": self.by_itself["errors"].alarm.evidence,
                "as before": before["errors"].alarm.evidence if "errors" in before else None,
            },
        }

    def read(self, until: float) -> None:
        """Take in what was served since the last time, up to the first request that came after Unix time *until*."""
        while rows := self._store.exchanges_after(self._task.name, self._row, limit=BATCH):
            for row, exchange in rows:
                if exchange.at > until:
                    return
                self._row = row
                scores = self._scored(exchange)
                if _is_champions(exchange) and exchange.policy == self._champion:
                    self._see_itself(row, exchange, scores)
                if self._blocks is not None and exchange.seat is not None:
                    if exchange.seat.holdback != self._blocks.stage.id:
                        continue
                    self._scores[exchange.id] = scores
                    for block in self._blocks.add(exchange):
                        for name, difference in self._blocks.difference(block, self._scores).items():
                            self.against_former[name].see(-difference)
                            if name in self._inquests:
                                self._inquests[name].compare(-difference)
                        for done in block:
                            del self._scores[done.id]

    def _scored(self, exchange: Exchange) -> dict[str, float | None]:
        failed = is_error(exchange)
        return {"quality": None if failed else self._quality(exchange), "errors": float(not failed)}

    def _see_itself(self, row: int, exchange: Exchange, scores: Mapping[str, float | None]) -> None:
        is_since = row > self._came_in
        self.served += is_since
        for name, score in scores.items():
            if score is None or (name == "errors" and exchange.status >= 500):  # the model's, whoever asks it
                continue
            if name in self._inquests:
                self._inquests[name].see(score)
            self.by_itself[name].see(score)
            if name in self.as_before and is_since:
                self.as_before[name].see(score)
            self._inquire(name)

    def _inquire(self, name: str) -> None:
        fallen = self._fallen(name)
        if fallen is not None and fallen.reference is not None and self._blocks is not None:
            others = self._blocks.stage.block - 1  # the champion's requests in a block
            variance = 0.25 * (1.0 + 1.0 / others)
            self._inquests.setdefault(name, Inquest(fallen.reference, self._margin, variance))

    def _before(self, former: Former | None) -> dict[str, float]:
        """Return bounds below what the former champion's last answers were worth, by name, where enough is known."""
        if former is None:
            return {}
        last: dict[str, deque[float]] = {name: deque(maxlen=REFERENCE) for name in WORSE}
        row = max(0, former.row - LOOK_BEFORE)
        while row < former.row and (rows := self._store.exchanges_after(self._task.name, row, limit=BATCH)):
            for row, exchange in rows:
                if row > former.row:
                    break
                if _is_champions(exchange) and exchange.policy == former.policy and exchange.status < 500:
                    for name, score in self._scored(exchange).items():
                        if score is not None:
                            last[name].append(score)
        return {name: _lowest(scores) for name, scores in last.items() if len(scores) >= LEAST_BEFORE}

    @property
    def takes_back(self) -> str:
        """Why the champion is to be taken back; empty where it is not."""
        for name, pairs in self.against_former.items():
            if pairs.alarm.rings:
                return f"{WORSE[name]}, on {pairs.n} comparisons in the hold-back"
        for name, inquest in self._inquests.items():
            if inquest.verdict == "champion":
                return f"{FALLEN[name]} fell below {inquest.reference:.3f}, and the former champion's did not"
        for name in WORSE if self._blocks is None else ():
            if (fallen := self._fallen(name)) is not None:
                return f"{FALLEN[name]} fell below {fallen.reference:.3f}, and nothing is held back to compare with"
        return ""

    @property
    def drifts(self) -> str:
        """What is worse than it was whoever answers, "quality" or "errors"; empty where nothing is."""
        if self._blocks is None:
            return next((name for name in WORSE if self._fallen(name) is not None), "")
        return next((name for name, inquest in self._inquests.items() if inquest.verdict == "callers"), "")

    def _fallen(self, name: str) -> Level | None:
        levels = (levels[name] for levels in (self.as_before, self.by_itself) if name in levels)
        return next((level for level in levels if level.alarm.rings), None)


def _is_champions(exchange: Exchange) -> bool:
    return exchange.seat is None or exchange.seat.arm == "champion"


def _lowest(scores: Sequence[float]) -> float:
    """Return a bound below the mean that *scores* come from; exact for pass/fail."""
    if set(scores) <= {0.0, 1.0}:
        return proportion_interval(int(sum(scores)), len(scores), REFERENCE_LEVEL)[0]
    return mean_interval(list(scores), REFERENCE_LEVEL)[0]
