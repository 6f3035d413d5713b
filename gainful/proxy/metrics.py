"""What is counted and timed, in Prometheus' text format.

Guarantees: the workers of one server show the same figures, the sums over all of them, the dead ones' counts included;
labels are tasks, methods and a few fixed words, so that the number of series is bounded whatever callers send.  What
callers are served under tasks of their own counts as the shared task's: any key may read figures, and need not learn
who else calls.  Sharing needs the environment variable PROMETHEUS_MULTIPROC_DIR, an empty folder of the server's, set
before this module is imported in a worker; without it a process counts for itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Literal, Protocol, TypeAlias, TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.values import ValueClass

from gainful import core
from gainful.core import Arm, Usage, VerdictWord
from gainful.tasks.own import shared_name
from gainful.tasks.serving import Method

ADDED_S = (0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
UPSTREAM_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

T = TypeVar("T", Counter, Histogram)
Level: TypeAlias = Literal["running", "waiting", "recorder_queue", "shadows", "breaker"]
_LEVELS: dict[Level, str] = {
    "running": "Requests being answered",
    "waiting": "Requests waiting for a turn",
    "recorder_queue": "Replies waiting for their row in the store",
    "shadows": "Shadows waiting or under way",
    "breaker": "The worst circuit breaker: 0 closed, 1 half-open, 2 open",
}

WORST: Level = "breaker"  # of all workers the worst counts; the other levels are summed
NOTHING = Usage()
_VERDICTS = frozenset(get_args(VerdictWord))
_METHODS = frozenset(get_args(Method))
_ERRORS = frozenset(n for n, kind in vars(core).items() if isinstance(kind, type) and issubclass(kind, Exception))
_IS_SHARED: bool = ValueClass._multiprocess


class Answered(Protocol):
    """What is known of a reply when it leaves; ``failure`` names the kind of error that made it fail open."""

    @property
    def verdict(self) -> str: ...

    @property
    def correction(self) -> str: ...

    @property
    def failure(self) -> str: ...

    @property
    def usage(self) -> Usage: ...


class Metrics:
    """One worker's figures, and through ``render`` all workers'."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()

        def counter(name: str, words: str, *labels: str) -> Counter:
            return Counter(f"gainful_{name}", words, labels, registry=own)

        def histogram(name: str, words: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"gainful_{name}", words, ["task"], registry=own, buckets=buckets)

        self._requests = counter(
            "requests", "Chat requests that were answered, and all that were refused, by status", "task", "status"
        )
        self._added = histogram("added_seconds", "Time spent beside the model", ADDED_S)
        self._upstream = histogram("model_seconds", "Time of the model", UPSTREAM_S)
        self._verdicts = counter("verdicts", "Replies by verdict", "task", "verdict")
        self._corrections = counter("corrections", "Corrections tried", "task", "method", "outcome")
        self._calls = counter("model_calls", "Model calls", "task", "purpose")
        self._tokens = counter("tokens", "Tokens spent", "task", "purpose", "kind")
        self._cost = counter("cost_usd", "Money spent, where prices are known", "task", "purpose")
        self._failed_open = counter("failed_open", "Replies that were not checked or not stored", "task", "reason")
        self._seated = counter("seated", "Chat requests by who answers, and how it ended", "task", "arm", "outcome")
        self._dropped = counter("dropped", "Rows of errors and shadows given up under load", "task", "what")
        self._shed = counter("shed", "Requests turned away", "reason")
        self._levels = {
            level: Gauge(
                f"gainful_{level}", words, registry=own, multiprocess_mode="livemax" if level == WORST else "livesum"
            )
            for level, words in _LEVELS.items()
        }
        self._watched: dict[Level, Callable[[], float]] = {}

    def answered(
        self, task: str, answered: Answered, added_s: float, upstream_s: float, extra: Usage = NOTHING
    ) -> None:
        """Count a reply.  *extra* is the part of its usage that was spent beyond the draft."""
        _series(self._requests, task, "200").inc()
        _series(self._added, task).observe(added_s)
        _series(self._upstream, task).observe(upstream_s)
        _series(self._verdicts, task, _one_of(answered.verdict, _VERDICTS)).inc()
        if answered.correction:
            self.tried(task, answered.correction, "replaced")
        if answered.failure:
            _series(self._failed_open, task, _one_of(answered.failure, _ERRORS)).inc()
        self._spent(task, "draft", answered.usage, extra)
        if extra.calls:
            self._spent(task, "correction", extra, NOTHING)

    def tried(self, task: str, method: str, outcome: Literal["replaced", "kept", "late"]) -> None:
        """Count a correction whose answer replaced the draft, agreed with it or lost to it, or came too late."""
        _series(self._corrections, task, _one_of(method, _METHODS), outcome).inc()

    def refused(self, task: str, status: int) -> None:
        """Count a request that got an error; *task* is empty where no task was found for it."""
        _series(self._requests, task, str(status) if 100 <= status < 600 else "other").inc()

    def seated(self, task: str, arm: Arm, outcome: Literal["answered", "error"]) -> None:
        """Count what came of a request that *arm* was to answer."""
        _series(self._seated, task, arm, outcome).inc()

    def shadowed(self, task: str, usage: Usage) -> None:
        """Count what a challenger spent that answered unheard."""
        self._spent(task, "shadow", usage, NOTHING)

    def dropped(self, task: str, what: Literal["error", "shadow"]) -> None:
        """Count what would have been kept or asked, had there been time for it."""
        _series(self._dropped, task, what).inc()

    def shed(self, reason: Literal["full", "rate"]) -> None:
        """Count a request that was turned away at the door, ``Busy.reason``."""
        self._shed.labels(reason).inc()

    def watch(self, level: Level, read: Callable[[], float]) -> None:
        """Show what *read* returns whenever the levels are looked at."""
        self._watched[level] = read

    def look(self) -> None:
        """Read this worker's levels; once a second, so that another worker shows them true to a second."""
        for level, read in self._watched.items():
            self._levels[level].set(read())

    def render(self) -> bytes:
        """Return all workers' figures."""
        self.look()
        if not _IS_SHARED:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)

    def _spent(self, task: str, purpose: str, usage: Usage, less: Usage) -> None:
        _series(self._calls, task, purpose).inc(max(0, usage.calls - less.calls))
        prompt, completion = usage.prompt_tokens - less.prompt_tokens, usage.completion_tokens - less.completion_tokens
        _series(self._tokens, task, purpose, "prompt").inc(max(0, prompt))
        _series(self._tokens, task, purpose, "completion").inc(max(0, completion))
        if usage.cost_usd is not None:  # without a price there is no series: unknown is not free
            _series(self._cost, task, purpose).inc(max(0.0, usage.cost_usd - (less.cost_usd or 0.0)))


def forget(pid: int) -> None:
    """Take a dead worker's levels out; what it counted stays."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        mark_process_dead(pid)  # type: ignore[no-untyped-call]


@cache  # a metric finds its series in 1.5 microseconds, this in a tenth of it
def _series(metric: T, task: str, *labels: str) -> T:
    return metric.labels(shared_name(task), *labels)


def _one_of(word: str, known: frozenset[str]) -> str:
    return word if word in known else "other"
