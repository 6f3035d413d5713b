"""Five small tasks of reasoning-gym as one: two terms, two digits, three letters; practice, dev and evaluation apart.

A question is for practice or for everything else by its digest (``tasks.gym``), so no evaluated question is ever
sampled, and the easy ones, of which there are few, fall to both sides alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import chain

from gainful.checks.gym import Gym
from gainful.core import Answer, Case, Policy, Score, Text
from gainful.tasks import Holdout, Task, load

GYMS = {
    "chain_sum": "min_terms=2&max_terms=2&min_digits=1&max_digits=2",
    "basic_arithmetic": "min_terms=2&max_terms=2&min_digits=1&max_digits=2",
    "letter_counting": "min_words=3&max_words=6",
    "spell_backward": "min_word_len=3&max_word_len=3",
    "gcd": "min_numbers=2&max_numbers=2&min_value=1&max_value=99",
}
CONFIRMED = 80  # held-out cases of each gym a confirmation may use


@dataclass(frozen=True)
class OfFive:
    """The scorer of the gym that the case is from; less than 1 is wrong."""

    name: str = "gym"
    trusted: bool = True
    needs_target: bool = True

    @property
    def spec(self) -> dict[str, object]:
        return {"kind": "five-gyms", "gyms": GYMS}

    def __call__(self, case: Case, answer: Answer) -> Score | None:
        scored = scorer(gym_of(case))(case, answer)
        return scored if scored is None else Score(float(scored.value == 1.0), scored.feedback, scored.group)


@cache
def scorer(gym: str) -> Gym:
    return Gym(gym, dict(load_gym(gym, 1, 0, 0).spec["parameters"]))


@cache
def load_gym(gym: str, size: int, practice: int, seed: int) -> Task:
    return load(f"reasoning-gym:{gym}?{GYMS[gym]}&size={size}&practice={practice}&seed={seed}")


def gym_of(case: Case) -> str:
    """Return the name of the gym that *case* is from."""
    return str(case.metadata["gym"]["source_dataset"])


def five_gyms(dev: int, practice: int, evaluated: int, seed: int) -> tuple[Task, tuple[Case, ...]]:
    """Return the task, and cases that it does not hold, for evaluation: *dev*, *practice*, *evaluated* of each gym."""
    gyms = [load_gym(gym, dev + evaluated, practice, seed) for gym in GYMS]
    check = OfFive()

    def draw(count: int, number: int, registration: str) -> tuple[Case, ...]:
        parts = [gym.holdout.open(registration, CONFIRMED, number) for gym in gyms]
        return tuple(chain.from_iterable(zip(*parts, strict=True)))[:count]

    task = Task(
        name=f"five-gyms-{seed}",
        kind=Text(),
        dev=tuple(chain.from_iterable(gym.dev[evaluated:] for gym in gyms)),
        practice=tuple(chain.from_iterable(gym.practice for gym in gyms)),
        holdout=Holdout.drawn("five-gyms", {"gyms": GYMS, "seed": seed}, draw),
        checks=(check,),
        proof=(check,),
        baseline=Policy(max_tokens=16),
        spec={"name": "five-gyms", "load": "five-gyms", "seed": seed, "checks": [check.spec], "proof": [check.spec]},
    )
    return task, tuple(chain.from_iterable(gym.dev[:evaluated] for gym in gyms))
