"""Whether to correct a draft, and how: only by a method that provably pays.

Most self-correction makes answers worse.  With Acc the share of right drafts, ECR the share of wrong ones that a
method fixes and EIR the share of right ones that it breaks, a correction gains (1 - Acc) ECR - Acc EIR on average
(arXiv 2604.22273).  Each method of a task and model starts closed.  It is judged by its trials, paired scores before
and after, on suspects alone: the drafts that it would be applied to.  It is open while the lower confidence bound of
the mean of after - before is above zero, and closed again when the latest trials no longer say so: the bound is that of
the last moment, and an e-detector notices a method that has turned harmful long before the window has forgotten its
good days.

Guarantees, for trials whose mean difference, given those before, is never above zero (a method that does not pay):

- over its first ``WINDOW`` trials, looked at after each of them, a method is ever open with probability at most its
  level (Ville 1939; ``gate.present_bound``), and any of the methods with probability at most ``LEVEL``, as each has an
  equal share of it;
- later, when old trials have left the window, at any one moment with the same probability, so for that share of the
  time.  That no useless method ever opens in an endless life is *not* promised: docs/notes/correction.md.

Leaves to others: making trials (``loop.calibrate``), and correcting (``answers.correct``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Self

from gainful.core import Trial, Usage, Value, Verdict
from gainful.gate import evidence_of_harm, present_bound, proportion_interval

METHODS = ("reask", "refine", "vote", "escalate")  # all there are: a method's level does not depend on which are tried
LEVEL = 0.05  # shared by the methods of one task and model
WINDOW = 1000  # trials judged: certifies net benefits of 4 points and more, and forgets what a method was long ago
TRIALS = len(METHODS) * WINDOW  # to ask a store for: every method's window
ALARM = 1000.0  # a method that does no harm is closed by it once in 1,000 trials at most, one that pays hardly ever
THRESHOLD = 0.5  # a draft that is more probably right than wrong is left alone
EIR_LEVEL = 0.05  # of the bound on harm: 299 right drafts with none broken show that at most 1 % are


def is_suspect(p_wrong: float | None, verdicts: Iterable[Verdict], threshold: float = THRESHOLD) -> bool:
    """Whether a draft may be corrected, and whether a trial may be made of it: one rule, for serving and calibrating.

    With a detector, P(wrong) decides; without (``None``), that a check objects.
    """
    if p_wrong is not None:
        return p_wrong >= threshold
    return any(v.score is not None and v.score < 1.0 for v in verdicts)


class Standing(Value, frozen=True):
    """What the last ``WINDOW`` trials say of one method.

    A score of 1 is right, any other wrong.  ``acc``, ``ecr`` and ``eir`` are shares of suspects, of wrong suspects and
    of right ones, ``None`` where there are none; ``eir_high`` is the exact one-sided 95 % bound for a number of trials
    fixed beforehand.  ``net`` is the mean of after - before, graded scores included, and ``low`` its lower bound, both
    ``None`` without trials.  ``harm`` is the e-detector's evidence that the method does harm now.  ``extra_...`` is
    what a trial spent on top of its draft on average, all tokens counted; its money is ``None`` where any trial's is.
    """

    method: str
    n: int = 0
    fixed: int = 0
    broken: int = 0
    kept_right: int = 0
    kept_wrong: int = 0
    acc: float | None = None
    ecr: float | None = None
    eir: float | None = None
    eir_high: float = 1.0
    net: float | None = None
    low: float | None = None
    harm: float = 0.0
    extra_calls: float = 0.0
    extra_tokens: float = 0.0
    extra_ms: float = 0.0
    extra_cost_usd: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether drafts may be corrected by this method."""
        return self.low is not None and self.low > 0.0 and self.harm < ALARM

    @property
    def why(self) -> str:
        """Say in a sentence why it is open or closed."""
        if self.net is None or self.low is None:
            return "no trial yet, and nothing opens without evidence"
        seen = f"{self.n} trials: {self.fixed} fixed, {self.broken} broken, net {_points(self.net)} points"
        if self.is_open:
            return f"{seen}, certainly above {_points(self.low)}"
        if self.harm >= ALARM:
            return f"{seen}: its latest trials do harm"
        if self.net <= 0.0:
            return f"{seen}: it does not pay"
        return f"{seen}, but perhaps only {_points(self.low)}: more trials may open it"

    def benefit(self, p_wrong: float) -> float:
        """Return the expected gain in score on a draft that is wrong with probability *p_wrong*.

        Where no right suspect was tried yet, the bound on harm stands in for its share.
        """
        eir = self.eir_high if self.eir is None else self.eir
        return p_wrong * (self.ecr or 0.0) - (1.0 - p_wrong) * eir


