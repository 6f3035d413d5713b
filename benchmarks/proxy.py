"""What a proxy adds to a call: latency at fixed rates, failures and memory, beside other proxies in the same run.

An open loop asks a mock upstream that answers after 20 ms, directly and through each contestant; Gainful stores every
exchange on disk, the others store and log nothing.  Every run through a contestant has a direct run just before it,
and what is quoted as added is the difference of the two runs' percentiles.  Processor time is the contestant's own,
idling taken off; it is the figure that suffers least from a busy machine.

    python benchmarks/proxy.py [--seconds 10] [--rates 100 300 500 1000] [--only gainful-1 litellm] [--repeats 1]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from figures import RESULTS, Figure, publish
from servers import CONTESTANTS, Server, Upstream, load, settle, upstream

MODES = {"plain": (), "streamed": ("--stream",)}
QUANTITIES = (("p50", "latency_ms"), ("p99", "latency_ms"), ("p50", "first_ms"), ("p99", "first_ms"))
NAMES = {"latency_ms": "", "first_ms": ", first event"}


def pair(behind: Upstream, server: Server, rate: float, chosen: argparse.Namespace, mode: str) -> list[dict[str, Any]]:
    """Return a direct run and one through *server*, with the processor time that *server* used meanwhile."""
    found = []
    for one in (behind.direct, server):
        began_s = server.cpu_s()
        run = load(one, rate, chosen.seconds, "--timeout-s", str(chosen.timeout_s), *MODES[mode])
        found.append({**run, "used_ms": (server.cpu_s() - began_s) * 1000})
        settle(server)
    return found


def compare(name: str, behind: Upstream, server: Server, chosen: argparse.Namespace) -> Iterator[Figure]:
    """Yield the figures of one contestant that runs, at every rate, plain and streamed."""
    load(server, 20, 3)  # first requests compile, import and open connections
    settle(server)
    before_mb = server.resident_mb()
    for mode in MODES:
        for rate in chosen.rates:
            pairs = [pair(behind, server, rate, chosen, mode) for _ in range(chosen.repeats)]
            for direct, through in pairs:
                print(f"{name}, {rate:g}/s, {mode}: {through}; direct: {direct}", file=sys.stderr)
            yield from figures(f"{name}, {rate:g}/s, {mode}", pairs)
    yield Figure(name, "resident before", "MB", 1, (before_mb,))
    yield Figure(name, "resident after", "MB", 1, (server.resident_mb(),))


def figures(subject: str, pairs: list[list[dict[str, Any]]]) -> Iterator[Figure]:
    """Yield what pairs of runs say; where nothing came back there are no percentiles."""
    n = pairs[0][1]["sent"]
    for percentile, kind in QUANTITIES:
        if all(run[kind] for both in pairs for run in both):
            values = [(direct[kind][percentile], through[kind][percentile]) for direct, through in pairs]
            label = percentile + NAMES[kind]
            yield Figure(subject, f"added {label}", "ms", n, tuple(through - direct for direct, through in values))
            yield Figure(subject, label, "ms", n, tuple(through for _, through in values))
            yield Figure(subject, f"direct {label}", "ms", n, tuple(direct for direct, _ in values))
    yield Figure(subject, "failures", "requests", n, tuple(run["sent"] - run["good"] for _, run in pairs))
    used = tuple((through["used_ms"] - direct["used_ms"]) / through["asked"] for direct, through in pairs)
    yield Figure(subject, "processor time a request", "ms", n, used)
    yield Figure(subject, "rate reached", "1/s", n, tuple(run["rate"] for _, run in pairs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run")
    parser.add_argument("--rates", type=float, nargs="+", default=[100, 300, 500, 1000], help="requests a second")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--timeout-s", type=float, default=10.0, help="a later reply counts as a failure")
    chosen = parser.parse_args()
    found, missing = [], []
    RESULTS.mkdir(parents=True, exist_ok=True)
    for key in chosen.only:
        name, start = CONTESTANTS[key]
        with tempfile.TemporaryDirectory(dir=RESULTS.parent) as scratch, upstream() as behind:
            try:
                with start(behind.base_url, Path(scratch)) as server:
                    found += list(compare(name, behind, server, chosen))
            except RuntimeError as error:
                missing.append(f"{name} was not measured: {error}")
    publish("proxy", found)
    if missing:
        raise SystemExit("\n".join(missing))


if __name__ == "__main__":
    main()
