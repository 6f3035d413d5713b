"""Fit a detector on cases whose verdict is known.  The one place that imports scikit-learn (extra ``calibrate``).

Logistic regression on standardised features, and isotonic regression on top, fitted on weighted sums that were made
out of fold.  Guarantees: what is reported was measured on cases that the measured curve had not seen, through the very
code that serves; the same cases, order and seed give the same detector; too little to learn from gives none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import msgspec

from gainful.answers.detect import Curve, Detector, Feature
from gainful.core import CalibrationError, Value

FOLDS = 5
FEWEST = 2 * FOLDS  # cases of each kind: two in every fold, or a fold's AUROC rests on a single case
BINS = 10
Z = 1.959963984540054  # the normal's 97.5 % quantile: 95 % intervals

Evidences = Sequence[Mapping[str, float]]


class Fitted(Value, frozen=True):
    """A detector, or in one sentence why there is none.

    ``chances`` are the cases' own P(wrong), each from a curve that had not seen the case; ``None`` without a detector.
    """

    detector: Detector | None
    reason: str = ""
    chances: tuple[float | None, ...] = ()


def fit(evidences: Evidences, wrong: Sequence[bool], seed: int = 0, policy: str = "") -> Fitted:
    """Return a detector fitted on *evidences* of answers of which it is known whether they were *wrong*.

    Raises ``CalibrationError`` where scikit-learn is not installed.
    """
    _packages()
    bad, good = sum(wrong), len(wrong) - sum(wrong)
    if min(bad, good) < FEWEST:
        return _unfitted(
            wrong,
            f"of {len(wrong)} answers with a known verdict {bad} are wrong and {good} right; a detector takes at least "
            f"{FEWEST} of each, so use more cases",
        )
    if not _informative(evidences):
        return _unfitted(wrong, "no evidence differs between the answers, so nothing tells wrong from right")
    folds = list(_folds(wrong, seed))
    chances = [0.0] * len(wrong)
    for train, test in folds:
        curve = _curve([evidences[i] for i in train], [wrong[i] for i in train], seed)
        for i in test:
            known = curve.p_wrong(evidences[i]) if curve is not None else None
            chances[i] = bad / len(wrong) if known is None else known
    curve = _curve(evidences, wrong, seed)
    assert curve is not None  # something is informative: seen above
    tests = [([chances[i] for i in test], [wrong[i] for i in test]) for _, test in folds]
    value = _mean_auroc(tests)
    low, high = auroc_interval(value, bad, good)
    return Fitted(
        Detector(
            curve=curve,
            n=len(wrong),
            base_rate=bad / len(wrong),
            auroc=value,
            auroc_low=low,
            auroc_high=high,
            ece=calibration_error(chances, wrong),
            policy=policy,
        ),
        chances=tuple(chances),
    )


def _unfitted(wrong: Sequence[bool], reason: str) -> Fitted:
    return Fitted(None, reason, (None,) * len(wrong))


# --- measures


def auroc(chances: Sequence[float], wrong: Sequence[bool]) -> float:
    """Return the share of pairs of a wrong and a right answer in which the wrong one has the higher chance; ties half.

    >>> auroc([0.9, 0.5, 0.5, 0.1], [True, True, False, False])
    0.875
    """
    pairs, right_below = 0.0, 0
    for _, tied in _tied(chances, wrong):
        bad, good = sum(tied), len(tied) - sum(tied)
        pairs += bad * (right_below + good / 2)
        right_below += good
    return pairs / (sum(wrong) * right_below)


def auroc_interval(value: float, bad: int, good: int) -> tuple[float, float]:
    """Return a 95 % interval for an AUROC of *value* seen on *bad* wrong and *good* right answers.

    Newcombe (2006, Statistics in Medicine 25, 559-573, method 5): the truths t from which *value* is no further than
    1.96 standard errors at t.  Unlike DeLong's it keeps its width where *value* is 0 or 1, so a perfect score on a few
    cases is no certainty.

    >>> [round(end, 3) for end in auroc_interval(1.0, 10, 10)]
    [0.8, 1.0]
    """
    pairs, extra = bad * good, (bad + good) / 2 - 1

    def is_near(truth: float) -> bool:
        spread = 1 + extra * (1 - truth) / (2 - truth) + extra * truth / (1 + truth)
        return (truth - value) ** 2 * pairs <= Z * Z * truth * (1 - truth) * spread

    return _edge(is_near, value, 0.0), _edge(is_near, value, 1.0)


def calibration_error(chances: Sequence[float], wrong: Sequence[bool], bins: int = BINS) -> float:
    """Return the expected calibration error: the mean distance between chance and share wrong over equal-mass bins.

    Equal chances stay in one bin, so the order of the cases does not matter.

    >>> calibration_error([0.2] * 5 + [0.6] * 5, [True] + [False] * 4 + [True] * 3 + [False] * 2)
    0.0
    """
    n, seen, closed = len(wrong), 0, 0
    promised, happened, error = 0.0, 0, 0.0
    for chance, tied in _tied(chances, wrong):
        promised += chance * len(tied)
        happened += sum(tied)
        seen += len(tied)
        if seen * bins >= n * (closed + 1):
            error += abs(promised - happened) / n
            closed, promised, happened = seen * bins // n, 0.0, 0
    return error


def _tied(chances: Sequence[float], wrong: Sequence[bool]) -> Iterator[tuple[float, list[bool]]]:
    """Yield each chance, rising, with the verdicts of the cases that have it."""
    ranked = sorted(zip(chances, wrong, strict=True))
    for chance, cases in groupby(ranked, key=lambda case: case[0]):
        yield chance, [is_wrong for _, is_wrong in cases]


def _mean_auroc(tests: Sequence[tuple[Sequence[float], Sequence[bool]]]) -> float:
    """Return the mean AUROC of the folds: chances of two folds come from two curves and are not compared."""
    return sum(auroc(chances, wrong) for chances, wrong in tests) / len(tests)


def _edge(is_near: Callable[[float], bool], inside: float, end: float) -> float:
    """Return where, between *inside* and *end*, nearness stops, by halving."""
    if is_near(end) and end != inside:
        return end
    near, far = inside, end
    for _ in range(50):
        middle = (near + far) / 2
        if is_near(middle):
            near = middle
        else:
            far = middle
    return near


# --- fitting


def _packages() -> Any:
    try:
        import sklearn.isotonic
        import sklearn.linear_model
        import sklearn.model_selection
    except ImportError:
        raise CalibrationError(
            "calibrating needs the package scikit-learn, which is not installed; run `pip install 'gainful[calibrate]'`"
        ) from None
    return sklearn


def _folds(wrong: Sequence[bool], seed: int) -> Iterator[tuple[list[int], list[int]]]:
    """Yield train and test positions of each fold, with wrong and right spread evenly."""
    split = _packages().model_selection.StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in split.split([[0.0]] * len(wrong), list(wrong)):
        yield train.tolist(), test.tolist()


def _informative(evidences: Evidences) -> list[str]:
    """Return the names of evidence that is not the same for all: what never varied cannot be weighed."""
    names = sorted({name for evidence in evidences for name in evidence})
    return [name for name in names if len({evidence.get(name) for evidence in evidences}) > 1]


def _curve(evidences: Evidences, wrong: Sequence[bool], seed: int) -> Curve | None:
    """Fit weights on all cases and the curve on sums made out of fold; ``None`` where nothing varies."""
    weights = _weights(evidences, wrong)
    if weights is None:
        return None
    sums = [0.0] * len(wrong)
    for train, test in _folds(wrong, seed):
        inner = _weights([evidences[i] for i in train], [wrong[i] for i in train]) or weights
        for i in test:
            total = inner.weigh(evidences[i])
            sums[i] = inner.intercept if total is None else total
    # One imagined case at either end, against the trend: no chance of exactly 0 or 1 from a finite number of cases.
    isotonic = _packages().isotonic.IsotonicRegression(y_min=0.0, y_max=1.0)
    isotonic.fit([*sums, min(sums), max(sums)], [*map(float, wrong), 1.0, 0.0])
    knots = zip(isotonic.X_thresholds_.tolist(), isotonic.y_thresholds_.tolist(), strict=True)
    rising = dict(knots)
    return msgspec.structs.replace(weights, sums=tuple(rising), chances=tuple(rising.values()))


def _weights(evidences: Evidences, wrong: Sequence[bool]) -> Curve | None:
    """Fit the logistic weights alone; the curve on top is still to come."""
    names = _informative(evidences)
    if not names:
        return None
    features = [_standardised(name, [e[name] for e in evidences if name in e]) for name in names]
    absent = [f.name for f in features if any(f.name not in e for e in evidences)]
    rows = [
        [(e.get(f.name, f.mean) - f.mean) / f.deviation for f in features] + [float(name not in e) for name in absent]
        for e in evidences
    ]
    logistic = _packages().linear_model.LogisticRegression(max_iter=1000)
    logistic.fit(rows, list(wrong))
    weights = dict(zip([*names, *(f"no {name}" for name in absent)], logistic.coef_[0].tolist(), strict=True))
    weighed = [
        msgspec.structs.replace(f, weight=weights[f.name], missing=weights.get(f"no {f.name}", 0.0)) for f in features
    ]
    return Curve(tuple(weighed), float(logistic.intercept_[0]), (), ())


def _standardised(name: str, values: Sequence[float]) -> Feature:
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
    return Feature(name, min(values), max(values), mean, deviation or 1.0, weight=0.0)
