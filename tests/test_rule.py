"""The correction rule: closed at the start, opened and closed by evidence, rarely fooled."""

from __future__ import annotations

import random
from itertools import product

import pytest

from gainful.answers.rule import LEVEL, METHODS, WINDOW, Rule, Standing, is_suspect, standing
from gainful.core import Trial, Usage, Verdict
from gainful.gate import lower_bound, present_bound

SPENT = Usage(calls=1, prompt_tokens=90, completion_tokens=10, elapsed_ms=50.0)


def trial(before: float, after: float, method: str = "vote", extra: Usage = SPENT) -> Trial:
    return Trial(task="t", model="m", method=method, case="c", before=before, after=after, extra=extra)


def trials(fixed: int, broken: int, kept_right: int, kept_wrong: int, method: str = "vote") -> list[Trial]:
    """So many of each, shuffled: the order of trials is not to be chosen by their outcome."""
    ends = [(0.0, 1.0)] * fixed + [(1.0, 0.0)] * broken + [(1.0, 1.0)] * kept_right + [(0.0, 0.0)] * kept_wrong
    random.Random(0).shuffle(ends)
    return [trial(before, after, method) for before, after in ends]


def opened(method: str, extra_tokens: float = 100.0, ecr: float = 0.5, **more: float) -> Standing:
    return Standing(method, n=200, ecr=ecr, eir=0.1, net=0.2, low=0.1, extra_tokens=extra_tokens, **more)  # type: ignore[arg-type]


def affords(standing: Standing) -> bool:
    return True


# --- one method


def test_a_method_is_closed_at_the_start_and_unknown_is_not_zero() -> None:
    found = standing("vote", [])

    assert not found.is_open
    assert (found.acc, found.ecr, found.eir, found.net, found.low) == (None,) * 5
    assert "no trial yet" in found.why


def test_the_counts_and_shares_are_of_suspects_wrong_ones_and_right_ones() -> None:
    found = standing("vote", [*trials(40, 3, 57, 100), trial(0.0, 1.0, method="reask")])

    assert (found.n, found.fixed, found.broken, found.kept_right, found.kept_wrong) == (200, 40, 3, 57, 100)
    assert (found.acc, found.ecr, found.eir) == (60 / 200, 40 / 140, 3 / 60)
    assert found.net == pytest.approx(37 / 200)
    assert (found.extra_calls, found.extra_tokens, found.extra_ms) == (1.0, 100.0, 50.0)


def test_net_is_what_accuracy_fixing_and_breaking_make_of_it() -> None:
    found = standing("vote", trials(40, 3, 57, 100))
    assert found.acc is not None
    assert found.ecr is not None
    assert found.eir is not None

    assert found.net == pytest.approx((1 - found.acc) * found.ecr - found.acc * found.eir)


def test_shares_without_any_case_behind_them_are_unknown() -> None:
    assert standing("vote", trials(0, 0, 5, 0)).ecr is None
    assert standing("vote", trials(0, 0, 0, 5)).eir is None


def test_299_right_drafts_with_none_broken_certify_at_most_1_percent_harm() -> None:
    assert standing("vote", trials(0, 0, 299, 0)).eir_high < 0.01
    assert standing("vote", trials(0, 0, 298, 0)).eir_high > 0.01
    assert standing("vote", trials(0, 1, 298, 0)).eir_high > 0.01
    assert standing("vote", trials(9, 0, 0, 9)).eir_high == 1.0


def test_graded_scores_count_by_their_difference_and_only_1_is_right() -> None:
    found = standing("vote", [trial(0.5, 0.75), trial(0.75, 1.0), trial(1.0, 0.9)])

    assert (found.fixed, found.broken, found.kept_right, found.kept_wrong) == (1, 1, 0, 1)
    assert found.net == pytest.approx(0.4 / 3)


def test_a_method_that_pays_opens_and_says_why() -> None:
    found = standing("vote", trials(40, 3, 57, 100))

    assert found.is_open
    assert found.low is not None
    assert found.net is not None
    assert 0 < found.low < found.net
    assert "40 fixed, 3 broken, net +18.5 points, certainly above" in found.why


def test_a_method_that_may_pay_stays_closed_until_it_is_proven() -> None:
    found = standing("vote", trials(6, 2, 12, 20))

    assert not found.is_open
    assert "more trials may open it" in found.why
    assert "does not pay" in standing("vote", trials(2, 6, 12, 20)).why


def test_a_method_that_turned_bad_closes_long_before_its_good_days_are_forgotten() -> None:
    good, bad = trials(160, 0, 120, 220), trials(0, 40, 20, 40)
    found = standing("vote", good + bad)

    assert standing("vote", good).is_open
    assert found.low is not None
    assert found.low > 0.0
    assert not found.is_open
    assert "its latest trials do harm" in found.why
    assert standing("vote", good + bad + trials(80, 0, 60, 60)).is_open


def test_what_left_the_window_is_forgotten() -> None:
    recent = trials(100, 20, 280, 600)

    assert standing("vote", trials(0, 500, 0, 0) + recent) == standing("vote", recent)
    assert len(recent) == WINDOW