def standing(method: str, trials: Sequence[Trial], level: float = LEVEL / len(METHODS)) -> Standing:
    """Judge *method* by its *trials*, oldest first; the last ``WINDOW`` count, at *level*.

    Trials of other methods are passed over.  The stakes are planned for a full window, known beforehand, so looking
    after every trial costs nothing.
    """
    judged = [trial for trial in trials if trial.method == method][-WINDOW:]
    n = len(judged)
    if n == 0:
        return Standing(method)
    ends = [(trial.before >= 1.0, trial.after >= 1.0) for trial in judged]
    fixed, broken, kept_right = ends.count((False, True)), ends.count((True, False)), ends.count((True, True))
    kept_wrong = n - fixed - broken - kept_right
    right, wrong = broken + kept_right, fixed + kept_wrong
    differences = [trial.after - trial.before for trial in judged]
    extra = sum((trial.extra for trial in judged), Usage())
    is_priced = all(trial.extra.cost_usd is not None for trial in judged)
    return Standing(
        method=method,
        n=n,
        fixed=fixed,
        broken=broken,
        kept_right=kept_right,
        kept_wrong=kept_wrong,
        acc=right / n,
        ecr=fixed / wrong if wrong else None,
        eir=broken / right if right else None,
        eir_high=proportion_interval(broken, right, 2 * EIR_LEVEL)[1] if right else 1.0,
        net=sum(differences) / n,
        low=present_bound(differences, level, WINDOW),
        harm=evidence_of_harm(differences),
        extra_calls=extra.calls / n,
        extra_tokens=(extra.prompt_tokens + extra.completion_tokens) / n,
        extra_ms=extra.elapsed_ms / n,
        extra_cost_usd=extra.cost_usd / n if is_priced and extra.cost_usd is not None else None,
    )


class Rule(Value, frozen=True):
    """The correction rule of one task and model: how its methods stand."""

    standings: tuple[Standing, ...] = tuple(Standing(method) for method in METHODS)

    @classmethod
    def of(cls, trials: Sequence[Trial], policy: str | None = None) -> Self:
        """Judge every method by *trials* of one task and model, oldest first, each at its share of ``LEVEL``.

        With *policy*, drafts of other policies do not count: a new champion errs elsewhere than the one before.
        """
        judged = [trial for trial in trials if policy in (None, trial.policy)]
        return cls(tuple(standing(method, judged) for method in METHODS))

    def choose(
        self, p_wrong: float | None, affords: Callable[[Standing], bool], threshold: float = THRESHOLD
    ) -> Standing | None:
        """Return the open method of the most expected benefit for its cost, among those that *affords* grants.

        ``None`` where P(wrong) is unknown or below *threshold*, or where no such method is expected to gain.  Cost is
        money where it is known of all that are compared, else tokens, else calls.
        """
        if p_wrong is None or p_wrong < threshold:
            return None
        able = [s for s in self.standings if s.is_open and s.benefit(p_wrong) > 0.0 and affords(s)]
        costs = dict(zip((s.method for s in able), _costs(able), strict=True))
        return max(able, key=lambda s: s.benefit(p_wrong) / costs[s.method], default=None)


def _costs(standings: Sequence[Standing]) -> list[float]:
    """Return the mean cost of each in the first unit that is known, and not nothing, for all of them."""
    units = (
        [s.extra_cost_usd or 0.0 for s in standings],
        [s.extra_tokens for s in standings],
        [s.extra_calls for s in standings],
    )
    return next((costs for costs in units if all(cost > 0.0 for cost in costs)), [1.0] * len(standings))


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.1f}".replace("-", "−")
