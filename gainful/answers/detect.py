"""How probably is an answer wrong?  Evidence that needs no answer key becomes a calibrated probability.

Evidence is what a draft brings along: scores of checks, whether there is an answer at all, agreement of samples,
log-probabilities.  What is not known is absent.  A ``Detector`` turns it into P(wrong) in a few microseconds with
the standard library alone; ``loop.fitting`` makes one from cases whose verdict is known.

Guarantees: more of the score that speaks for an error never lowers P(wrong) (the curve on top is monotone); evidence
beyond what was seen in fitting counts as the nearest that was; no known evidence, no number.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping

from gainful.checks.equality import equals
from gainful.core import Answer, JsonObject, Value, Verdict

LOGPROBS: JsonObject = {"logprobs": True, "top_logprobs": 1}  # asks for them; llama.cpp takes 0 for none, absent for 20
LOWEST_LOGPROB = -20.0  # servers write -9999 or leave out what the model gave no chance; one token in 5e8 says as much


def evidence(answer: Answer, verdicts: Iterable[Verdict], reply_body: JsonObject | None = None) -> dict[str, float]:
    """Return what speaks for or against *answer*, by name; what is not known is absent.

    ``check:NAME`` is a check's score, ``no_answer`` 1 where none was found, ``agreement`` the share of two or more
    samples that equal the answer, ``mean_logprob`` and ``min_logprob`` those of the tokens of the reply's first choice
    that hold a letter or a digit: brackets and quotes tell of the form, which may have been forced.
    *verdicts* must be of checks that need no target: an answer key is what will be missing.

    >>> evidence(Answer(text="7", value=7, samples=(7, 8, 7, 7)), [Verdict(check="number", trusted=True, score=1.0)])
    {'no_answer': 0.0, 'check:number': 1.0, 'agreement': 0.75}
    """
    found = {"no_answer": float(answer.value is None)}
    found |= {f"check:{v.check}": v.score for v in verdicts if v.score is not None}
    if len(answer.samples) > 1:
        agreeing = sum(s is not None and equals(s, answer.value) for s in answer.samples)
        found["agreement"] = agreeing / len(answer.samples)
    logprobs = _logprobs(reply_body or {})
    if logprobs:
        found["mean_logprob"] = sum(logprobs) / len(logprobs)
        found["min_logprob"] = min(logprobs)
    return found


def _logprobs(reply_body: JsonObject) -> list[float]:
    """Return the log-probabilities of the content's tokens; a server's reply may hold anything here, or nothing."""
    found: object = reply_body
    for step in ("choices", 0, "logprobs", "content"):
        if isinstance(step, int):
            found = found[step] if isinstance(found, list) and len(found) > step else None
        else:
            found = found.get(step) if isinstance(found, Mapping) else None
    tokens = found if isinstance(found, list) else []
    values = [t.get("logprob") for t in tokens if isinstance(t, Mapping) and any(map(str.isalnum, str(t.get("token"))))]
    return [max(float(v), LOWEST_LOGPROB) for v in values if isinstance(v, int | float) and not math.isnan(v)]


class Feature(Value, frozen=True):
    """One kind of evidence: where it lay in fitting, and what it weighs.

    ``low`` to ``high`` is the range that was seen, ``mean`` and ``deviation`` standardise it, ``weight`` is per
    deviation, ``missing`` is what its absence weighs (0 where it was never absent).
    """

    name: str
    low: float
    high: float
    mean: float
    deviation: float
    weight: float
    missing: float = 0.0


class Curve(Value, frozen=True):
    """Logistic weights, and the monotone, piecewise-linear curve from their sum to P(wrong).

    ``sums`` rise strictly and ``chances`` never fall; outside the first and last of ``sums`` the curve is flat.
    """

    features: tuple[Feature, ...]
    intercept: float
    sums: tuple[float, ...]
    chances: tuple[float, ...]

    def weigh(self, evidence: Mapping[str, float]) -> float | None:
        """Return the weighted sum (log-odds before calibration), ``None`` where no feature of it is known."""
        total, known = self.intercept, False
        for feature in self.features:
            value = evidence.get(feature.name)
            if value is None:
                total += feature.missing
            else:
                known = True
                value = min(max(value, feature.low), feature.high)
                total += feature.weight * (value - feature.mean) / feature.deviation
        return total if known else None

    def p_wrong(self, evidence: Mapping[str, float]) -> float | None:
        """Return P(wrong), ``None`` where nothing in *evidence* was seen to matter in fitting."""
        total = self.weigh(evidence)
        if total is None:
            return None
        right = bisect_right(self.sums, total)
        if right == 0:
            return self.chances[0]
        if right == len(self.sums):
            return self.chances[-1]
        before, after = self.sums[right - 1], self.sums[right]
        share = (total - before) / (after - before)
        return self.chances[right - 1] + share * (self.chances[right] - self.chances[right - 1])


class Detector(Value, frozen=True):
    """A fitted curve, and how good it was on cases that it was not fitted on.

    ``n`` cases, of which a share ``base_rate`` were wrong.  ``auroc`` is the chance that a wrong answer looks worse
    than a right one, with its 95 % interval; ``ece`` the expected calibration error over ten bins of equal mass.
    Both are measured by cross-validation.  ``policy`` made the answers: under another one the numbers may differ.
    """

    curve: Curve
    n: int
    base_rate: float
    auroc: float
    auroc_low: float
    auroc_high: float
    ece: float
    policy: str = ""

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the evidence it reads."""
        return tuple(feature.name for feature in self.curve.features)

    def p_wrong(self, evidence: Mapping[str, float]) -> float | None:
        """Return P(wrong), ``None`` where nothing in *evidence* was seen to matter in fitting."""
        return self.curve.p_wrong(evidence)

    def describe(self) -> str:
        """Say in a sentence what it reads and how well, for people."""
        return (
            f"P(wrong) from {', '.join(self.features)}: {self.n} cases, "
            f"{100 * self.base_rate:.0f} % of them wrong; out of sample, AUROC {self.auroc:.2f} "
            f"({self.auroc_low:.2f} to {self.auroc_high:.2f}), calibration error {100 * self.ece:.1f} points"
        )
