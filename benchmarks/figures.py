"""How a benchmark's figures are kept and shown: with the machine, the day, the number of cases and their spread.

``out/benchmarks/<name>.json`` holds what the last run measured.  What is published is copied from there into
``docs/benchmarks.md`` by hand, never typed from memory.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import random
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gainful.gate import interval, proportion_interval

RESULTS = Path(__file__).resolve().parent.parent / "out" / "benchmarks"


@dataclass(frozen=True)
class Figure:
    """One measured quantity: every repeat is kept, the median is quoted.

    ``n`` is the number of cases in each repeat; ``subject`` says what was measured, under which settings.
    """

    subject: str
    quantity: str
    unit: str
    n: int
    repeats: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.repeats)


def machine() -> str:
    """Describe this machine in a few words: processor, cores, system, Python."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return f"{name}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def publish(name: str, figures: Sequence[Figure]) -> Path:
    """Write *figures* to ``out/benchmarks/<name>.json``, print them as a table, and return the file's path."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    rows = [{**asdict(figure), "median": figure.median} for figure in figures]
    path.write_text(json.dumps({"machine": machine(), "date": today, "figures": rows}, indent=2) + "\n")
    print(f"{name}: {machine()}, {today}")
    for figure in figures:
        low, high = min(figure.repeats), max(figure.repeats)
        print(
            f"  {figure.subject:<40} {figure.quantity:<22} {figure.median:>10.3f} {figure.unit:<10} "
            f"n = {figure.n}, {len(figure.repeats)} runs: {low:.3f} to {high:.3f}"
        )
    return path


def accuracy(subject: str, quantity: str, runs: Sequence[Sequence[bool]]) -> Iterator[Figure]:
    """Yield the share that is right in each run, in percent, and the interval of all runs together."""
    right = [case for run in runs for case in run]
    yield Figure(subject, quantity, "%", len(runs[0]), tuple(100 * statistics.fmean(run) for run in runs))
    low, high = proportion_interval(sum(right), len(right), 0.05)
    yield Figure(subject, f"{quantity}, 95 % interval", "%", len(right), (100 * low, 100 * high))


def gain(subject: str, ours: Sequence[Sequence[bool]], theirs: Sequence[Sequence[bool]]) -> Iterator[Figure]:
    """Yield by how much *ours* is right more often than *theirs* on the same cases, and how sure that is.

    The interval is that of the paired differences of all runs; ``p`` is two-sided, of the exact sign test on the cases
    that only one got right.
    """
    runs = [[a - b for a, b in zip(*both, strict=True)] for both in zip(ours, theirs, strict=True)]
    differences = [float(one) for run in runs for one in run]
    random.Random(0).shuffle(differences)  # the interval takes them one by one, and cases of a kind stand together
    n, wins, losses = len(differences), differences.count(1.0), differences.count(-1.0)
    low, high = interval(differences, 0.05, n, -1.0, 1.0)
    yield Figure(subject, "gain", "points", len(runs[0]), tuple(100 * statistics.fmean(run) for run in runs))
    yield Figure(subject, "gain, 95 % interval", "points", n, (100 * low, 100 * high))
    yield Figure(subject, "corrected, broken", "cases", n, (wins, losses))
    yield Figure(subject, "p", "", n, (sign_p(wins, losses),))


def sign_p(wins: int, losses: int) -> float:
    """Return the two-sided p of the exact sign test.

    >>> sign_p(0, 0), sign_p(3, 3), sign_p(5, 0), sign_p(0, 5)
    (1.0, 1.0, 0.0625, 0.0625)
    """
    n, most = wins + losses, max(wins, losses)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(most, n + 1)) / (1 << n))


@dataclass(frozen=True)
class Estimate:
    """A value estimated from *n* draws of a simulation, with its 95 % interval, or what its maker says it is."""

    subject: str
    value: float
    low: float
    high: float
    unit: str
    n: int


def share(subject: str, hits: int, n: int) -> Estimate:
    """A share in percent, with Clopper and Pearson's interval."""
    low, high = proportion_interval(hits, n, 0.05)
    return Estimate(subject, 100 * hits / n, 100 * low, 100 * high, "%", n)


def median(subject: str, values: Sequence[float], unit: str) -> Estimate:
    """A median, with its interval by ranks: the limit of the percentile bootstrap, without its noise."""
    ranked, n = sorted(values), len(values)
    reach = math.ceil(0.98 * math.sqrt(n))  # 1.96 standard errors of the rank of the median
    low, high = ranked[max(0, n // 2 - reach)], ranked[min(n - 1, n // 2 + reach)]
    return Estimate(subject, statistics.median(ranked), low, high, unit, n)


def mean(subject: str, values: Sequence[float], unit: str) -> Estimate:
    """A mean, with its normal interval."""
    middle, half = statistics.mean(values), 1.96 * statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(subject, middle, middle - half, middle + half, unit, len(values))


def publish_estimates(name: str, seed: int, estimates: Iterable[Estimate]) -> Path:
    """Print *estimates* as they come, write them to ``out/benchmarks/<name>.json`` and return the file's path."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    print(f"{name}: {machine()}, {today}, seed {seed}")
    kept = []
    for e in estimates:
        print(f"  {e.subject:<90} {e.value:>9.2f} {e.unit:<8} [{e.low:.2f}, {e.high:.2f}], n = {e.n}", flush=True)
        kept.append(asdict(e))
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), "date": today, "seed": seed, "figures": kept}, indent=2) + "\n")
    return path
