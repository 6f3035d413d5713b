"""What one request may still spend on top of its first call: time, calls, tokens, money.

Guarantees: a call is claimed before it is made, so calls that run together never exceed the allowance; limits only
ever tighten.  Tokens and money are known when a reply comes, so they stop the next call, not the one under way.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from gainful.core import Usage, Value


class Limits(Value, frozen=True):
    """The most that one request may take; ``None``: no limit.

    ``deadline_ms`` counts from the request's arrival; the others count what is spent beyond the one call that the
    caller asked for.
    """

    deadline_ms: float | None = None
    extra_calls: int | None = None
    extra_tokens: int | None = None
    extra_cost_usd: float | None = None

    def tightened(self, other: Limits) -> Limits:
        """Return the narrower of both in every respect.

        >>> Limits(deadline_ms=500).tightened(Limits(deadline_ms=900, extra_calls=2))
        Limits(deadline_ms=500, extra_calls=2, extra_tokens=None, extra_cost_usd=None)
        """
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in self.__struct_fields__}
        narrower = {n: min((v for v in pair if v is not None), default=None) for n, pair in pairs.items()}
        return Limits(**narrower)


UNLIMITED = Limits()


@dataclass
class Allowance:
    """One request's account against its ``limits``.  Times are in seconds of ``clock``; ``claimed`` counts all calls,
    ``extra`` is what those beyond the first took."""

    limits: Limits = UNLIMITED
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._began_s = self.clock()
        self.claimed = 0
        self.extra = Usage()

    @property
    def left_s(self) -> float | None:
        """Seconds until the deadline, 0 once it has passed; ``None`` where there is none."""
        if self.limits.deadline_ms is None:
            return None
        return max(0.0, self._began_s + self.limits.deadline_ms / 1000 - self.clock())

    def affords(self, calls: int) -> int:
        """Return how many of *calls* more may be made now."""
        most = self.limits
        if self.left_s == 0.0 or self._is_spent(most):
            return 0 if self.claimed else 1  # the caller's own call is never withheld
        return calls if most.extra_calls is None else max(0, min(calls, 1 + most.extra_calls - self.claimed))

    def claim(self) -> bool:
        """Claim a call, about to be made; return whether it is the first, the one that the caller asked for."""
        self.claimed += 1
        return self.claimed == 1

    def spend(self, usage: Usage) -> None:
        """Charge what a call beyond the first took."""
        self.extra += usage

    def _is_spent(self, most: Limits) -> bool:
        tokens = self.extra.prompt_tokens + self.extra.completion_tokens
        cost_usd = self.extra.cost_usd or 0.0
        return (most.extra_tokens is not None and tokens >= most.extra_tokens) or (
            most.extra_cost_usd is not None and cost_usd >= most.extra_cost_usd
        )
