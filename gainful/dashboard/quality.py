"""Quality over time: one point for each stretch of hours, and the band around what is in service.

The points are means of the requests that a stretch brought.  The band is anytime-valid (``gate.running_band``): it
covers the average true score of a champion so far, and starts anew with every champion.  So a point far outside the
band says that the moment differs from what the champion has been.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from gainful.core import Arm
from gainful.gate import running_band
from gainful.store import Tally

HOUR_S = 3600
MOST_POINTS = 400  # more than a screen has columns for
WIDTHS = (1, 2, 3, 6, 12, 24, 48, 168)  # hours that people can name; then whole weeks
LEVEL = 0.05
HEARD: dict[Arm, str] = {"champion": "champion", "challenger": "challenger", "shadow": "challenger", "former": "former"}
"""Which line a tally belongs to: a challenger is the same policy whether callers hear it or not."""


class Points(msgspec.Struct, frozen=True):
    """The scores of one arm, stretch by stretch: how many are known, and their mean, ``None`` where none is."""

    arm: str
    known: tuple[int, ...]
    mean: tuple[float | None, ...]


class Quality(msgspec.Struct, frozen=True):
    """Columns of equal length: ``at`` is when a stretch of ``hours`` begins, in Unix seconds.

    ``band_mean``, ``band_low`` and ``band_high`` are those of the champion that answered most of the stretch, from its
    first request on; ``policies`` says which it was.  ``None``: no request, or no known score yet.
    """

    hours: int
    level: float
    at: tuple[int, ...]
    requests: tuple[int, ...]
    errors: tuple[int, ...]
    arms: tuple[Points, ...]
    policies: tuple[str | None, ...]
    band_mean: tuple[float | None, ...]
    band_low: tuple[float | None, ...]
    band_high: tuple[float | None, ...]


class Rate(msgspec.Struct, frozen=True):
    """A mean score of ``known`` requests of ``requests``, with its anytime-valid interval; ``None`` is unknown."""

    requests: int = 0
    known: int = 0
    mean: float | None = None
    low: float | None = None
    high: float | None = None


def rate(tallies: Sequence[Tally]) -> Rate:
    """Return what *tallies* come to; the band rests on counts and sums alone, so that of their end is all it takes."""
    requests = sum(tally.requests for tally in tallies)
    (band,) = running_band([_scored(tallies)], LEVEL)
    if band.mean is None:
        return Rate(requests=requests)
    return Rate(requests, band.n, band.mean, band.low, band.high)


def _scored(tallies: Iterable[Tally]) -> tuple[int, float]:
    """Return how many scores are known, and their sum, which rounding must not make larger than their number."""
    known, right = 0, 0.0
    for tally in tallies:
        known += tally.known
        right += tally.right
    return known, min(max(right, 0.0), float(known))


def quality(tallies: Sequence[Tally]) -> Quality:
    """Return the quality of all *tallies*; empty columns where there are none."""
    first = min((tally.hour for tally in tallies), default=0)
    last = max((tally.hour for tally in tallies), default=-1)
    hours = _width(last - first + 1)
    start = first // hours
    size = last // hours - start + 1 if tallies else 0
    cells: list[list[Tally]] = [[] for _ in range(size)]
    for tally in tallies:
        cells[tally.hour // hours - start].append(tally)
    policies = tuple(_champion(cell) for cell in cells)
    bands = _bands(cells, policies)
    return Quality(
        hours=hours,
        level=LEVEL,
        at=tuple((start + k) * hours * HOUR_S for k in range(size)),
        requests=tuple(sum(t.requests for t in cell if t.arm != "shadow") for cell in cells),
        errors=tuple(sum(t.errors for t in cell if t.arm != "shadow") for cell in cells),
        arms=tuple(_points(arm, cells) for arm in dict.fromkeys(HEARD.values())),
        policies=policies,
        band_mean=tuple(band[0] for band in bands),
        band_low=tuple(band[1] for band in bands),
        band_high=tuple(band[2] for band in bands),
    )


def _width(hours: int) -> int:
    """Return how many hours a point stands for, so that there are few enough points; one more for a ragged start."""
    least = -(-hours // (MOST_POINTS - 1))
    return next((width for width in WIDTHS if width >= least), 168 * -(-least // 168))


def _champion(cell: Sequence[Tally]) -> str | None:
    """Return the policy that answered most of a stretch as champion."""
    requests: dict[str, int] = defaultdict(int)
    for tally in cell:
        if tally.arm == "champion":
            requests[tally.policy] += tally.requests
    return max(requests, key=requests.__getitem__, default=None)


def _points(arm: str, cells: Sequence[Sequence[Tally]]) -> Points:
    scored = [_scored(tally for tally in cell if HEARD[tally.arm] == arm) for cell in cells]
    return Points(arm, tuple(n for n, _ in scored), tuple(right / n if n else None for n, right in scored))


def _bands(
    cells: Sequence[Sequence[Tally]], policies: Sequence[str | None]
) -> list[tuple[float | None, float | None, float | None]]:
    """Return mean, low and high of each stretch's champion, over all it has answered as such so far."""
    found: list[tuple[float | None, float | None, float | None]] = [(None, None, None)] * len(cells)
    for policy in {policy for policy in policies if policy is not None}:
        buckets = [_scored(t for t in cell if t.arm == "champion" and t.policy == policy) for cell in cells]
        for k, band in enumerate(running_band(buckets, LEVEL)):
            if policies[k] == policy and band.mean is not None:
                found[k] = (band.mean, band.low, band.high)
    return found
