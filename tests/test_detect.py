"""From evidence to P(wrong), on cases whose truth is simulated and so known."""

from __future__ import annotations

import math
import random
import subprocess
import sys
import timeit
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gainful.answers.detect import LOWEST_LOGPROB, Curve, Detector, Feature, evidence
from gainful.core import Answer, CalibrationError, JsonObject, Verdict, canonical
from gainful.loop.fitting import Fitted, auroc, auroc_interval, calibration_error, fit

pytestmark = pytest.mark.slow  # fitting takes seconds

SLOPE = 1.5


def true_chance(x: float) -> float:
    return 1 / (1 + math.exp(-SLOPE * x))


def simulated(n: int, seed: int) -> tuple[list[dict[str, float]], list[bool]]:
    """One feature that tells, one that does not, and one that half of the cases lack."""
    luck = random.Random(seed)
    evidences, wrong = [], []
    for _ in range(n):
        x = luck.gauss(0, 1)
        found = {"tells": x, "useless": luck.random()}
        if luck.random() < 0.5:
            found["rare"] = luck.random()
        evidences.append(found)
        wrong.append(luck.random() < true_chance(x))
    return evidences, wrong


def detector(fitted: Fitted) -> Detector:
    assert fitted.detector is not None, fitted.reason
    return fitted.detector


@pytest.fixture(scope="module")
def fitted() -> Detector:
    return detector(fit(*simulated(2000, seed=1)))


# --- evidence


def reply(*logprobs: object) -> JsonObject:
    return {"choices": [{"logprobs": {"content": [{"token": "a", "logprob": p} for p in logprobs]}}]}


def test_evidence_holds_what_is_known_and_nothing_else() -> None:
    verdicts = [Verdict(check="a", trusted=True, score=0.5), Verdict(check="b", trusted=False)]

    found = evidence(Answer(text=""), verdicts, reply(-0.5, -1.5))

    assert found == {"no_answer": 1.0, "check:a": 0.5, "mean_logprob": -1.0, "min_logprob": -1.5}


def test_agreement_is_the_share_of_samples_that_equal_the_answer_as_json_values() -> None:
    samples = ({"a": 1}, {"a": 1.0}, None, {"a": 2})

    assert evidence(Answer(text="", value={"a": 1}, samples=samples), [])["agreement"] == 0.5
    assert "agreement" not in evidence(Answer(text="", value=1, samples=(1,)), [])
    assert evidence(Answer(text="", samples=(None, None)), [])["agreement"] == 0.0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [None]},
        {"choices": [{"logprobs": None}]},
        {"choices": [{"logprobs": {"content": None}}]},
        {"choices": [{"logprobs": {"content": [{}, None, {"logprob": "x"}, {"logprob": float("nan")}]}}]},
    ],
)
def test_a_reply_without_log_probabilities_gives_no_evidence_of_that_kind(body: JsonObject) -> None:
    assert evidence(Answer(text="x", value="x"), [], body) == {"no_answer": 0.0}


def test_tokens_without_a_letter_or_a_digit_tell_of_the_form_and_do_not_count() -> None:
    tokens = [('{"', -12.0), ("base", -1.0), ('":', -9.0), ("10", -2.0), ("}", -7.0)]
    content = [{"token": token, "logprob": logprob} for token, logprob in tokens]

    found = evidence(Answer(text=""), [], {"choices": [{"logprobs": {"content": content}}]})

    assert (found["mean_logprob"], found["min_logprob"]) == (-1.5, -2.0)


def test_impossible_tokens_count_as_very_unlikely_ones() -> None:
    assert evidence(Answer(text=""), [], reply(-9999.0, float("-inf")))["mean_logprob"] == LOWEST_LOGPROB


# --- the detector


def test_the_chance_is_near_the_true_one(fitted: Detector) -> None:
    for x in (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0):
        assert fitted.p_wrong({"tells": x, "useless": 0.5}) == pytest.approx(true_chance(x), abs=0.08)
    assert fitted.ece < 0.04


def test_the_auroc_is_near_the_true_one_and_inside_its_interval(fitted: Detector) -> None:
    evidences, wrong = simulated(20_000, seed=2)
    true = auroc([true_chance(e["tells"]) for e in evidences], wrong)

    assert fitted.auroc == pytest.approx(true, abs=0.03)
    assert fitted.auroc_low < true < fitted.auroc_high
    assert fitted.auroc_high - fitted.auroc_low < 0.05


def test_what_is_promised_out_of_sample_is_kept_on_fresh_cases(fitted: Detector) -> None:
    evidences, wrong = simulated(5000, seed=3)
    chances = [fitted.p_wrong(e) or 0.0 for e in evidences]

    assert auroc(chances, wrong) == pytest.approx(fitted.auroc, abs=0.03)
    assert calibration_error(chances, wrong) < 0.04


@settings(deadline=None)
@given(a=st.floats(-5, 5), b=st.floats(-5, 5))
def test_the_chance_never_falls_as_the_evidence_of_an_error_grows(fitted: Detector, a: float, b: float) -> None:
    low, high = (fitted.p_wrong({"tells": x}) for x in sorted((a, b)))

    assert low is not None
    assert high is not None
    assert 0.0 < low <= high < 1.0
    assert all(x < y for x, y in pairwise(fitted.curve.sums))
    assert all(x <= y for x, y in pairwise(fitted.curve.chances))


def test_a_useless_feature_promises_nothing() -> None:
    luck = random.Random(5)
    evidences = [{"useless": luck.random()} for _ in range(400)]

    found = detector(fit(evidences, [luck.random() < 0.3 for _ in range(400)]))

    assert found.auroc_low < 0.5 < found.auroc_high
    assert found.p_wrong({"useless": 0.5}) == pytest.approx(0.3, abs=0.07)


