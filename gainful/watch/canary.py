"""A challenger on its way in: is it harmless enough to go on, harmful enough to end, or is it too early to say?

Guarantees: all live evidence on one challenger counts together, from its first shadow on; a stage goes on only while
the evidence says that the challenger is not worse by the margin, no guard has rung, and the stage itself and every
critical slice have been seen; missing evidence means hold.  The same exchanges give the same verdict, so a watcher that
died reads them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from gainful.core import JsonObject
from gainful.gate import Canary
from gainful.store import Store
from gainful.tasks import Task
from gainful.watch.evidence import CRITICAL, Blocks, Scorer, Scores
from gainful.watch.service import Stage

Verdict: TypeAlias = Literal["roll back", "go on", "hold"]

LEVEL_QUALITY = 0.045  # chance that a harmless challenger is ever taken back for its quality
LEVEL_GUARDS = 0.005  # the same for all guards together: 5 % in all; what they look for is seldom subtle
LEAST_SEEN = 10  # differences in quality that a stage must bring of its own before the next
LEAST_CRITICAL = 10  # comparisons of each critical slice, over all stages, before a challenger goes on
BATCH = 500
TOLD = ("n", "mean", "harm", "worth", "harm_needed", "worth_needed")  # of each test, for ledger and page


class CanaryWatch:
    """Reads the exchanges of all *stages* of one challenger, the current one last."""

    def __init__(self, store: Store, task: Task, stages: Sequence[Stage], quality: Scorer) -> None:
        self._store = store
        self._task = task
        self._row = stages[0].row
        self._blocks = {stage.id: Blocks(stage) for stage in stages}
        self._seen = {stage.id: 0 for stage in stages}
        self._current = stages[-1]
        self._scores = Scores(task.improving, quality)
        self._scored: dict[str, dict[str, float | None]] = {}
        guards = len(self._scores.names) - 1
        levels = {name: LEVEL_QUALITY if name == "quality" else LEVEL_GUARDS / guards for name in self._scores.names}
        self.tests = {name: Canary(task.improving.margin, level_harm=level) for name, level in levels.items()}

    def goes_on_to(self, stage: Stage) -> bool:
        """Go on to *stage* where it is the present one, or the same challenger's next; else say ``False``."""
        if stage.id == self._current.id:
            return True
        if (stage.policy, stage.step) != (self._current.policy, self._current.step + 1):
            return False
        self._blocks[stage.id] = Blocks(stage)
        self._seen[stage.id] = 0
        self._current = stage
        return True

    def read(self, until: float) -> None:
        """Take in what was served since the last time, up to the first request that came after Unix time *until*."""
        while rows := self._store.exchanges_after(self._task.name, self._row, limit=BATCH):
            for row, exchange in rows:
                if exchange.at > until:
                    return
                self._row = row
                blocks = None if exchange.seat is None else self._blocks.get(exchange.seat.canary)
                if blocks is None:
                    continue
                self._scored[exchange.id] = self._scores.of(exchange)
                for block in blocks.add(exchange):
                    for name, difference in blocks.difference(block, self._scored).items():
                        self.tests[name].see(difference)
                        self._seen[blocks.stage.id] += name == "quality"
                    for done in block:
                        del self._scored[done.id]

    @property
    def seen(self) -> int:
        """How many differences in quality the current stage has brought."""
        return self._seen[self._current.id]

    @property
    def told(self) -> JsonObject:
        """All evidence, for ledger and page."""
        return {name: {field: getattr(test, field) for field in TOLD} for name, test in self.tests.items() if test.n}

    def verdict(self) -> tuple[Verdict, str]:
        """Return what is to be done with the challenger, and why in words."""
        for name, test in self.tests.items():
            if test.judge() == "roll back":
                return "roll back", f"{name}: worse than the champion by more than the margin, on {test.n} comparisons"
        for name, test in self.tests.items():
            if name.startswith(CRITICAL) and test.n < LEAST_CRITICAL:
                return "hold", f"{name}: {test.n} comparisons, {LEAST_CRITICAL} are needed"
        if self.seen >= LEAST_SEEN and self.tests["quality"].judge() == "go on":
            return "go on", f"quality: not worse by the margin, on {self.tests['quality'].n} comparisons"
        return "hold", f"{self.seen} comparisons in this stage, too few or undecided"
