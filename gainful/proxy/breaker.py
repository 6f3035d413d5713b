"""A circuit breaker on the model: while it does not answer, callers are told so at once and it is left alone.

Guarantees: only the model's own failures count (it cannot be reached, or answers 500 or more), never what callers
cause: their deadlines, their disconnects, requests that it refuses, limits on their rate.  While the breaker is open no
call is made; then one call probes, and only its success lets the others through.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

from gainful.core import AdapterNotFound, ApiError, ModelError, RequestRefused

State: TypeAlias = Literal["closed", "half-open", "open"]

FAILURES = 5  # in a row; fewer, and a hiccup under load shuts everybody out
FIRST_OPEN_S = 1.0  # doubled each time a probe fails
LONGEST_OPEN_S = 30.0
SERVER_FAULT = 500  # HTTP statuses from here on say that the server failed


class Breaker:
    """One model's breaker, for all the calls of one process; times are in seconds of *clock*."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0  # in a row
        self._openings = 0  # in a row, without a success between them
        self._open_until_s: float | None = None
        self._is_probing = False

    @property
    def state(self) -> State:
        """``closed``: calls pass; ``open``: none does; ``half-open``: the next one probes, or one is probing."""
        if self._open_until_s is None:
            return "closed"
        return "half-open" if self._clock() >= self._open_until_s else "open"

    @property
    def retry_after_s(self) -> float:
        """Seconds until a call may pass: 0 while it is closed, or nobody probes yet."""
        if self._open_until_s is None:
            return 0.0
        return max(self._open_until_s - self._clock(), FIRST_OPEN_S if self._is_probing else 0.0)

    @contextmanager
    def call(self) -> Iterator[None]:
        """Make one call of the model inside.

        Raises ``ModelError`` with status 503 and ``retry_after_s`` where it must not be made; what is raised inside
        passes through and is counted.  Leaving without an error is a success.
        """
        is_probe = self._enter()
        try:
            yield
        except ModelError as error:
            if is_failure(error):
                self._failed(is_probe)
            raise
        else:
            self._succeeded(is_probe)
        finally:
            self._is_probing = self._is_probing and not is_probe

    def _enter(self) -> bool:
        """Return whether the call probes; raises ``ModelError`` where it must not be made."""
        if self._open_until_s is None:
            return False
        if self._is_probing or self._clock() < self._open_until_s:
            sentence = f"the model failed {self._failures} times in a row; try again in {self.retry_after_s:.1f} s"
            told = ApiError(sentence, status=503, kind="upstream_error").shape()
            raise ModelError(sentence, status=503, said=told, retry_after_s=self.retry_after_s)
        self._is_probing = True
        return True

    def _succeeded(self, is_probe: bool) -> None:
        if self._open_until_s is None or is_probe:  # a call from before the opening says nothing of now
            self._failures = self._openings = 0
            self._open_until_s = None

    def _failed(self, is_probe: bool) -> None:
        self._failures += 1
        if is_probe or (self._open_until_s is None and self._failures >= FAILURES):
            open_s = min(FIRST_OPEN_S * 2.0**self._openings, LONGEST_OPEN_S)
            self._openings += 1
            self._open_until_s = self._clock() + open_s


def is_failure(error: ModelError) -> bool:
    """Say whether the model itself failed: it could not be reached, or said 500 or more.

    >>> is_failure(ModelError("...")), is_failure(ModelError("...", status=502)), is_failure(ModelError("", status=429))
    (True, True, False)
    """
    return not isinstance(error, RequestRefused | AdapterNotFound) and (
        error.status is None or error.status >= SERVER_FAULT
    )