def test_that_evidence_is_missing_is_evidence_where_fitting_saw_it_missing() -> None:
    luck = random.Random(6)
    wrong = [luck.random() < 0.5 for _ in range(400)]
    evidences = [{"a": luck.random()} | ({} if w and luck.random() < 0.8 else {"b": luck.random()}) for w in wrong]

    found = detector(fit(evidences, wrong))

    assert (found.p_wrong({"a": 0.5}) or 0.0) > 0.9
    assert (found.p_wrong({"a": 0.5, "b": 0.5}) or 1.0) < 0.3


def test_nothing_known_gives_no_number(fitted: Detector) -> None:
    assert fitted.p_wrong({}) is None
    assert fitted.p_wrong({"never seen": 1.0}) is None
    assert fitted.p_wrong({"rare": 0.5}) is not None


def test_evidence_beyond_what_was_seen_counts_as_the_nearest_that_was(fitted: Detector) -> None:
    tells = next(f for f in fitted.curve.features if f.name == "tells")

    assert fitted.p_wrong({"tells": 1e9}) == fitted.p_wrong({"tells": tells.high})


def test_a_piece_of_the_curve_is_a_straight_line() -> None:
    curve = Curve((Feature("x", -9, 9, mean=1.0, deviation=2.0, weight=4.0),), -1.0, (-3.0, 1.0, 2.0), (0.1, 0.3, 0.9))

    assert curve.weigh({"x": 1.5}) == 0.0
    assert curve.p_wrong({"x": 1.5}) == pytest.approx(0.25)
    assert curve.p_wrong({"x": -9}) == 0.1
    assert curve.p_wrong({"x": 9}) == 0.9


def test_a_detector_survives_json_and_tells_people_what_it_is(fitted: Detector) -> None:
    again = msgspec.json.decode(canonical(fitted), type=Detector)

    assert again == fitted
    assert "tells, useless" in again.describe()
    assert "2000 cases" in again.describe()


def test_the_same_cases_and_seed_give_the_same_detector() -> None:
    cases = simulated(200, seed=7)

    assert canonical(fit(*cases, seed=3)) == canonical(fit(*cases, seed=3))
    assert canonical(fit(*cases, seed=3)) != canonical(fit(*cases, seed=4))


def test_a_chance_takes_under_20_microseconds(fitted: Detector) -> None:
    found = {"tells": 0.3, "useless": 0.5, "rare": 0.1}

    fastest_s = min(timeit.repeat(lambda: fitted.p_wrong(found), number=1000, repeat=20)) / 1000

    assert fastest_s < 20e-6


# --- where there is none


@pytest.mark.parametrize(("bad", "good"), [(0, 500), (500, 0), (9, 500), (500, 9), (0, 0)])
def test_too_little_to_learn_from_gives_no_detector_but_a_reason(bad: int, good: int) -> None:
    wrong = [True] * bad + [False] * good

    found = fit([{"x": float(i)} for i in range(len(wrong))], wrong)

    assert found.detector is None
    assert f"{bad} are wrong and {good} right" in found.reason


def test_evidence_that_never_varies_gives_no_detector_but_a_reason() -> None:
    found = fit([{"x": 1.0}] * 40, [True, False] * 20)

    assert found.detector is None
    assert "nothing tells wrong from right" in found.reason


def test_a_missing_package_is_one_sentence_with_the_line_that_installs_it() -> None:
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from gainful.core import CalibrationError\n"
        "from gainful.loop.fitting import fit\n"
        "try:\n    fit([], [])\nexcept CalibrationError as error:\n    print(error)"
    )

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert "pip install 'gainful[calibrate]'" in said
    assert issubclass(CalibrationError, Exception)


# --- measures


def test_an_auroc_counts_pairs() -> None:
    assert auroc([3, 2, 1], [True, False, False]) == 1.0
    assert auroc([1, 2, 3], [True, False, False]) == 0.0
    assert auroc([1, 1, 1], [True, False, False]) == 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "bad", "good"), [(0.0, 15, 60), (1.0, 40, 40), (2.0, 12, 100)])
def test_the_auroc_interval_misses_about_as_often_as_it_says(shift: float, bad: int, good: int) -> None:
    """Scores normal, the wrong ones ``shift`` higher: the true AUROC is Phi(shift / sqrt 2)."""
    truth = 0.5 * (1 + math.erf(shift / 2))
    luck = random.Random(8)
    misses = 0
    for _ in range(1000):
        scores = [luck.gauss(shift, 1) for _ in range(bad)] + [luck.gauss(0, 1) for _ in range(good)]
        low, high = auroc_interval(auroc(scores, [True] * bad + [False] * good), bad, good)
        misses += not low <= truth <= high

    assert misses <= 75  # 50 are promised; the method's own simulations reach 6 to 7 %


def test_equal_chances_share_a_bin_and_the_order_of_cases_does_not_matter() -> None:
    chances, wrong = [0.5] * 10 + [0.9] * 2, [True, False] * 5 + [True, True]

    assert calibration_error(chances, wrong, bins=4) == pytest.approx(0.2 / 12)
    assert calibration_error(chances[::-1], wrong[::-1], bins=4) == pytest.approx(0.2 / 12)


def test_a_detector_that_is_sure_and_wrong_has_the_largest_calibration_error() -> None:
    assert calibration_error([0.0, 0.0, 1.0, 1.0], [True, True, False, False]) == 1.0
