"""What the correction rule lets through, and what it takes to open it: the rule's own code on simulated trials.

A method of correction is known by its true shares: Acc of the suspects are right, it fixes ECR of the wrong ones and
breaks EIR of the right ones.  Measured: lives in which a rule of four methods, none of which pays, ever opens one,
looked at after every 10 trials; for how much of a long life, old trials leaving the window; how many trials a method
that pays takes to open; and how many it takes to close one that pays no longer.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from figures import Estimate, publish_estimates, share

from gainful.answers.rule import LEVEL, METHODS, WINDOW, standing
from gainful.core import Trial
from gainful.gate import lower_bound

EVERY = 10  # trials between two looks


@dataclass(frozen=True)
class Method:
    """The true shares of a method of correction."""

    acc: float
    ecr: float
    eir: float

    @property
    def net(self) -> float:
        return (1 - self.acc) * self.ecr - self.acc * self.eir

    def trials(self, rng: random.Random, n: int) -> list[Trial]:
        ends = [(0.0, 1.0), (0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]
        shares = [
            (1 - self.acc) * self.ecr,
            (1 - self.acc) * (1 - self.ecr),
            self.acc * self.eir,
            self.acc * (1 - self.eir),
        ]
        return [
            Trial(task="t", model="m", method="vote", case="c", before=before, after=after)
            for before, after in rng.choices(ends, shares, k=n)
        ]

    def __str__(self) -> str:
        return f"Acc {self.acc:.0%}, ECR {self.ecr:.0%}, EIR {self.eir:.0%}, net {100 * self.net:+.1f}"


NOT_PAYING = (Method(0.5, 0.3, 0.3), Method(0.3, 0.15, 0.35), Method(0.5, 0.03, 0.03), Method(0.3, 0.1, 0.4))
PAYING = (Method(0.3, 0.4, 0.05), Method(0.3, 0.2, 0.05), Method(0.3, 0.15, 0.1))


def counts(subject: str, values: list[int]) -> Estimate:
    ranked = sorted(values)
    n = len(ranked)
    return Estimate(subject, statistics.median(ranked), ranked[n // 20], ranked[-1 - n // 20], "trials", n)


def looks(trials: list[Trial], start: int = EVERY) -> Iterator[int]:
    yield from range(start, len(trials) + 1, EVERY)


def opens(trials: list[Trial]) -> int | None:
    """After how many trials the method opens, ``None`` if it does not.

    A life whose best moment never certified a gain was never open, so it need not be looked at again and again.
    """
    differences = [trial.after - trial.before for trial in trials]
    if lower_bound(differences, LEVEL / len(METHODS), WINDOW) <= 0.0:
        return None
    return next((n for n in looks(trials) if standing("vote", trials[:n]).is_open), None)


def false_openings(rng: random.Random, lifetimes: int) -> Iterator[Estimate]:
    for method in NOT_PAYING:
        hits = sum(any(opens(method.trials(rng, WINDOW)) for _ in METHODS) for _ in range(lifetimes))
        yield share(f"four of {method}: any opens in {WINDOW} trials", hits, lifetimes)


def long_lives(rng: random.Random, lifetimes: int) -> Iterator[Estimate]:
    method, length = NOT_PAYING[0], 5 * WINDOW
    ever, held, seen = 0, 0, 0
    for _ in range(lifetimes):
        trials = method.trials(rng, length)
        states = [standing("vote", trials[max(0, n - WINDOW) : n]).is_open for n in looks(trials)]
        ever, held, seen = ever + any(states), held + sum(states), seen + len(states)
    yield share(f"one of {method}: ever opens in {length} trials", ever, lifetimes)
    yield Estimate("  share of moments at which it is open", 100 * held / seen, 0.0, 100 * ever / lifetimes, "%", seen)


def power(rng: random.Random, lifetimes: int) -> Iterator[Estimate]:
    for method in PAYING:
        found = [opens(method.trials(rng, WINDOW)) for _ in range(lifetimes)]
        yield counts(f"{method}: opens after", [n or WINDOW + 1 for n in found])
        yield share(f"  opens within {WINDOW}", sum(n is not None for n in found), lifetimes)


def closing(rng: random.Random, lifetimes: int) -> Iterator[Estimate]:
    before = PAYING[0]
    for after in (Method(0.7, 0.1, 0.3), Method(0.6, 0.1, 0.15), Method(0.5, 0.2, 0.2)):
        found = []
        for _ in range(lifetimes):
            trials = before.trials(rng, 500) + after.trials(rng, WINDOW)
            states = (n for n in looks(trials, 500) if not standing("vote", trials[max(0, n - WINDOW) : n]).is_open)
            found.append(next(states, len(trials)) - 500)
        yield counts(f"500 trials of {before}, then {after}: closes after", found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lifetimes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng, lifetimes = random.Random(options.seed), options.lifetimes
    parts = ((false_openings, 1), (power, 5), (closing, 10), (long_lives, 25))
    published = chain.from_iterable(part(rng, max(1, lifetimes // n)) for part, n in parts)
    publish_estimates("correction_rule", options.seed, published)


if __name__ == "__main__":
    main()
