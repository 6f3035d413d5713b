"""How soon the canary and the detectors see, and how often they err: the gate's own code on simulated scores.

Scores are pass or fail.  The champion passes with its quality; a difference is the challenger's score minus the mean of
the others in its block.  Measured: canaries of a challenger that is worse by the margin exactly, the tightest case of
both promises, of 2,000 differences each; how many canary requests it takes to see one that is 10 or 20 points worse, by
margin, quality and block; how many to let one through that is as good or better; how many differences until an alarm
rings for what is in service; how many telling probes until a swapped model is noticed.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Iterator
from itertools import chain

from figures import Estimate, mean, median, publish_estimates, share

from gainful.gate import Alarm, Canary, OddOneOut

LENGTH = 2000  # differences of a boundary canary
LONGEST = 20_000  # differences after which we wait no longer
QUALITIES, BLOCKS, MARGINS = (0.5, 0.8), (2, 5, 20), (0.0, 0.01, 0.02, 0.03, 0.05)
MARGIN = 0.02  # the default of a task
THRESHOLD = 1000.0


def drawn(rng: random.Random, quality: float, gain: float, block: int) -> Iterator[float]:
    """Yield differences without end."""
    others = block - 1
    chances = [math.comb(others, k) * quality**k * (1 - quality) ** (others - k) for k in range(block)]
    while True:
        for passed in rng.choices(range(block), chances, k=100):
            yield (rng.random() < quality + gain) - passed / others


def until(verdict: str, canary: Canary, differences: Iterator[float]) -> int:
    """After how many differences the canary says so, the longest wait where it does not."""
    while canary.judge() != verdict and canary.n < LONGEST:
        canary.see(next(differences))
    return canary.n


def rung(detector: Alarm | OddOneOut, feed: Callable[[], None]) -> int:
    while not detector.rings and detector.n < 10 * LONGEST:
        feed()
    return detector.n


def boundary(rng: random.Random, runs: int) -> Iterator[Estimate]:
    for quality in QUALITIES:
        for block in BLOCKS:
            harmful = worthy = 0
            for _ in range(runs):
                canary, differences = Canary(MARGIN), drawn(rng, quality, -MARGIN, block)
                verdicts = set()
                for _ in range(LENGTH):
                    canary.see(next(differences))
                    verdicts.add(canary.judge())
                harmful += "roll back" in verdicts
                worthy += "go on" in verdicts
            name = f"worse by {MARGIN:g} exactly, quality {quality:.0%}, blocks of {block}"
            yield share(f"{name}: rolled back", harmful, runs)
            yield share(f"{name}: let through", worthy, runs)


def detection(rng: random.Random, runs: int) -> Iterator[Estimate]:
    for margin in MARGINS:
        for quality in QUALITIES:
            for block in BLOCKS:
                for gain in (-0.1, -0.2):
                    found = [until("roll back", Canary(margin), drawn(rng, quality, gain, block)) for _ in range(runs)]
                    name = f"{100 * gain:+.0f} points, margin {margin:g}, quality {quality:.0%}, blocks of {block}"
                    yield median(f"{name}: rolled back after", found, "requests")


def letting_through(rng: random.Random, runs: int) -> Iterator[Estimate]:
    for margin in (MARGIN, 0.05):
        for gain in (0.0, 0.04, 0.1):
            found = [until("go on", Canary(margin), drawn(rng, 0.5, gain, 20)) for _ in range(runs)]
            yield median(f"{100 * gain:+.0f} points, margin {margin:g}, quality 50%, blocks of 20: let through after",
                         found, "requests")  # fmt: skip


def alarms(rng: random.Random, runs: int) -> Iterator[Estimate]:
    for gain in (-MARGIN, 0.0, -0.1, -0.2):
        found = []
        for _ in range(runs):
            alarm, differences = Alarm(MARGIN, THRESHOLD), drawn(rng, 0.8, gain, 33)
            found.append(rung(alarm, lambda alarm=alarm, d=differences: alarm.see(next(d))))  # type: ignore[misc]
        yield mean(
            f"{100 * gain:+.0f} points in service, margin {MARGIN:g}, threshold 1,000: rings after", found, "pairs"
        )


def swaps(rng: random.Random, runs: int) -> Iterator[Estimate]:
    models = {
        "random (80, 10, 10 %), the same": ([0.8, 0.1, 0.1], [0.8, 0.1, 0.1]),
        "random (80, 10, 10 %), now (60, 30, 10 %)": ([0.8, 0.1, 0.1], [0.6, 0.3, 0.1]),
        "random (80, 10, 10 %), now (30, 60, 10 %)": ([0.8, 0.1, 0.1], [0.3, 0.6, 0.1]),
        "steady (99, 1, 0 %), the same": ([0.99, 0.01, 0.0], [0.99, 0.01, 0.0]),
        "steady (99, 1, 0 %), now 20 % otherwise": ([0.99, 0.01, 0.0], [0.79, 0.01, 0.2]),
    }
    for name, (before, after) in models.items():
        told, asked = [], []
        for _ in range(runs):
            detector, probes = OddOneOut(THRESHOLD), 0
            while not detector.rings:
                detector.see(*rng.choices(range(3), before, k=2), *rng.choices(range(3), after))
                probes += 1
            told.append(detector.n)
            asked.append(probes)
        yield mean(f"a model {name}: rings after", told, "telling")
        yield mean("  which is after", asked, "probes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng, runs = random.Random(options.seed), options.runs
    parts = ((detection, 1), (boundary, 1), (letting_through, 4), (alarms, 10), (swaps, 10))
    publish_estimates("canary", options.seed, chain.from_iterable(part(rng, max(2, runs // n)) for part, n in parts))


if __name__ == "__main__":
    main()
