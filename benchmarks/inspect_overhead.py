"""What Inspect AI adds to a model call: time, bytes stored and memory per sample, with its mock model.

The reference that Gainful's own engine overhead is read against.  Inspect runs at its best settings: no display,
no realtime log, the compressed log format.  Every run is a process of its own, so that peak memory is that run's.

    python benchmarks/inspect_overhead.py [--samples 10000] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from figures import Figure, publish
from peers import environment

VERSION = "0.3.285"
AT_ONCE = (1, 32)
INSIDE = Path(__file__).resolve().parent / "inside" / "inspect_samples.py"


def measure(samples: int, at_once: int) -> dict[str, float]:
    """Run *samples* cases in Inspect, *at_once* concurrently, and return what ``inside/inspect_samples.py`` reports."""
    python = environment("inspect", [f"inspect-ai=={VERSION}"])
    with tempfile.TemporaryDirectory() as scratch:
        surroundings = {**os.environ, "XDG_DATA_HOME": scratch, "XDG_CACHE_HOME": scratch}
        command = [python, INSIDE, str(samples), str(at_once), Path(scratch) / "logs"]
        ran = subprocess.run(command, env=surroundings, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return measured


def figures(samples: int, repeats: int) -> Iterable[Figure]:
    """Yield time, bytes and memory for each number of calls at once."""
    for at_once in AT_ONCE:
        runs = [measure(samples, at_once) for _ in range(repeats)]
        subject = f"Inspect AI {VERSION}, {at_once} at once"
        for quantity, key, unit in (
            ("time per sample", "ms_per_sample", "ms"),
            ("stored per sample", "bytes_per_sample", "bytes"),
            ("peak memory", "peak_mb", "MB"),
            ("memory after import", "imported_mb", "MB"),
        ):
            yield Figure(subject, quantity, unit, samples, tuple(run[key] for run in runs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    publish("inspect_overhead", list(figures(chosen.samples, chosen.repeats)))


if __name__ == "__main__":
    main()
