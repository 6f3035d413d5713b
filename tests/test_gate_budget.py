"""The lifetime budget: the tree of bit histories, walked exactly."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gainful.gate.budget import DECAY, PI_SQUARED, ZETA, Budget, epoch_alpha
from gainful.gate.level import exact
from gainful.gate.sign_test import SignTest

ALPHA = exact(Budget().alpha)


def test_zeta_is_the_sum_of_the_decaying_powers_rounded_up() -> None:
    """Euler-Maclaurin at n = 1,000 with three corrections errs by less than 1e-26."""
    with localcontext(prec=50):
        s, n = DECAY, Decimal(1000)
        total = sum(Decimal(i) ** -s for i in range(1, 1000)) + n ** (1 - s) / (s - 1) + n**-s / 2
        total += s * n ** (-s - 1) / 12 - s * (s + 1) * (s + 2) * n ** (-s - 3) / 720
        total += s * (s + 1) * (s + 2) * (s + 3) * (s + 4) * n ** (-s - 5) / 30240

        assert abs(ZETA - total) < Decimal("1e-24")


def test_pi_squared_is_rounded_up() -> None:
    with localcontext(prec=50):
        pi = Decimal("3.1415926535897932384626433832795028841971693993751")

        assert 0 < PI_SQUARED - pi * pi < Decimal("1e-29")


def test_levels_are_the_formula_cut_off_after_twelve_digits() -> None:
    """From 0.05 / 3.931949211809544 * (1, 2^-1.3, 3^-1.3), in double precision."""
    budget = Budget()

    levels = []
    for _ in range(3):
        levels.append(budget.level)
        budget = budget.after(promoted=False)

    assert levels == [0.0127163392268, 0.00516443850493, 0.00304862827816]


@settings(max_examples=100, deadline=None)
@given(st.floats(1e-9, 0.99), st.integers(1, 10_000))
def test_a_level_survives_json_and_is_never_rounded_up(alpha: float, rank: int) -> None:
    level = Budget(alpha, rank).level

    assert len(Decimal(repr(level)).normalize().as_tuple().digits) <= 12
    assert exact(level) == Fraction(Decimal(repr(level)))
    with localcontext(prec=50):
        formula = Decimal(exact(alpha).numerator) / exact(alpha).denominator * Decimal(rank) ** -DECAY / ZETA
    assert 0 <= Fraction(formula) - exact(level) <= exact(level) / 10**11


def test_a_promotion_hands_on_its_level_and_a_rejection_the_next_rank() -> None:
    budget = Budget(0.05, rank=3)

    assert budget.after(promoted=False) == Budget(0.05, 4)
    assert budget.after(promoted=True) == Budget(budget.level, 1)


def test_with_fresh_cases_a_promotion_costs_nothing() -> None:
    budget = Budget(0.05, rank=3)

    assert budget.after(promoted=True, fresh=True) == budget
    assert budget.after(promoted=False, fresh=True) == Budget(0.05, 4)


def test_no_pattern_of_better_and_no_better_challengers_beats_alpha() -> None:
    """All 128 patterns on the tree of three confirmations; errors on one hold-out as disjoint as they can be."""
    histories = ["".join(bits) for depth in range(3) for bits in product("01", repeat=depth)]

    for pattern in product((False, True), repeat=len(histories)):
        better = {h for h, is_better in zip(histories, pattern, strict=True) if is_better}
        assert lifetime_error(better, 3) <= ALPHA - left_at("000")


def lifetime_error(better: set[str], depth: int, history: str = "") -> Fraction:
    """The most that P(a false promotion at *history* or later) can be, if challengers at *better* are truly better."""
    if len(history) == depth:
        return Fraction(0)
    rejected = lifetime_error(better, depth, history + "0")
    if history in better:
        return rejected + lifetime_error(better, depth, history + "1")
    return rejected + level_at(history)


def left_at(history: str) -> Fraction:
    """What a history of rejections has left of alpha."""
    return ALPHA - sum(level_at(history[:n]) for n in range(len(history)))


@cache
def budget_at(history: str) -> Budget:
    return budget_at(history[:-1]).after(promoted=history[-1] == "1") if history else Budget()


@cache
def level_at(history: str) -> Fraction:
    return exact(budget_at(history).level)


def test_the_worst_pattern_of_a_deep_tree_is_that_nothing_is_ever_better() -> None:
    """Ten confirmations: 1,023 nodes, at each the worse of the two truths."""

    def worst(history: str) -> Fraction:
        if len(history) == 10:
            return Fraction(0)
        rejected = worst(history + "0")
        return rejected + max(level_at(history), worst(history + "1"))

    assert worst("") == ALPHA - left_at("0" * 10)


def test_what_is_left_after_a_confirmation_is_what_its_branches_share() -> None:
    """B(h0) + a(h) <= B(h), B(h1) <= a(h): the induction of the module's proof, at the first 200 ranks."""
    spent = Fraction(0)
    for rank in range(1, 201):
        level = exact(Budget(0.05, rank).level)
        spent += level

        assert exact(Budget(0.05, rank).after(promoted=True).alpha) <= level
    assert spent < ALPHA


