"""After a promotion, for ever: is the champion still no worse than the one before, and as good as when it came in?

Guarantees: without cause the alarms ring no more often than once in ``RUN_LENGTH`` comparisons or scores on average,
the one on quality itself where the bound it is held against is below the truth; a champion that is taken back was worse
in the comparison, or bad by itself with the comparison against it.
"""

from __future__ import annotations

from collections.abc import Sequence

from gainful.core import JsonObject
from gainful.gate import Alarm, mean_interval, proportion_interval
from gainful.store import Store
from gainful.tasks import Task
from gainful.watch.evidence import Blocks, Scorer
from gainful.watch.service import Stage

RUN_LENGTH = 10_000  # comparisons between two false alarms, on average at least
REFERENCE = 500  # first known scores; a bound below their mean is what the champion is held against afterwards
REFERENCE_LEVEL = 0.05  # two-sided: in 1 of 40 promotions the bound is above the truth, and the alarm rings sooner
LOOK_BACK = 200_000  # exchanges read again when a watcher starts: an alarm may begin anywhere
BATCH = 500


class HoldbackWatch:
    """Reads what *champion* answered, and what the former one did in its hold-back *stage*, where there is one.

    A champion that was in service before is held against what it was then, too: it is no other by having been away.
    """

    def __init__(
        self, store: Store, task: Task, champion: str | None, stage: Stage | None, since: int, quality: Scorer
    ) -> None:
        self._store = store
        self._task = task
        self._champion = champion
        self._quality = quality
        self._row = max(since, store.last_exchange_row() - LOOK_BACK)
        self._blocks = None if stage is None else Blocks(stage)
        self._scores: dict[str, dict[str, float | None]] = {}
        margin = task.improving.margin
        self.against_former = Alarm(margin, RUN_LENGTH)
        self.by_itself = Alarm(margin, RUN_LENGTH)
        self._sum, self.compared = 0.0, 0
        self._first: list[float] = []
        self.reference: float | None = None  # what quality is held against, once enough is known
        self.known = 0

    @property
    def gain(self) -> float | None:
        """The champion's mean score minus the former one's, in comparisons so far; ``None`` where there is none."""
        return self._sum / self.compared if self.compared else None

    @property
    def told(self) -> JsonObject:
        """The evidence, for ledger and page."""
        return {
            "compared": self.compared,
            "gain": self.gain,
            "against former": self.against_former.evidence,
            "known": self.known,
            "reference": self.reference,
            "by itself": self.by_itself.evidence,
        }

    def read(self, until: float) -> None:
        """Take in what was served since the last time, up to the first request that came after Unix time *until*."""
        while rows := self._store.exchanges_after(self._task.name, self._row, limit=BATCH):
            for row, exchange in rows:
                if exchange.at > until:
                    return
                self._row = row
                arm = "champion" if exchange.seat is None else exchange.seat.arm
                score = None if exchange.status >= 400 else self._quality(exchange)
                if arm == "champion" and exchange.policy == self._champion and score is not None:
                    self._see_itself(score)
                if self._blocks is not None and exchange.seat is not None:
                    if exchange.seat.holdback != self._blocks.stage.id:
                        continue
                    self._scores[exchange.id] = {"quality": score}
                    for block in self._blocks.add(exchange):
                        found = self._blocks.difference(block, self._scores).get("quality")
                        if found is not None:
                            self._see_former(-found)
                        for done in block:
                            del self._scores[done.id]

    def _see_itself(self, score: float) -> None:
        self.known += 1
        if self.reference is not None:
            self.by_itself.see(score - self.reference)
            return
        self._first.append(score)
        if len(self._first) == REFERENCE:
            self.reference = _lowest(self._first)

    def _see_former(self, difference: float) -> None:
        self.compared += 1
        self._sum += difference
        self.against_former.see(difference)

    @property
    def takes_back(self) -> str:
        """Why the champion is to be taken back; empty where it is not."""
        if self.against_former.rings:
            return f"worse than the former champion, on {self.compared} comparisons in the hold-back"
        if self.by_itself.rings and self.gain is not None and self.gain < 0.0:
            return f"quality fell below {self.reference:.3f}, and the hold-back speaks for the former champion"
        return ""

    @property
    def drifts(self) -> bool:
        """Whether quality fell below what it was when the champion came in."""
        return self.by_itself.rings


def _lowest(scores: Sequence[float]) -> float:
    """Return a bound below the mean that *scores* come from; exact for pass/fail."""
    if set(scores) <= {0.0, 1.0}:
        return proportion_interval(int(sum(scores)), len(scores), REFERENCE_LEVEL)[0]
    return mean_interval(scores, REFERENCE_LEVEL)[0]
