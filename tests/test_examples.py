"""The example tells its story, and keeps the error rates that it states."""

from __future__ import annotations

import importlib.util
import math
import random
import subprocess
import sys
from functools import cache, reduce
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

MINI = Path(__file__).parent.parent / "examples" / "mini.py"


@pytest.fixture(scope="module")
def mini() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mini", MINI)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mini"] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


def story(mini: ModuleType, seed: int) -> list[str]:
    lines: list[str] = []
    mini.main(seed, lines.append)
    return lines


def test_the_story_has_a_promotion_a_refusal_and_a_roll_back(mini: ModuleType) -> None:
    lines: list[str] = []

    in_service = mini.main(0, lines.append)

    assert [line.split()[1] for line in lines if line.startswith("confirm")] == ["PROMOTED", "refused", "PROMOTED"]
    assert "the champion stays" in lines[-2]
    assert "rolled back" in lines[-1]
    assert in_service == (mini.BARE,)


def test_a_seed_fixes_every_line_of_the_story(mini: ModuleType) -> None:
    assert story(mini, 3) == story(mini, 3)
    assert story(mini, 3) != story(mini, 4)


def test_the_file_runs_alone_without_the_package_and_prints_the_same_story(mini: ModuleType) -> None:
    ran = subprocess.run([sys.executable, "-I", "-S", str(MINI), "0"], capture_output=True, text=True, check=True)

    assert ran.stdout.splitlines() == story(mini, 0)


def test_what_looks_right_on_dev_and_is_wrong_is_never_promoted(mini: ModuleType) -> None:
    """The largest amount after a euro sign is the note, not the price; no check on dev can tell."""
    for seed in range(10):
        luck = random.Random(seed)
        dev = [mini.bill(luck).question for _ in range(100)]
        holdout = [mini.bill(luck) for _ in range(400)]

        champions = mini.improve(dev, holdout, lambda line: None)

        assert all(mini.LARGEST not in champion for champion in champions)
        assert champions[-1] == (mini.BARE, mini.COPY)


def test_the_learning_side_finds_errors_without_an_answer_key(mini: ModuleType) -> None:
    question = mini.bill(random.Random(5)).question

    amount = question.split("€")[1].split()[0]

    assert mini.error(question, amount) is None
    assert mini.error(question, f"It was {amount}.") == "not a bare number"
    assert mini.error(question, "1") == "not an amount in the question"


@pytest.mark.parametrize("level", [0.5, 0.2, 0.05])
def test_an_equal_challenger_is_rarely_promoted(mini: ModuleType, level: float) -> None:
    """All 4,096 fair games of 12 cases, enumerated."""
    games = list(product((-1.0, 1.0), repeat=12))

    promoted = sum(mini.bet(game, level)[0] for game in games)

    assert 0 < promoted / len(games) <= level


def chance_of_promotion(mini: ModuleType, level: float, discordant: int) -> float:
    """Return the exact chance that a challenger equal to its champion is promoted, by dynamic programming.

    The money depends on wins and losses alone, so the paths that have not yet reached 1/level are counted by wins.
    """
    alive, promoted = {0: 1.0}, 0.0
    for games in range(1, discordant + 1):
        after: dict[int, float] = {}
        for wins, chance in alive.items():
            for more in (0, 1):
                after[wins + more] = after.get(wins + more, 0.0) + chance / 2
        for wins in list(after):
            purses = [(1 + stake) ** wins * (1 - stake) ** (games - wins) for stake in mini.STAKES]
            if sum(purses) / len(purses) >= 1 / level:
                promoted += after.pop(wins)
        alive = after
    return promoted


def test_fifty_useless_challengers_in_a_lifetime_are_falsely_promoted_in_at_most_one_lifetime_of_twenty(
    mini: ModuleType,
) -> None:
    """Exact, by the union bound, so under any dependence between the fifty confirmations on one hold-out."""
    budget, total = mini.Budget(), 0.0
    for _ in range(50):
        chance = chance_of_promotion(mini, budget.level, discordant=60)
        assert chance <= budget.level
        total += chance
        budget = budget.after(promoted=False)

    assert 0.0 < total <= 0.05


@cache
def tail(rank: int) -> float:
    """Return the sum of k**-1.3 over all k from *rank* on (Euler-Maclaurin beyond the first thousand)."""
    return math.fsum(k**-1.3 for k in range(rank, 1000)) + 1000**-0.3 / 0.3 + 1000**-1.3 / 2


def test_no_history_of_promotions_and_refusals_spends_more_than_the_budget(mini: ModuleType) -> None:
    """The two inequalities of the induction, after every one of the 1,023 histories of up to nine confirmations."""

    def promised(budget: Any) -> float:  # the sum of all levels from here on, if every confirmation is refused
        return float(budget.left * tail(budget.rank) / tail(1))

    histories = [history for length in range(10) for history in product((False, True), repeat=length)]
    for history in histories:
        budget = reduce(lambda held, promoted: held.after(promoted), history, mini.Budget())

        assert budget.level + promised(budget.after(promoted=False)) <= promised(budget) * (1 + 1e-9)
        assert promised(budget.after(promoted=True)) <= budget.level * (1 + 1e-9)
    assert promised(mini.Budget()) == 0.05


def test_a_champion_that_stays_as_good_is_rarely_rolled_back(mini: ModuleType) -> None:
    alarms = 0
    for seed in range(40):
        luck = random.Random(seed)
        alarm, _ = mini.watch((mini.BARE, mini.COPY), (mini.BARE,), (mini.bill(luck) for _ in range(100)))
        alarms += alarm

    assert alarms == 0


def test_a_stake_is_lost_on_a_loss_and_won_on_a_win(mini: ModuleType) -> None:
    assert list(mini.evidence([0.0])) == [1.0]
    assert list(mini.evidence([-1.0])) == [pytest.approx(1 - sum(mini.STAKES) / len(mini.STAKES))]
    assert mini.bet([1.0] * 100, 0.01) == (True, 11)
    assert mini.bet([], 0.01) == (False, 0)
