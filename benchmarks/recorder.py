"""How long a reply waits for its row: ``Recorder.record`` at a steady rate of exchanges, on an event loop with time.

Exchanges arrive at random moments (exponential gaps), whether the earlier ones are stored or not, so a stall is seen by
all that arrive meanwhile.  Each run writes a new store in *--place*, whose disk decides what ``full`` costs.

    python benchmarks/recorder.py [--rate 1000] [--seconds 20] [--repeats 3] [--place out]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import uvloop
from figures import Figure, publish

from gainful.core import Exchange, Policy, Usage, Verdict
from gainful.proxy.recorder import Recorder
from gainful.store import SQLiteStore, Sync

POLICY = Policy(instructions="Answer.")
Run = Callable[[Coroutine[Any, Any, "Seen"]], "Seen"]


class Seen(NamedTuple):
    """What one run showed: sorted waits in seconds, rows a second, processor time and bytes a row."""

    waits: list[float]
    per_s: float
    cpu_us: float
    log_bytes: int


def exchange(rng: random.Random) -> Exchange:
    """Return an exchange of 300 + 300 bytes of random words."""
    question, answer = (" ".join(f"{rng.getrandbits(24):06x}" for _ in range(43))[:300] for _ in range(2))
    reply = {"id": "", "choices": [{"index": 0, "message": {"role": "assistant", "content": answer}}]}
    return Exchange(
        id="",
        at=0.0,
        task="support",
        policy=POLICY.id,
        model="small-model",
        verdict="verified",
        request={"messages": [{"role": "user", "content": question}], "temperature": 0.2},
        reply=reply,
        value=answer,
        verdicts=(Verdict("schema", True, 1.0), Verdict("grounding", False, 1.0)),
        p_wrong=rng.random(),
        usage=Usage(calls=1, prompt_tokens=88, completion_tokens=70, elapsed_ms=rng.random() * 500),
        added_ms=rng.random(),
    )


def log_size(path: Path) -> int:
    """Return the bytes of the write-ahead log."""
    return Path(f"{path}-wal").stat().st_size


async def measure(path: Path, sync: Sync, rate: float, seconds: float) -> Seen:
    """Record at *rate* for *seconds*; every exchange must be acknowledged."""
    rng = random.Random(0)
    kinds = [exchange(rng) for _ in range(1000)]
    waits: list[float] = []

    async def one(arrived: Exchange) -> None:
        began = time.perf_counter()
        assert await recorder.record(arrived, 60.0)
        waits.append(time.perf_counter() - began)

    recorder = Recorder(path, sync=sync)
    began, cpu = time.perf_counter(), time.process_time()
    due, running = began, set()
    for number in range(round(rate * seconds)):
        due += rng.expovariate(rate)
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        arrived = msgspec.structs.replace(kinds[number % 1000], id=f"chatcmpl-{rng.randbytes(12).hex()}", at=due)
        task = asyncio.create_task(one(arrived))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    log_bytes = log_size(path)
    await asyncio.to_thread(recorder.close)
    return Seen(sorted(waits), len(waits) / elapsed, cpu / len(waits) * 1e6, log_bytes)


def figures(place: Path, rate: float, seconds: float, repeats: int) -> Iterator[Figure]:
    """Yield waits, throughput and size for both ways to commit, on asyncio's loop and on uvloop."""
    settings: list[tuple[Sync, str, Run]] = [
        (sync, name, run)
        for sync in ("normal", "full")
        for name, run in (("asyncio", asyncio.run), ("uvloop", uvloop.run))
    ]
    seen: dict[str, list[tuple[Seen, float]]] = {}
    for _ in range(repeats):
        for sync, name, run in settings:
            with tempfile.TemporaryDirectory(dir=place) as folder:
                path = Path(folder) / "store.db"
                with SQLiteStore(path) as store:
                    store.put_policy(POLICY)
                one = run(measure(path, sync, rate, seconds))
                row_bytes = path.stat().st_size / len(one.waits)
                seen.setdefault(f"{sync}, {name}, {rate:g}/s offered", []).append((one, row_bytes))
    for subject, runs in seen.items():
        n = len(runs[0][0].waits)
        for share in (0.5, 0.9, 0.99, 0.999):
            waits = tuple(one.waits[int(share * n)] * 1e3 for one, _ in runs)
            yield Figure(subject, f"wait p{share * 100:g}", "ms", n, waits)
        yield Figure(subject, "recorded", "rows/s", n, tuple(one.per_s for one, _ in runs))
        yield Figure(subject, "processor time", "us/row", n, tuple(one.cpu_us for one, _ in runs))
        yield Figure(subject, "stored", "bytes/row", n, tuple(size for _, size in runs))
        yield Figure(subject, "log at the end", "MB", n, tuple(one.log_bytes / 1e6 for one, _ in runs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--place", type=Path, default=Path("out"))
    arguments = parser.parse_args()
    arguments.place.mkdir(parents=True, exist_ok=True)
    publish("recorder", list(figures(arguments.place, arguments.rate, arguments.seconds, arguments.repeats)))


if __name__ == "__main__":
    main()
