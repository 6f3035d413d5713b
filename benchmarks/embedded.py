"""Tokens per second of the embedded model beside the bare ``xllamacpp`` server, same prompts, taking turns.

Each contestant is a process of its own, because how its threads wait is settled when it starts.  A batch is eight
requests at once; the contestants answer it one after the other, in an order that turns with each batch, so that a
machine that drifts meets all.  Ratios are taken within a batch.  Prompts are new in every batch: nothing is
remembered but what the requests of a batch share.

    python benchmarks/embedded.py [--batches 6]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from figures import Figure, publish

INSIDE = Path(__file__).resolve().parent / "inside" / "embedded_batches.py"
AT_ONCE = 8
CORES = min(len(os.sched_getaffinity(0)), 8)
WORDS = ("river", "stone", "window", "paper", "garden", "metal", "cloud", "harbour", "engine", "basket", "candle")
OURS = ("gainful", CORES)
BARE = {"alone": [("bare", CORES)], "one core busy": [("bare", CORES), ("bare", 1)]}
TOKENS = {"alone": 32, "one core busy": 8}  # under contention the spinning threads of a bare server take minutes


class Contestant:
    """A process that answers batches."""

    def __init__(self, name: str, threads: int) -> None:
        command = [sys.executable, str(INSIDE), name, str(threads)]
        self.label = f"{name}, {threads} thread{'s' if threads > 1 else ''}"
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def speed(self, bodies: Sequence[dict[str, Any]]) -> float:
        """Answer *bodies*; return completion tokens per second."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(bodies), file=self._process.stdin, flush=True)
        done = json.loads(self._process.stdout.readline())
        return float(done["tokens"] / done["seconds"])

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def batch(rng: random.Random, shared_words: int, max_tokens: int) -> list[dict[str, Any]]:
    """Return eight requests with *shared_words* of common instructions and 30 words of their own."""
    rules = " ".join(rng.choices(WORDS, k=shared_words))
    system = [{"role": "system", "content": rules}] if rules else []
    own = [" ".join(rng.choices(WORDS, k=30)) for _ in range(AT_ONCE)]
    settings = {"max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}
    return [{"messages": [*system, {"role": "user", "content": words}], **settings} for words in own]


@contextmanager
def busy_core() -> Iterator[None]:
    """Keep one core busy with another process."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def race(condition: str, shared_words: int, batches: int) -> Iterable[Figure]:
    """Yield each contestant's speed, and our ratio to each bare server, batch by batch."""
    rng, where = random.Random(shared_words), f"{condition}, {shared_words} words in common"
    contestants = [Contestant(*who) for who in (OURS, *BARE[condition])]
    speeds: list[list[float]] = [[] for _ in contestants]
    for contestant in contestants:
        contestant.speed(batch(rng, 0, 2))  # loads the model
    for number in range(batches):
        bodies = batch(rng, shared_words, TOKENS[condition])
        turns = list(range(len(contestants)))
        for turn in turns[number % len(turns) :] + turns[: number % len(turns)]:
            speeds[turn].append(contestants[turn].speed(bodies))
            print(f"{contestants[turn].label}; {where}: {speeds[turn][-1]:.1f} tokens/s", file=sys.stderr)
    for contestant in contestants:
        contestant.close()
    for contestant, speed in zip(contestants, speeds, strict=True):
        yield Figure(f"{contestant.label}; {where}", "speed", "tokens/s", AT_ONCE, tuple(speed))
    for contestant, speed in zip(contestants[1:], speeds[1:], strict=True):
        ratios = tuple(ours / theirs for ours, theirs in zip(speeds[0], speed, strict=True))
        yield Figure(f"gainful / {contestant.label}; {where}", "ratio", "times", AT_ONCE, ratios)


def interval(ratios: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return a bootstrap interval of the mean ratio, 10,000 resamples with a fixed seed."""
    rng = random.Random(0)
    means = sorted(statistics.fmean(rng.choices(ratios, k=len(ratios))) for _ in range(10_000))
    cut = int((1 - confidence) / 2 * len(means))
    return means[cut], means[-1 - cut]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batches", type=int, default=6, help="six take about five minutes on two quiet cores")
    chosen = parser.parse_args()
    figures = [figure for shared in (0, 200) for figure in race("alone", shared, chosen.batches)]
    with busy_core():
        figures += race("one core busy", 0, chosen.batches // 2)
    for figure in [f for f in figures if f.quantity == "ratio"]:
        low, high = interval(figure.repeats)
        figures.append(Figure(figure.subject, "ratio, 95 % interval", "times", figure.n, (low, high)))
    publish("embedded", figures)


if __name__ == "__main__":
    main()
