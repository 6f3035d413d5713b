"""What a run writes down: one record a step, in the order in which the steps are decided.

The loop writes records; the terminal, the HTML report and resume read them.  Each is a function of the run's
spec, seed and the model's answers: a run that was killed and resumed writes the same records again, byte for
byte.  Only ``Progress`` is not kept: it says how far a step has come and drives progress bars.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from gainful.core import Policy, Proposal, Usage, Value
from gainful.learners.teaching import Taught


class Interval(Value, frozen=True):
    """A mean in [0, 1] (or a difference in [-1, 1]) of ``n`` cases with its confidence interval."""

    mean: float
    low: float
    high: float
    n: int
    confidence: float = 0.95


class Example(Value, frozen=True):
    """One error as a person reads it: what was asked, what was answered, what the check said."""

    case: str
    question: str
    answer: str
    feedback: str


class ErrorGroup(Value, frozen=True):
    """Errors of one kind (not JSON, wrong function, ungrounded value ...), with a few examples."""

    group: str
    count: int
    examples: tuple[Example, ...] = ()


class Started(Value, frozen=True, tag="started"):
    """The run's spec: what, with which model, on how many cases, from which champion.

    ``obstacle`` says why nothing can be promoted however good it is, before a call is spent; ``None`` where it can.
    ``holdout_digest`` is the key of the hold-out's ledger.  ``copies`` cases were dropped before any were divided.
    """

    run: str
    task: str
    model: str
    seed: int
    dev: int
    holdout: int
    champion: Policy
    learn_checks: tuple[str, ...]
    proof_checks: tuple[str, ...]
    budget_calls: int | None = None
    obstacle: str | None = None
    holdout_digest: str = ""
    copies: int = 0


class Power(Value, frozen=True, tag="power"):
    """What this hold-out can certify at this level, said before the run spends anything on it.

    ``certifiable`` is the smallest gain found with 90 % power, ``None`` where no gain can be; ``cases_for`` maps a
    gain in points to the cases it needs.
    """

    size: int
    level: float
    rank: int
    certifiable: float | None
    cases_for: dict[str, int]


class Baseline(Value, frozen=True, tag="baseline"):
    """The champion on dev, by the checks that learning may use, and its errors, most frequent group first."""

    policy: str
    score: Interval
    groups: tuple[ErrorGroup, ...]
    usage: Usage


class Proposed(Value, frozen=True, tag="proposed"):
    """A candidate enters the race of round ``round`` under a short ``label`` ("c3")."""

    round: int
    label: str
    proposal: Proposal


class Standing(Value, frozen=True):
    """How a candidate stands against the head on the cases both have answered; ``kept`` says whether it races on.

    ``saving`` is the share of the head's tokens on these cases that it does without, below 0 where it takes more.
    """

    label: str
    policy: str
    n: int
    score: float
    gain: float
    wins: int
    losses: int
    kept: bool
    usage: Usage
    saving: float = 0.0


class Rung(Value, frozen=True, tag="rung"):
    """One step of successive halving: all candidates still in the race on the same ``n`` cases, best first."""

    round: int
    rung: int
    n: int
    standings: tuple[Standing, ...]


class OfKind(Value, frozen=True):
    """Of cases worded like ``example`` that an earlier policy got right, ``broken`` of ``worked`` are wrong now."""

    example: str
    worked: int
    broken: int


class Errors(Value, frozen=True):
    """The head on every dev case of its lineage that was once right, and on those that were once wrong and then right.

    The lineage begins with the champions before this run's, as far as they have answered the same cases.
    ``broken`` of the ``worked`` are wrong now, ``repeated`` of the ``corrected`` are wrong again; all count cases.
    ``kinds`` are the kinds of questions (``learners.kinds``) of which any was right.
    """

    worked: int = 0
    broken: int = 0
    corrected: int = 0
    repeated: int = 0
    kinds: tuple[OfKind, ...] = ()


class Replies(Value, frozen=True):
    """What one policy says to the dev cases of a comparison.

    ``strict``: the reply is the right answer and nothing else.  ``lenient``: the right answer is in it, or is the last
    number or word of it where targets are such; ``None`` where nothing looser is meant by the task.  ``characters``:
    the mean length of a reply.  ``copied``: wrong answers that are those of a demo which the control is shown.
    """

    strict: Interval
    lenient: Interval | None
    characters: float
    copied: int


class Usual(Value, frozen=True):
    """Of cases worded like ``example``, ``n``: what is usual among answers and targets, and how many are right.

    ``constant`` is the share that the most frequent target would get right, ``None`` where a target is not known;
    ``before`` and ``after`` are the shares of the most frequent answer, ``answer`` is the one after.
    """

    example: str
    n: int
    right_before: int
    right_after: int
    before: float
    after: float
    answer: str
    constant: float | None


class Controls(Value, frozen=True, tag="controls"):
    """Is it knowledge?  A candidate with new weights beside the best policy without any, on the same ``n`` dev cases.

    ``adapter`` is the digest of its weights; ``control`` the policy it is held against, which shows what examples and
    form alone are worth.  ``constant`` is the share that the best constant answer to each kind of question gets right.
    Computed once the search is over, from stored answers: no learner sees it.
    """

    label: str
    adapter: str
    control: str
    n: int
    before: Replies
    after: Replies
    constant: Interval | None
    kinds: tuple[Usual, ...]
    errors: Errors


class Head(Value, frozen=True, tag="head"):
    """The round is over: the head of the lineage, changed or not, and its dev gain over the champion.

    ``errors`` says what the lineage has unlearned on the way to it.
    """

    round: int
    policy: str
    label: str | None
    learner: str | None
    change: str | None
    score: Interval
    gain: float
    gain_over_champion: float
    groups: tuple[ErrorGroup, ...]
    errors: Errors = Errors()


class Untrained(Value, frozen=True, tag="untrained"):
    """Training has ended for this run, and why; what was found without it goes on.

    ``usage`` is what learning weights had asked of the server until then, and ``after`` how often the trainer had been
    asked for something, so that a resumed run gets as far and no further.
    """

    reason: str
    usage: Usage = Usage()
    after: int = 0


class Unconfirmed(Value, frozen=True, tag="unconfirmed"):
    """The run ends without a confirmation, and why."""

    reason: str


class Opened(Value, frozen=True, tag="opened"):
    """A confirmation begins: pre-registered under ``registration``, before the first held-out call."""

    registration: str
    challenger: str
    champion: str
    test: Literal["sign", "e-process"]
    level: float
    margin: float
    size: int
    looks: tuple[int, ...]


class Looked(Value, frozen=True, tag="looked"):
    """One look of the confirmation.

    For the sign test ``statistic`` is the wins and ``boundary`` the fewest that promote (``None``: out of reach at
    this look); for the e-process they are the evidence E and 1/level.
    """

    n: int
    wins: int
    losses: int
    mean_difference: float
    statistic: float
    boundary: float | None
    conditional_power: float
    decision: Literal["promote", "continue", "stop"]


class Decided(Value, frozen=True, tag="decided"):
    """The decision, and what is certified: ``difference.low`` is the anytime-valid lower bound, the number to quote.

    ``difference.low`` and ``.high`` each hold at ``difference.confidence``, one minus the confirmation's level.
    """

    promoted: bool
    reason: str
    n: int
    before: Interval
    after: Interval
    difference: Interval
    before_groups: tuple[ErrorGroup, ...]
    after_groups: tuple[ErrorGroup, ...]
    usage: Usage


class Contribution(Value, frozen=True):
    """What one candidate changed on dev against the head it was proposed for, harm included.

    ``gain`` is by the checks learning used; ``true_gain`` by the answer key, scored afterwards from the stored
    answers without a model call and seen by no learner; ``None`` where the task has no key.
    """

    label: str
    learner: str
    change: str
    n: int
    gain: float
    true_gain: float | None
    taken: bool


class Finished(Value, frozen=True, tag="finished"):
    """The end: the champion now in service, the receipt, every learner's contribution, and all that was spent."""

    champion: str
    promoted: bool
    receipt: str | None
    contributions: tuple[Contribution, ...]
    search_usage: Usage
    confirm_usage: Usage


Event: TypeAlias = (
    Started
    | Power
    | Baseline
    | Taught
    | Untrained
    | Proposed
    | Rung
    | Head
    | Controls
    | Unconfirmed
    | Opened
    | Looked
    | Decided
    | Finished
)


class Progress(Value, frozen=True):
    """How far the running step has come, in model-answered cases; never stored."""

    step: str
    done: int
    total: int
