"""How a task improves while it is served: when to try, how a challenger comes in, what is watched afterwards."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from gainful.core import TaskError, Value


class Improving(Value, frozen=True):
    """The ``[improve]`` table of a task file.

    ``canaries`` are texts that no request has a reason to hold: nothing learns from one that does.

    A run starts once ``after_errors`` new errors of one group have come, or ``every_hours``; runs, probes and shadows
    together may make ``calls_per_day`` and take ``usd_per_day``, which needs a price.  A proven challenger first
    answers a share ``shadow`` of requests unheard (0: it does not), then callers, in the shares of ``ramp``; it may be
    worse than the champion by less than ``margin``, in [0, 1) of score; requests that take ``most_slower`` times the
    champion's usual time, or ``most_dearer`` times its usual tokens, count against it.  ``holdback`` is the share that
    stays on the former champion.  ``critical`` names patterns: requests whose words match one are watched on their own.
    ``trust_feedback``: what callers say counts as proof; of challenger and champion in service only what they say
    within ``feedback_s`` of a request, and a request is not looked at before.  ``apart``: nothing is learned for all
    from one key alone.  ``most_of_a_key`` is the share of the cases to learn from that may come from one key where
    there are several.  ``probes`` cases are begun in every ``probe_hours``, evenly spread, each asked three times, that
    many hours apart: ``3 * probes`` calls.  With
    ``weights`` the model's own weights are learned too, where prompts have nothing left that helps; those of a model
    that a server serves are ``train_base``, a folder or a model on the hub.  ``train_draws`` says who answers practice
    cases at random: the trainer, or the server, with a call a sample.  One training takes ``train_minutes`` and
    ``train_memory`` GB at most (``None``: what is free).
    """

    after_errors: int = 20
    every_hours: float | None = None
    calls_per_day: int | None = 20_000
    usd_per_day: float | None = None
    shadow: float = 0.25
    ramp: tuple[float, ...] = (0.01, 0.05, 0.2, 0.5)
    margin: float = 0.02
    most_slower: float = 3.0
    most_dearer: float = 5.0
    holdback: float = 0.03
    critical: dict[str, str] = msgspec.field(default_factory=dict)
    trust_feedback: bool = False
    feedback_s: float = 300.0
    apart: bool = False
    most_of_a_key: float = 0.2
    probes: int = 160
    probe_hours: float = 24.0
    canaries: tuple[str, ...] = ()
    weights: bool = False
    train_base: str = ""
    train_draws: Literal["trainer", "server"] = "trainer"
    train_minutes: float = 30.0
    train_memory: float | None = None

    def __post_init__(self) -> None:
        for name in ("shadow", "holdback"):
            if not 0.0 <= getattr(self, name) <= 0.5:
                raise TaskError(f"improve.{name} is {getattr(self, name)!r}; it must be a share from 0 to 0.5")
        if not 0.0 <= self.margin < 1.0:
            raise TaskError(f"improve.margin is {self.margin!r}; it must be a score from 0 to below 1, such as 0.02")
        if not 0.0 < self.most_of_a_key <= 1.0:
            raise TaskError(f"improve.most_of_a_key is {self.most_of_a_key!r}; it must be a share above 0, up to 1")
        growing = list(self.ramp) == sorted(set(self.ramp))
        if not self.ramp or not growing or not 0.0 < self.ramp[0] <= self.ramp[-1] <= 0.5:
            raise TaskError(f"improve.ramp is {self.ramp!r}; it must hold growing shares above 0, up to 0.5")
        if self.usd_per_day is not None and not 0.0 <= self.usd_per_day < float("inf"):
            raise TaskError(f"improve.usd_per_day is {self.usd_per_day!r}; it must be an amount of dollars from 0 on")
        for name in ("after_errors", "calls_per_day", "probes"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise TaskError(f"improve.{name} is {value!r}; it must be 0 or more")
        if not 0.0 <= self.feedback_s < float("inf"):
            raise TaskError(f"improve.feedback_s is {self.feedback_s!r}; it must be a number of seconds from 0 on")
        for name in ("most_slower", "most_dearer"):
            if not 1.0 <= getattr(self, name) < float("inf"):
                raise TaskError(f"improve.{name} is {getattr(self, name)!r}; it must be a factor of 1 or more")
        for name in ("every_hours", "probe_hours"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < float("inf"):
                raise TaskError(f"improve.{name} is {value!r}; it must be a number of hours above 0")
        if not 0.0 < self.train_minutes < float("inf"):
            raise TaskError(f"improve.train_minutes is {self.train_minutes!r}; it must be a number of minutes above 0")
        if self.train_memory is not None and not 0.0 < self.train_memory < float("inf"):
            raise TaskError(f"improve.train_memory is {self.train_memory!r}; it must be a number of GB above 0")
        if not all(canary.strip() for canary in self.canaries):
            raise TaskError("improve.canaries has an empty text, which every request holds; take it out")
        for name, pattern in self.critical.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise TaskError(
                    f"improve.critical.{name} is {pattern!r}, which is no regular expression: {error}"
                ) from None
