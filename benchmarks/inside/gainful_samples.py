"""Answer, check and store cases with Gainful's engine and its scripted model, and print what it took.

    python gainful_samples.py SAMPLES AT_ONCE FOLDER

Prints what ``inspect_samples.py`` prints, measured the same way: the store, with the memo of every call and every
attempt, is what lies in the folder afterwards.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from gainful.checks import Exact
from gainful.core import Case, Policy, Text
from gainful.engine.local import Engine
from gainful.loop.attempts import kept_attempts
from gainful.models import ScriptedModel
from gainful.store import MemoModel, SQLiteStore


def peak_mb() -> float:
    """Return the most memory that this process has had resident, in 10**6 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def cases(samples: int) -> Iterator[Case]:
    for n in range(samples):
        yield Case(({"role": "user", "content": f"What is {n} + {n}?"},), target="4", name=str(n))


async def answered(samples: int, at_once: int, store: SQLiteStore) -> int:
    model = MemoModel(ScriptedModel(lambda body, sample: "4", concurrency=at_once), store)
    engine = Engine(model, Text())
    return len([0 async for _ in kept_attempts(store, "sums", engine, Policy(), cases(samples), [Exact()])])


def main() -> None:
    samples, at_once, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True)
    imported = peak_mb()

    began = time.perf_counter()
    with SQLiteStore(folder / "gainful.db") as store:
        done = asyncio.run(answered(samples, at_once, store))
    elapsed = time.perf_counter() - began

    if done != samples:
        raise SystemExit(f"{done} of {samples} cases were answered; there is nothing to measure")
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(
        json.dumps(
            {
                "ms_per_sample": elapsed * 1000 / samples,
                "bytes_per_sample": stored / samples,
                "imported_mb": imported,
                "peak_mb": peak_mb(),
            }
        )
    )


if __name__ == "__main__":
    main()
