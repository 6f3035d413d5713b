"""The odd one out: a model that stays the same is not accused, one that was swapped is."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise, product
from math import prod

import pytest

from gainful.gate.odd import STAKES, OddOneOut

STICKY = ((0.9, 0.1), (0.3, 0.7))  # the next answer's chances, by the last answer
ROUND = ((0.5, 0.5, 0.0), (0.0, 0.6, 0.4), (0.2, 0.0, 0.8))  # goes round in one direction: not alike backwards


@pytest.mark.parametrize("chances", [(0.5, 0.5), (0.9, 0.1), (0.2, 0.3, 0.5), (0.98, 0.01, 0.01)])
def test_evidence_grows_by_1_a_telling_probe_on_average_while_the_model_is_the_same(chances: tuple[float, ...]) -> None:
    """All answers to two probes enumerated, whatever the model's randomness: the mean of M is that of n exactly."""
    evidence, told, last = enumerated([chances] * len(chances))

    assert evidence == pytest.approx(told)
    assert last == pytest.approx(told / 2)
    assert told > 0


@pytest.mark.parametrize("chances", [STICKY, ROUND])
def test_that_answers_near_in_time_are_alike_is_no_evidence(chances: Sequence[Sequence[float]]) -> None:
    """The same for answers that follow each other as a stationary Markov chain, one that runs backwards too or not."""
    evidence, told, last = enumerated(chances)

    assert evidence == pytest.approx(told)
    assert last == pytest.approx(told / 2)
    assert told > 0.1


def enumerated(chances: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Return the means of M, of n and of ``last`` over all answers to two probes."""
    evidence = told = last = 0.0
    begin = stationary(chances)
    for answers in product(range(len(chances)), repeat=6):
        detector, chance = OddOneOut(1000), 1.0
        for probe in (answers[:3], answers[3:]):
            detector.see(*probe)
            chance *= begin[probe[0]] * prod(chances[one][other] for one, other in pairwise(probe))
        evidence += chance * detector.evidence
        told += chance * detector.n
        last += chance * detector.last
    return evidence, told, last


def stationary(chances: Sequence[Sequence[float]]) -> list[float]:
    found = [1 / len(chances)] * len(chances)
    for _ in range(200):
        found = [sum(found[a] * chances[a][b] for a in range(len(chances))) for b in range(len(chances))]
    return found


def test_stakes_bet_on_probabilities_above_a_half() -> None:
    """M after one telling probe is the mean factor: 2q where the last one is odd, 2 (1 - q) where the first one is."""
    chances = [(1 + stake) / 2 for stake in STAKES]
    last, first = OddOneOut(1000), OddOneOut(1000)

    last.see("a", "a", "b")
    first.see("a", "b", "b")

    assert all(1 / 2 < q <= 1 for q in chances)
    assert last.evidence == pytest.approx(sum(2 * q for q in chances) / len(chances))
    assert first.evidence == pytest.approx(sum(2 * (1 - q) for q in chances) / len(chances))


@pytest.mark.parametrize("answers", [("a", "a", "a"), ("a", "b", "c"), ("a", "b", "a"), (None, None, None)])
def test_the_middle_one_odd_three_alike_and_three_different_say_nothing(answers: tuple[object, ...]) -> None:
    detector = OddOneOut(1000)
    detector.see("a", "a", "b")
    before = detector.evidence

    detector.see(*answers)

    assert (detector.evidence, detector.n, detector.last) == (before, 1, 1)


@pytest.mark.parametrize(("answers", "last"), [(("b", "a", "a"), 0), (("a", "a", None), 1)])
def test_the_odd_one_is_found_at_either_end(answers: tuple[object, ...], last: int) -> None:
    detector = OddOneOut(1000)

    detector.see(*answers)

    assert (detector.n, detector.last) == (1, last)


@pytest.mark.parametrize(("threshold", "changed"), [(1000, 11), (10_000, 15)])
def test_a_steady_model_that_was_swapped_is_found_after_11_or_15_changed_answers(threshold: int, changed: int) -> None:
    detector = OddOneOut(threshold)
    for case in range(20):
        detector.see(case, case, case)
    while not detector.rings:
        detector.see(0, 0, 1)

    assert detector.n == changed


def test_what_came_after_a_swap_does_not_silence_what_rang() -> None:
    """The probes with one answer before it and two after argue the other way, and come later."""
    detector = OddOneOut(1000)
    for answers in [(0, 0, 1)] * 11 + [(0, 1, 1)] * 30:
        detector.see(*answers)

    assert detector.rings
    assert detector.evidence < 2


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
