"""How a benchmark's figures are kept and shown: with the machine, the day, the number of cases and their spread.

``out/benchmarks/<name>.json`` holds what the last run measured.  What is published is copied from there into
``docs/benchmarks.md`` by hand, never typed from memory.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

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