def test_money_is_unknown_where_any_trial_s_is() -> None:
    priced = Usage(calls=1, cost_usd=0.02)

    assert standing("vote", [trial(0, 1, extra=priced)] * 2).extra_cost_usd == pytest.approx(0.02)
    assert standing("vote", [trial(0, 1, extra=priced), trial(0, 1)]).extra_cost_usd is None


def test_the_present_bound_is_never_above_the_bound_of_all_moments() -> None:
    luck = random.Random(1)
    for _ in range(20):
        seen = [luck.choice((-1.0, 0.0, 0.0, 1.0, 1.0)) for _ in range(60)]
        assert present_bound(seen, 0.05, 60) <= lower_bound(seen, 0.05, 60)


@pytest.mark.slow
def test_a_method_that_does_not_pay_rarely_opens_over_all_its_lives() -> None:
    """All 1,024 lives of 10 fair trials, enumerated, looked at after each trial: no seed, no tolerance."""
    level = 0.2
    lives = list(product((trial(0.0, 1.0), trial(1.0, 0.0)), repeat=10))
    ever = sum(any(standing("vote", life[:n], level).is_open for n in range(1, 11)) for life in lives)

    assert 0 < ever / len(lives) <= level


@pytest.mark.slow
@pytest.mark.parametrize(("fixes", "breaks"), [(0.15, 0.15), (0.02, 0.02), (0.05, 0.15)])
def test_useless_and_harmful_methods_rarely_open(fixes: float, breaks: float) -> None:
    """Four methods at once, 100 lives of 300 trials, looked at after every 25; the longer ones are a benchmark."""
    luck = random.Random(2)
    ever = 0
    for _ in range(100):
        ends = [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)]
        weights = [fixes, breaks, 1 - fixes - breaks]
        life = {m: [trial(*e, method=m) for e in luck.choices(ends, weights, k=300)] for m in METHODS}
        ever += any(standing(m, life[m][:n]).is_open for n in range(25, 301, 25) for m in METHODS)

    assert ever <= LEVEL * 100


# --- choosing


def test_every_method_has_an_equal_share_of_the_level() -> None:
    seen = trials(40, 3, 57, 100)

    rule = Rule.of([*seen, *trials(0, 9, 9, 9, method="reask")])

    assert [s.method for s in rule.standings] == list(METHODS)
    assert rule.standings[METHODS.index("vote")].low == present_bound(
        [t.after - t.before for t in seen], LEVEL / 4, WINDOW
    )
    assert [s.method for s in rule.standings if s.is_open] == ["vote"]


def test_without_trials_nothing_is_chosen() -> None:
    assert Rule().choose(0.99, affords) is None
    assert Rule.of([]) == Rule()


def test_an_unknown_or_small_p_wrong_corrects_nothing() -> None:
    rule = Rule((opened("vote"),))

    assert rule.choose(None, affords) is None
    assert rule.choose(0.49, affords) is None
    assert rule.choose(0.5, affords) == rule.standings[0]


def test_only_open_methods_that_the_caller_affords_are_chosen() -> None:
    closed = Standing("reask", n=200, ecr=0.9, eir=0.0, net=0.1, low=-0.1)
    rule = Rule((closed, opened("vote"), opened("refine", ecr=0.4)))

    assert rule.choose(0.9, affords) == rule.standings[1]
    assert rule.choose(0.9, lambda s: s.method == "refine") == rule.standings[2]
    assert rule.choose(0.9, lambda s: False) is None


def test_an_expected_loss_is_not_chosen_though_the_method_is_open() -> None:
    harsh = Standing("vote", n=200, ecr=0.3, eir=0.4, net=0.1, low=0.05)

    assert Rule((harsh,)).choose(0.55, affords) is None  # .55 * .3 < .45 * .4
    assert Rule((harsh,)).choose(0.65, affords) == harsh


def test_harm_that_was_never_measured_counts_as_certain() -> None:
    unknown = Standing("vote", n=200, ecr=0.6, net=0.6, low=0.4)

    assert unknown.benefit(0.7) == pytest.approx(0.7 * 0.6 - 0.3)


def test_the_best_benefit_for_its_cost_wins() -> None:
    cheap, dear = opened("reask", 100.0, ecr=0.4), opened("vote", 500.0, ecr=0.6)

    assert Rule((cheap, dear)).choose(0.9, affords) == cheap


def test_money_is_the_cost_where_it_is_known_of_all() -> None:
    local, strong = opened("vote", 900.0, extra_cost_usd=0.001), opened("escalate", 100.0, extra_cost_usd=0.01)

    assert Rule((local, strong)).choose(0.9, affords) == local
    assert Rule((opened("vote", 900.0), strong)).choose(0.9, affords) == strong


# --- suspects


def test_a_detector_decides_who_is_suspect_and_checks_do_where_there_is_none() -> None:
    objection = [Verdict(check="a", trusted=True, score=0.0)]
    passed = [Verdict(check="a", trusted=True, score=1.0), Verdict(check="b", trusted=True)]

    assert is_suspect(0.5, passed)
    assert not is_suspect(0.49, objection)
    assert is_suspect(None, objection)
    assert not is_suspect(None, passed)
