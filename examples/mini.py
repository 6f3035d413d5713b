"""The whole idea of Gainful in one file that needs nothing but Python.

A model reads bills and makes mistakes.  It gets better, and nobody has to decide whether it did:

1. checks that need no answer key find its errors on *dev* questions;
2. a learner proposes other instructions, and a race on dev picks the most promising: search is free;
3. only a confirmation on *held-out* cases, with the answer key, puts them into service: promotion is paid for,
   out of an error budget that lasts for a lifetime;
4. the policy it replaced keeps a share of the traffic, so that a gain that vanishes is taken back.

Everything else in Gainful makes these four steps real: true models, true tasks, crashes, proof for strangers.

    python examples/mini.py [SEED]
"""

from __future__ import annotations

import math
import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

# --- the nouns ------------------------------------------------------------------------------------------

Policy = tuple[str, ...]  # how to answer: instructions, one sentence each


@dataclass(frozen=True)
class Case:
    """A question, and the answer key that only a confirmation may read."""

    question: str
    target: str


def bill(luck: random.Random, *, euro_first: bool = True) -> Case:
    """Draw a bill from the population that the claims are about."""
    count, price = luck.randint(2, 9), luck.randint(10, 80)
    note = price + luck.randint(1, 20)
    who, what = luck.choice(["Ana", "Ben", "Chi", "Dee"]), luck.choice(["lamps", "books", "chairs", "pens"])
    paid = f"€{price} for {count}" if euro_first else f"{price} EUR for {count}"
    return Case(f"{who} owed {paid} {what} and gave a note of €{note}. What was the price?", str(price))


# --- a model, scripted so that this file needs none -----------------------------------------------------

BARE = "Answer with the number alone."
COPY = "Copy the first amount after a euro sign."
LARGEST = "Take the largest amount after a euro sign."
FLATTERY = "You are a world-class accountant."
HURRY = "Answer at once."


def model(policy: Policy, question: str) -> str:
    """Answer as a small model does: often wrong, each time for a reason that an instruction may remove.

    Other words in the instructions move its slips to other questions, even words that mean nothing: this is
    why an edit that does nothing so often looks like an improvement.
    """
    habits, slips = random.Random(question), random.Random(f"{policy} {question}")
    euros, numbers = re.findall(r"€(\d+)", question), re.findall(r"\d+", question)
    if COPY in policy:
        number = euros[0]
    elif LARGEST in policy:
        number = max(euros, key=int)
    else:
        number = numbers[0] if habits.random() < 0.6 else numbers[1]
    if slips.random() < 0.1:
        number = slips.choice(numbers)
    chatty = BARE not in policy and slips.random() < 0.8
    return f"The price was {number} euros." if chatty else number


# --- errors are found without an answer key -------------------------------------------------------------


def error(question: str, answer: str) -> str | None:
    """Name what is visibly wrong with an answer, ``None`` if nothing is.  Learning sees no more than this."""
    if not answer.isdigit():
        return "not a bare number"
    if f"€{answer}" not in question and f"{answer} EUR" not in question:
        return "not an amount in the question"
    return None


def is_clean(policy: Policy, question: str) -> bool:
    """Ask, and say whether the answer has no visible error."""
    return error(question, model(policy, question)) is None


# --- search is free: propose mechanically, race on dev --------------------------------------------------


def propose(champion: Policy, tried: set[Policy]) -> list[Policy]:
    """Return every policy that has one more sentence and was not refused before.  It takes no model to propose."""
    longer = [(*champion, sentence) for sentence in (BARE, LARGEST, COPY, FLATTERY, HURRY) if sentence not in champion]
    return [policy for policy in longer if policy not in tried]


def race(runners: Sequence[Policy], dev: Sequence[str]) -> Policy:
    """Return the runner with the fewest visible errors: the better half runs on, on twice the questions."""
    size = 10
    while len(runners) > 1:
        questions = dev[:size]
        ranked = sorted(runners, key=lambda policy: -sum(is_clean(policy, question) for question in questions))
        runners, size = ranked[: len(ranked) // 2], size * 2
    return runners[0]


# --- promotion is paid: bet on the paired differences ---------------------------------------------------

STAKES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8)  # shares bet per case; we hold one purse for each and average them


def evidence(differences: Iterable[float]) -> Iterator[float]:
    """Yield the money that a bet on the challenger has made, after each difference in [-1, 1].

    If the challenger is no better, the money is a supermartingale that starts at 1, so that it ever reaches
    1/a with a probability of at most a (Ville, 1939).  Looking after every case is therefore free.

    >>> [round(money, 3) for money in evidence([1.0, 1.0, -1.0])]
    [1.325, 1.822, 1.041]
    """
    purses = [1.0] * len(STAKES)
    for difference in differences:
        purses = [purse * (1 + stake * difference) for purse, stake in zip(purses, STAKES, strict=True)]
        yield sum(purses) / len(purses)


