"""What the engine adds to a model call: time, bytes stored and memory per sample, beside Inspect AI in the same run.

Both answer with their own scripted model, check every answer and store it.  Inspect runs at its best settings: no
display, no realtime log, the compressed log format.  Every run is a process of its own, so that peak memory is that
run's; the two alternate, so that a machine that drifts meets both.

    python benchmarks/engine_overhead.py [--samples 10000] [--inspect-samples 1000] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from figures import Figure, publish
from peers import environment

INSPECT = "0.3.285"
AT_ONCE = (1, 32)
INSIDE = Path(__file__).resolve().parent / "inside"
QUANTITIES = (
    ("time per sample", "ms_per_sample", "ms"),
    ("stored per sample", "bytes_per_sample", "bytes"),
    ("peak memory", "peak_mb", "MB"),
    ("memory after import", "imported_mb", "MB"),
)


def measure(python: Path | str, script: str, samples: int, at_once: int) -> dict[str, float]:
    """Run *samples* cases, *at_once* concurrently, and return what the script inside that environment reports."""
    with tempfile.TemporaryDirectory() as scratch:
        surroundings = {**os.environ, "XDG_DATA_HOME": scratch, "XDG_CACHE_HOME": scratch}
        command = [python, INSIDE / script, str(samples), str(at_once), Path(scratch) / "logs"]
        ran = subprocess.run(command, env=surroundings, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return measured


def figures(samples: int, inspect_samples: int, repeats: int) -> Iterable[Figure]:
    """Yield time, bytes and memory of both, for each number of calls at once, and the memory of ten times the cases."""
    inspect = environment("inspect", [f"inspect-ai=={INSPECT}"])
    for at_once in AT_ONCE:
        ours, theirs, few = [], [], []
        for _ in range(repeats):
            ours.append(measure(sys.executable, "gainful_samples.py", samples, at_once))
            theirs.append(measure(inspect, "inspect_samples.py", inspect_samples, at_once))
            few.append(measure(sys.executable, "gainful_samples.py", samples // 10, at_once))
        for subject, runs, n in (
            (f"Gainful, {at_once} at once", ours, samples),
            (f"Gainful, {at_once} at once, a tenth of the cases", few, samples // 10),
            (f"Inspect AI {INSPECT}, {at_once} at once", theirs, inspect_samples),
        ):
            for quantity, key, unit in QUANTITIES:
                yield Figure(subject, quantity, unit, n, tuple(run[key] for run in runs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--inspect-samples", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    publish("engine_overhead", list(figures(chosen.samples, chosen.inspect_samples, chosen.repeats)))


if __name__ == "__main__":
    main()
