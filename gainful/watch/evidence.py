"""Live evidence: the exchanges of a stage put back into their blocks, and what each block says of the two policies.

Guarantees: a block counts once, whole, as the seats were drawn; a score that nobody knows is no evidence, neither for
nor against; what is compared next never depends on what it will say.  A guard is a score like quality is: 1 where a
request was no error, not slow, not dear, and an answer that failed open is an error; so one test judges them all
(``gate.canary``).  Where callers' words are proof, those that come within ``feedback_s`` of a request count, and the
request is not looked at before: which answers are judged must not depend on how often one looks.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import fmean

import msgspec

from gainful.core import Answer, Case, CheckError, Exchange, judge, lowest
from gainful.store import Feedback, Store
from gainful.tasks import Task
from gainful.tasks.improving import Improving
from gainful.watch.intake import known, stored_case
from gainful.watch.service import Stage
from gainful.watch.traffic_task import needs_targets, proof_checks

CRITICAL = "critical: "  # begins the name of a slice's score
SHADOW = "-shadow"  # ends the id of an unheard reply, behind the id of the heard one it goes with
GRACE_BLOCKS = 2  # a block is closed when its lane is so many further on: replies of one lane overtake one another
FIRST_USUAL = 20  # champion's requests before it is known what is slow or dear

Scorer = Callable[[Exchange], float | None]
"""Gives one request's score in [0, 1], ``None`` where it is unknown."""


@dataclass
class Usual:
    """What is usual of the champion, as a running mean of its requests so far, so that nothing looks ahead."""

    times: float
    n: int = 0
    mean: float = 0.0

    def add(self, value: float) -> None:
        """Enter one more of the champion's."""
        self.n += 1
        self.mean += (value - self.mean) / self.n

    def score(self, value: float) -> float | None:
        """Return 1 where *value* is at most ``times`` the usual, else 0; unknown while little is usual."""
        return None if self.n < FIRST_USUAL else float(value <= self.times * self.mean)


class Scores:
    """How the requests of one comparison are scored, by name: quality, and the guards."""

    def __init__(self, improving: Improving, quality: Scorer) -> None:
        self._slow, self._dear = Usual(improving.most_slower), Usual(improving.most_dearer)
        self._critical = {name: re.compile(pattern) for name, pattern in improving.critical.items()}
        self._quality = quality

    @property
    def names(self) -> list[str]:
        """What is scored."""
        return ["quality", "errors", "latency", "cost", *(f"{CRITICAL}{name}" for name in self._critical)]

    def of(self, exchange: Exchange) -> dict[str, float | None]:
        """Return the scores of one request, and let the champion's say what is usual."""
        failed = is_error(exchange)
        quality = None if failed else self._quality(exchange)
        elapsed_ms, tokens = exchange.usage.elapsed_ms, _tokens(exchange)
        scores: dict[str, float | None] = {"quality": quality, "errors": float(not failed)}
        scores["latency"] = None if failed else self._slow.score(elapsed_ms)
        scores["cost"] = None if failed else self._dear.score(tokens)
        for name, pattern in self._critical.items():
            scores[f"{CRITICAL}{name}"] = quality if _speaks_of(pattern, stored_case(exchange)) else None
        if not failed and exchange.seat is not None and exchange.seat.arm == "champion":
            self._slow.add(elapsed_ms)
            self._dear.add(tokens)
        return scores


def is_error(exchange: Exchange) -> bool:
    """Whether a request failed, or was answered without what its policy asks for."""
    return exchange.status >= 400 or exchange.verdict == "failed-open"


def quality_of(store: Store, task: Task) -> Scorer:
    """Return what scores the quality of a task's replies: trusted checks, and callers where they count as proof.

    Nobody heard a shadow: it is judged by the right answer that was told of the reply it goes with.
    """

    def quality(exchange: Exchange) -> float | None:
        score = known(exchange).score
        if score is not None or not task.improving.trust_feedback:
            return score
        is_shadow = exchange.seat is not None and exchange.seat.arm == "shadow"
        heard = exchange.id.removesuffix(SHADOW) if is_shadow else exchange.id
        last = exchange.at + task.improving.feedback_s
        told = next((one for one in reversed(store.feedback(heard)) if one.at <= last), None)
        if told is None:
            return None
        return _by_target(store, task, exchange, told) if is_shadow else told.score

    return quality


def settled_at(improving: Improving, now: float) -> float:
    """Return the Unix time up to which requests can be scored: what is still said of those will not count."""
    return now - improving.feedback_s if improving.trust_feedback else math.inf


def _by_target(store: Store, task: Task, shadow: Exchange, told: Feedback) -> float | None:
    """Return the score of a shadow by the right answer that a caller told, ``None`` where there is none to go by."""
    case, heard = stored_case(shadow), store.exchange(told.reply)
    right = told.target if told.target is not None else (heard.value if heard and told.score == 1.0 else None)
    if case is None or right is None or not needs_targets(task):
        return None
    try:
        case = msgspec.structs.replace(case, target=right)
        return lowest(judge(proof_checks(task), case, Answer(text="", value=shadow.value)))
    except CheckError:  # a caller's target can be anything, and one that no answer could equal says nothing
        return None


def _tokens(exchange: Exchange) -> float:
    return exchange.usage.prompt_tokens + exchange.usage.completion_tokens


def _speaks_of(pattern: re.Pattern[str], case: Case | None) -> bool:
    return case is not None and pattern.search(case.text) is not None


Difference = Mapping[str, float]
"""The other policy's score minus the champion's mean in the same block, in [-1, 1], by name, where both are known."""


@dataclass
class Blocks:
    """The blocks of one stage, put together from exchanges in the order in which they were stored."""

    stage: Stage
    _open: dict[tuple[str, int], list[Exchange]] = field(default_factory=dict)
    _newest: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, exchange: Exchange) -> Iterator[list[Exchange]]:
        """Enter one exchange of this stage, and yield the blocks that it completes or leaves behind."""
        seat = exchange.seat
        if seat is None or self.stage.id not in (seat.canary, seat.holdback):
            return
        # In a shadow each request that was answered twice is a block of its own.
        number = seat.number if self.stage.mode == "shadow" else seat.number // self.stage.block
        place = seat.lane, number
        block = self._open.setdefault(place, [])
        block.append(exchange)
        self._newest[seat.lane] = max(self._newest[seat.lane], number)
        whole = 2 if self.stage.mode == "shadow" else self.stage.block
        grace = self.stage.block * GRACE_BLOCKS if self.stage.mode == "shadow" else GRACE_BLOCKS
        if len(block) == whole:
            yield self._open.pop(place)
        elif len(self._open) > whole * 4:
            for old in [p for p in self._open if p[1] < self._newest[p[0]] - grace]:
                yield self._open.pop(old)

    def difference(self, block: list[Exchange], scored: Mapping[str, Mapping[str, float | None]]) -> Difference:
        """Return what *block* says, by the scores of its exchanges' ids."""
        other = {"shadow": "shadow", "canary": "challenger", "holdback": "former"}[self.stage.mode]
        ours = [scored[e.id] for e in block if e.seat is not None and e.seat.arm == other]
        theirs = [scored[e.id] for e in block if e.seat is not None and e.seat.arm == "champion"]
        found = {}
        for name in {name for scores in (*ours, *theirs) for name in scores}:
            one = [score for scores in ours if (score := scores[name]) is not None]
            all_others = [score for scores in theirs if (score := scores[name]) is not None]
            if one and all_others:
                found[name] = fmean(one) - fmean(all_others)
        return found
