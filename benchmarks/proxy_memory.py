"""Whether serving leaks: resident memory of Gainful and its peers over 200,000 requests, in ten parts.

    python benchmarks/proxy_memory.py [--requests 200000] [--rate 400] [--only gainful-1] [--stream]

The first part warms up; what is quoted is the memory after each part and the growth from the first part to the last.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from figures import RESULTS, Figure, publish
from servers import CONTESTANTS, Server, load, settle, upstream

PARTS = 10


def watch(name: str, server: Server, chosen: argparse.Namespace) -> Iterator[Figure]:
    """Yield the memory of *server* after each part, its growth, and how many requests failed."""
    each = chosen.requests // PARTS
    sizes_mb, failures = [], 0
    for part in range(PARTS):
        options = ("--warm-up-s", "0", "--arrivals", "fixed", *(["--stream"] if chosen.stream else []))
        run = load(server, chosen.rate, each / chosen.rate, *options)
        settle(server)
        failures += run["sent"] - run["good"]
        sizes_mb.append(server.resident_mb())
        print(f"{name}, part {part + 1} of {PARTS}: {sizes_mb[-1]:.1f} MB, {run['failures']}", file=sys.stderr)
    for part, size_mb in enumerate(sizes_mb, 1):
        yield Figure(name, f"resident after {part * each:,}", "MB", each, (size_mb,))
    yield Figure(name, "growth after warm-up", "MB", each * (PARTS - 1), (sizes_mb[-1] - sizes_mb[0],))
    yield Figure(name, "failures", "requests", each * PARTS, (failures,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--rate", type=float, default=400.0, help="requests a second")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=["gainful-1", "gainful-2"])
    parser.add_argument("--stream", action="store_true")
    chosen = parser.parse_args()
    found: list[Figure] = []
    RESULTS.mkdir(parents=True, exist_ok=True)
    for key in chosen.only:
        name, start = CONTESTANTS[key]
        with (
            tempfile.TemporaryDirectory(dir=RESULTS.parent) as scratch,
            upstream() as behind,
            start(behind.base_url, Path(scratch)) as server,
        ):
            found += list(watch(name, server, chosen))
    publish("proxy_memory", found)


if __name__ == "__main__":
    main()