def bet(differences: Iterable[float], level: float) -> tuple[bool, int]:
    """Say whether the money reaches 1/level, and after how many cases that was decided."""
    seen = 0
    for seen, money in enumerate(evidence(differences), start=1):
        if money >= 1 / level:
            return True, seen
    return False, seen


def difference(challenger: Policy, champion: Policy, case: Case) -> int:
    """Return 1 where only the challenger is right, -1 where only the champion is, else 0."""
    return (model(challenger, case.question) == case.target) - (model(champion, case.question) == case.target)


def confirm(challenger: Policy, champion: Policy, holdout: Sequence[Case], level: float) -> tuple[bool, int]:
    """Compare both on held-out cases, in an order that nobody chose."""
    order = random.Random(f"{challenger} {champion}").sample(holdout, len(holdout))
    return bet((difference(challenger, champion, case) for case in order), level)


@dataclass(frozen=True)
class Budget:
    """What is left of the one chance in twenty that any promotion, ever, is false.

    A refusal moves down a series that sums to ``left``; a promotion goes on with what its own level was.  All
    that the hold-out ever tells is one bit a confirmation, and this pays for every history of bits.
    """

    left: float = 0.05
    rank: int = 1

    @property
    def level(self) -> float:
        return self.left * math.pow(self.rank, -1.3) / 3.931949211809544  # ζ(1.3): the levels of all ranks sum to left

    def after(self, promoted: bool) -> Budget:
        return Budget(self.level) if promoted else Budget(self.left, self.rank + 1)


# --- the loop -------------------------------------------------------------------------------------------


def improve(dev: Sequence[str], holdout: Sequence[Case], say: Callable[[str], None]) -> list[Policy]:
    """Return every champion in turn, the first one being the empty policy."""
    champions: list[Policy] = [()]
    tried: set[Policy] = set()
    budget, refused = Budget(), 0
    while runners := propose(champions[-1], tried):
        champion, challenger = champions[-1], race(runners, dev)
        before, after = (sum(is_clean(policy, q) for q in dev) / len(dev) for policy in (champion, challenger))
        say(f"race    {challenger[-1]!r} leads {len(runners)} candidates: {before:.0%} -> {after:.0%} clean on dev")
        if after - before < 0.04 + 0.02 * refused:  # a confirmation costs budget: do not spend it on a whim
            say("        too little to spend error budget on; the search ends")
            break
        promoted, seen = confirm(challenger, champion, holdout, budget.level)
        verdict = "PROMOTED" if promoted else "refused"
        say(f"confirm {verdict} at level {budget.level:.5f} after {seen} of {len(holdout)} held-out cases")
        budget, refused = budget.after(promoted), refused + (not promoted)
        tried.add(challenger)
        if promoted:
            champions.append(challenger)
    return champions


def watch(champion: Policy, former: Policy, traffic: Iterable[Case]) -> tuple[bool, int]:
    """Bet, on live traffic, that the former champion has become the better one; at most 1 false alarm in 100."""
    return bet((difference(former, champion, case) for case in traffic), level=0.01)


def main(seed: int = 0, say: Callable[[str], None] = print) -> Policy:
    """Tell the story and return the policy that is in service at its end."""
    luck = random.Random(seed)
    dev = [bill(luck).question for _ in range(100)]  # without targets: learning cannot read what is not there
    holdout = [bill(luck) for _ in range(400)]

    champions = improve(dev, holdout, say)
    fresh = [bill(luck) for _ in range(1000)]  # the hold-out chose the champion, so it flatters it
    before, after = (
        sum(model(p, case.question) == case.target for case in fresh) for p in (champions[0], champions[-1])
    )
    say(f"result  {before / 1000:.1%} -> {after / 1000:.1%} right on 1,000 fresh bills")
    say(f"        in service: {' '.join(champions[-1])}")

    champion, former = champions[-1], champions[-2:][0]
    alarm, seen = watch(champion, former, (bill(luck) for _ in range(300)))
    say(f"watch   {seen} bills of the same kind: {'rolled back' if alarm else 'the champion stays'}")
    alarm, seen = watch(champion, former, (bill(luck, euro_first=False) for _ in range(300)))
    say(f"watch   the bills now read '41 EUR': {'rolled back' if alarm else 'no alarm'} after {seen} of them")
    return former if alarm else champion


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
