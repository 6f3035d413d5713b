"""What the gate costs and what it buys, with the real gate on simulated policies.

A policy is known by the cases that it gets right: one set on dev, one on the hold-out, and its true pass rate.  A
candidate fixes some of its parent's wrong answers and breaks some of its right ones, at rates that give it the wanted
true gain and discordance, alike on dev, on the hold-out and in truth.  So candidates share their parent's luck on a
hold-out that is used again and again, as real ones do.

Measured: decisions per second; the power of the real test where ``cases_for`` promises 90 %; false promotions in
lifetimes of useless challengers, each the best of eight on dev; and, with some challengers truly better, how much of
the true gain of a greedy search is kept.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

from figures import Estimate, mean, publish_estimates, share

from gainful.gate import Budget, EProcess, SignTest, beta_binomial_e_value, cases_for

HOLDOUT, DEV = 240, 200
START = 0.4  # true pass rate of the first champion
DISCORDANCE = 0.3
CHALLENGERS = 50  # in a lifetime
BEST_OF = 8  # candidates of which dev picks one, in lifetimes without a better one
DEV_GAIN, DEV_STEP = 0.04, 0.02  # two tiers: confirm from this dev gain on, this much more after each failure


@dataclass(frozen=True)
class Policy:
    """The cases a policy gets right, as bits, and its true pass rate."""

    dev: int
    holdout: int
    rate: float


def bits(rng: random.Random, size: int, rate: float) -> int:
    """Return *size* random bits, each set with probability *rate*, to 1/4096."""
    wanted, drawn = round(rate * 4096), 0
    for place in range(12):
        fresh = rng.getrandbits(size)
        drawn = drawn | fresh if wanted >> place & 1 else drawn & fresh
    return drawn


def first(rng: random.Random) -> Policy:
    return Policy(bits(rng, DEV, START), bits(rng, HOLDOUT, START), START)


def child(rng: random.Random, parent: Policy, gain: float) -> Policy:
    """Return a candidate of this true gain over *parent* that differs from it on 30 % of the cases."""
    gain = max(-0.2, min(gain, 0.8 - parent.rate, DISCORDANCE))
    fixes = (DISCORDANCE + gain) / 2 / (1 - parent.rate)
    breaks = (DISCORDANCE - gain) / 2 / parent.rate

    def change(right: int, size: int) -> int:
        return right & ~bits(rng, size, min(breaks, 1.0)) | ~right & bits(rng, size, min(fixes, 1.0))

    return Policy(change(parent.dev, DEV), change(parent.holdout, HOLDOUT), parent.rate + gain)


def differences(challenger: int, champion: int) -> list[int]:
    """Return challenger minus champion, case by case."""
    return [(challenger >> i & 1) - (champion >> i & 1) for i in range(HOLDOUT)]


def dev_gain(challenger: Policy, champion: Policy) -> float:
    return (challenger.dev.bit_count() - champion.dev.bit_count()) / DEV


# --- the rules that are compared: differences on the hold-out -> keep the challenger? ------------------------------


def higher_mean(game: Sequence[int]) -> bool:
    return sum(game) > 0


def z_above(threshold: float) -> Callable[[Sequence[int]], bool]:
    """Return the rule "the mean difference is more than *threshold* standard errors above 0"."""

    def rule(game: Sequence[int]) -> bool:
        mean, square = sum(game) / len(game), sum(map(abs, game)) / len(game)
        return mean > threshold * math.sqrt((square - mean**2) / len(game))

    return rule


def e_test(game: Sequence[int]) -> bool:
    """Whether the evidence reaches 20 after any case: an e-process may be watched all the time."""
    wins = losses = 0
    for difference in game:
        wins, losses = wins + (difference == 1), losses + (difference == -1)
        if difference == 1 and best_bet(wins, losses) >= 20 and beta_binomial_e_value(wins, losses) >= 20:
            return True
    return False


def best_bet(wins: int, losses: int) -> float:
    """The largest evidence that any bet could have made: quick to compute, and never below that of the mixture."""
    d = wins + losses
    if wins <= losses:
        return 1.0
    return math.exp(wins * math.log(2 * wins / d) + (losses * math.log(2 * losses / d) if losses else 0.0))


RULES: dict[str, Callable[[Sequence[int]], bool]] = {
    "keep if the mean is higher": higher_mean,
    "mean more than 1 standard error": z_above(1.0),
    "z-test at 5 % each time": z_above(1.6449),
    "e-test at 5 % each time": e_test,
}
ONE_TIER, TWO_TIERS = "this gate, every challenger", "this gate, two tiers"


def useless_lifetime(rng: random.Random) -> set[str]:
    """Return the rules that promote any of 50 challengers none of which is better than the champion.

    Until its first promotion every rule sees the same challengers, so one lifetime serves them all.
    """
    champion, budget = first(rng), Budget()
    fooled: set[str] = set()
    for _ in range(CHALLENGERS):
        challenger = max((child(rng, champion, 0.0) for _ in range(BEST_OF)), key=lambda c: c.dev.bit_count())
        game = differences(challenger.holdout, champion.holdout)
        fooled |= {name for name, rule in RULES.items() if name not in fooled and rule(game)}
        if ONE_TIER not in fooled:
            promoted = confirmed(challenger, champion, budget)
            budget = budget.after(promoted=promoted)
            fooled |= {ONE_TIER} if promoted else set()
    return fooled


def confirmed(challenger: Policy, champion: Policy, budget: Budget) -> bool:
    game = differences(challenger.holdout, champion.holdout)
    return SignTest(HOLDOUT, budget.level).judge(game).decision == "promote"


@dataclass(frozen=True)
class Lifetime:
    """How a lifetime ended: true gains of the champion and of the greedy search behind it, and what was promoted."""

    kept: float
    found: float
    confirmations: int
    promotions: int
    false: int


def two_tier_lifetime(rng: random.Random, gains: Callable[[random.Random], float], best_of: int) -> Lifetime:
    """Search greedily on dev; confirm the head of the lineage once its dev gain is large enough."""
    champion = head = refused = first(rng)
    budget, failed, confirmations, promotions, false = Budget(), 0, 0, 0, 0
    for _ in range(CHALLENGERS):
        best = max((child(rng, head, gains(rng)) for _ in range(best_of)), key=lambda c: c.dev.bit_count())
        if dev_gain(best, head) > 0:
            head = best
        if head is refused or dev_gain(head, champion) < DEV_GAIN + DEV_STEP * failed - 1e-9:
            continue
        promoted = confirmed(head, champion, budget)
        budget = budget.after(promoted=promoted)
        confirmations += 1
        if promoted:
            promotions, false = promotions + 1, false + (head.rate <= champion.rate + 1e-9)
            champion, failed = head, 0
        else:
            refused, failed = head, failed + 1
    return Lifetime(champion.rate - START, head.rate - START, confirmations, promotions, false)


def one_tier_lifetime(rng: random.Random, gains: Callable[[random.Random], float]) -> Lifetime:
    """Send every candidate to the gate."""
    champion, budget, promotions, false = first(rng), Budget(), 0, 0
    for _ in range(CHALLENGERS):
        challenger = child(rng, champion, gains(rng))
        promoted = confirmed(challenger, champion, budget)
        budget = budget.after(promoted=promoted)
        if promoted:
            promotions, false = promotions + 1, false + (challenger.rate <= champion.rate)
            champion = challenger
    return Lifetime(champion.rate - START, champion.rate - START, CHALLENGERS, promotions, false)


def mixed(rng: random.Random) -> float:
    """One candidate in six is better by 3 to 12 points, one in three is useless, the rest harm by up to 12."""
    kind = rng.random()
    if kind < 1 / 6:
        return rng.uniform(0.03, 0.12)
    return 0.0 if kind < 1 / 2 else rng.uniform(-0.12, -0.01)


# --- figures -------------------------------------------------------------------------------------------------------


def ratio(subject: str, tops: Sequence[float], bottoms: Sequence[float]) -> Estimate:
    """A ratio of means, with its 95 % interval by linearization."""
    value = sum(tops) / sum(bottoms)
    scale = sum(bottoms) / len(bottoms)
    error = mean(subject, [(t - value * b) / scale for t, b in zip(tops, bottoms, strict=True)], "")
    return Estimate(subject, 100 * value, 100 * (value + error.low), 100 * (value + error.high), "%", len(tops))


def speed(rng: random.Random) -> list[Estimate]:
    """Time whole judgements of undecided runs, from the first pair to the last."""
    figures = []
    for name, make, size in (
        ("sign test", SignTest, 240),
        ("sign test", SignTest, 1_000),
        ("sign test", SignTest, 10_000),
        ("e-process", EProcess, 240),
    ):
        test, times = make(size, Budget().level), []
        for _ in range(200 if size < 10_000 else 3):
            game = rng.choices((1, -1, 0), (0.18, 0.12, 0.7), k=size)
            start = time.perf_counter()
            test.judge(game)
            times.append(1000 * (time.perf_counter() - start))
        times.sort()
        spread = times[len(times) // 20], times[-1 - len(times) // 20]
        figures.append(
            Estimate(f"one decision, {name}, {size:,} cases", times[len(times) // 2], *spread, "ms", len(times))
        )
        if size == 240:
            rates = (1000 / times[len(times) // 2], 1000 / spread[1], 1000 / spread[0])
            figures.append(Estimate(f"decisions a second, {name}, {size} cases", *rates, "/s", len(times)))
    return figures


def power(rng: random.Random, runs: int) -> list[Estimate]:
    """The share of confirmations that promote a true gain, where 90 % is planned at the first level."""
    figures, level = [], Budget().level
    for gain, discordance in ((0.10, 0.3), (0.05, 0.3), (0.37, 0.37)):
        size = cases_for(gain, level, discordance=discordance)
        test, weights = SignTest(size, level), ((discordance + gain) / 2, (discordance - gain) / 2, 1 - discordance)
        promoted = sum(test.judge(rng.choices((1, -1, 0), weights, k=size)).decision == "promote" for _ in range(runs))
        name = f"power, {100 * gain:+.0f} points, {100 * discordance:.0f} % discordant, {size:,} cases"
        figures.append(share(name, promoted, runs))
    return figures


def useless(rng: random.Random, lifetimes: int) -> list[Estimate]:
    """The share of lifetimes of useless challengers with any promotion, which is a false one."""
    fooled = [useless_lifetime(rng) for _ in range(lifetimes)]
    counts = {name: sum(name in rules for rules in fooled) for name in (*RULES, ONE_TIER)}
    two_tiers = [two_tier_lifetime(rng, lambda _: 0.0, BEST_OF) for _ in range(lifetimes)]
    counts[TWO_TIERS] = sum(lifetime.false > 0 for lifetime in two_tiers)
    figures = [share(f"false promotion in a lifetime: {name}", count, lifetimes) for name, count in counts.items()]
    return [*figures, mean("confirmations, two tiers, nothing better", [t.confirmations for t in two_tiers], "")]


def improving(rng: random.Random, lifetimes: int) -> list[Estimate]:
    """True gains in lifetimes where some candidates are better."""
    two = [two_tier_lifetime(rng, mixed, 1) for _ in range(lifetimes)]
    one = [one_tier_lifetime(rng, mixed) for _ in range(lifetimes // 4)]
    return [
        mean("true gain, greedy search on dev", [100 * t.found for t in two], "points"),
        mean("true gain certified, two tiers", [100 * t.kept for t in two], "points"),
        ratio("share of greedy search's true gain kept", [t.kept for t in two], [t.found for t in two]),
        mean("true gain certified, every candidate tested", [100 * t.kept for t in one], "points"),
        mean("confirmations, two tiers", [t.confirmations for t in two], ""),
        mean("promotions, two tiers", [t.promotions for t in two], ""),
        share("false promotion in a mixed lifetime, two tiers", sum(t.false > 0 for t in two), lifetimes),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lifetimes", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    parts = (
        speed(rng),
        power(rng, options.lifetimes // 2),
        useless(rng, options.lifetimes),
        improving(rng, options.lifetimes // 2),
    )
    publish_estimates("gate", options.seed, chain(*parts))


if __name__ == "__main__":
    main()