@pytest.mark.parametrize("nulls", list(product((False, True), repeat=3)))
def test_no_adaptive_game_on_one_hold_out_promotes_falsely_more_often_than_alpha(
    nulls: tuple[bool, ...],
) -> None:
    """Real tests, real budget, every hold-out of eight fair pairs.

    The challenger of each round depends on the bits so far: it flips the signs of some pairs, in a pattern of the
    history's own, so that its errors fall on other hold-outs than those before.  A better one wins six pairs for sure.
    """
    alpha, size = 0.9, 8
    false = 0
    for signs in product((1, -1), repeat=size):
        budget, history, wrong = Budget(alpha), 1, False
        for round_, null in enumerate(nulls):
            flips = (history * 0b10110101 >> round_) & 0b11111111
            game = [-sign if flips >> i & 1 else sign for i, sign in enumerate(signs)]
            if not null:
                game[:6] = [1] * 6
            promoted = SignTest(size, budget.level).judge(game).decision == "promote"
            wrong |= promoted and null
            budget = budget.after(promoted=promoted)
            history = 2 * history + promoted
        false += wrong

    assert Fraction(false, 2**size) <= exact(alpha)


def test_fresh_cases_keep_the_promise_too() -> None:
    """The worst case of every tree of five confirmations, when what comes after is independent: an exact recursion."""

    @cache
    def worst(budget: Budget, left: int) -> Fraction:
        if left == 0:
            return Fraction(0)
        level = exact(budget.level)
        kept = worst(budget.after(promoted=True, fresh=True), left - 1)
        lost = worst(budget.after(promoted=False, fresh=True), left - 1)
        return max(level + (1 - level) * lost, kept, lost)

    assert all(worst(Budget(), confirmations) <= ALPHA for confirmations in (1, 2, 3, 5, 40))


def test_epochs_together_spend_no_more_than_alpha() -> None:
    levels = [exact(epoch_alpha(0.05, epoch)) for epoch in range(1, 1001)]

    assert float(levels[0]) == pytest.approx(0.05 * 6 / 9.8696044011, rel=1e-9)
    assert levels == sorted(levels, reverse=True)
    assert ALPHA * Fraction(998, 1000) < sum(levels, Fraction(0)) < ALPHA


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Budget(0.0), r"level 0.0 is outside \(0, 1\)"),
        (lambda: Budget(1.5), r"level 1.5 is outside \(0, 1\)"),
        (lambda: Budget(float("nan")), r"level nan is outside \(0, 1\)"),
        (lambda: Budget(0.05, 0), "rank 0 is below 1; the first"),
        (lambda: epoch_alpha(0.05, 0), "epoch 0 is below 1; the first"),
    ],
)
def test_budgets_that_cannot_be_are_refused(make: object, words: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=words):
        make()
