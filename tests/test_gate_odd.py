"""The odd one out: a model that stays the same is not accused, one that was swapped is."""

from __future__ import annotations

import random
from itertools import product
from math import prod

import pytest

from gainful.gate.odd import STAKES, OddOneOut


@pytest.mark.parametrize("chances", [(0.5, 0.5), (0.9, 0.1), (0.2, 0.3, 0.5), (0.98, 0.01, 0.01)])
def test_evidence_grows_by_1_a_telling_probe_on_average_while_the_model_is_the_same(chances: tuple[float, ...]) -> None:
    """All answers to two probes enumerated, whatever the model's randomness: the mean of M is that of n exactly."""
    evidence = told = 0.0
    for answers in product(range(len(chances)), repeat=6):
        detector = OddOneOut(1000)
        detector.see(*answers[:3])
        detector.see(*answers[3:])
        chance = prod(chances[answer] for answer in answers)
        evidence, told = evidence + chance * detector.evidence, told + chance * detector.n

    assert evidence == pytest.approx(told)
    assert told > 0


def test_stakes_bet_on_probabilities_above_a_third() -> None:
    """M after one telling probe is the mean factor: 3q where the late one is odd, 3/2 (1 - q) where it is not."""
    chances = [(1 + stake) / 3 for stake in STAKES]
    late, early = OddOneOut(1000), OddOneOut(1000)

    late.see("a", "a", "b")
    early.see("a", "b", "b")

    assert all(1 / 3 < q <= 1 for q in chances)
    assert late.evidence == pytest.approx(sum(3 * q for q in chances) / len(chances))
    assert early.evidence == pytest.approx(sum(1.5 * (1 - q) for q in chances) / len(chances))


@pytest.mark.parametrize("answers", [("a", "a", "a"), ("a", "b", "c"), (None, None, None)])
def test_three_alike_and_three_different_say_nothing(answers: tuple[object, ...]) -> None:
    detector = OddOneOut(1000)
    detector.see("a", "a", "b")
    before = detector.evidence

    detector.see(*answers)

    assert (detector.evidence, detector.n, detector.late) == (before, 1, 1)


@pytest.mark.parametrize(("answers", "late"), [(("a", "b", "a"), 0), (("b", "a", "a"), 0), (("a", "a", None), 1)])
def test_the_odd_one_is_found_wherever_it_stands(answers: tuple[object, ...], late: int) -> None:
    detector = OddOneOut(1000)

    detector.see(*answers)

    assert (detector.n, detector.late) == (1, late)


def test_a_steady_model_that_was_swapped_is_found_after_8_changed_answers() -> None:
    detector = OddOneOut(1000)
    for case in range(20):
        detector.see(case, case, case)
    while not detector.rings:
        detector.see(0, 0, 1)

    assert detector.n == 8


def test_a_random_model_rings_late_while_it_is_the_same_and_soon_once_it_changed() -> None:
    """Answers at random from 3, one of them at 80 %; then another one.  Means of 300; error 7."""
    luck, before, after = random.Random(7), [0.8, 0.1, 0.1], [0.3, 0.6, 0.1]

    def telling(late: list[float]) -> int:
        detector = OddOneOut(threshold=50)
        while not detector.rings:
            detector.see(*luck.choices(range(3), before, k=2), *luck.choices(range(3), late))
        return detector.n

    assert sum(telling(before) for _ in range(300)) / 300 >= 50
    assert sum(telling(after) for _ in range(300)) / 300 < 20
