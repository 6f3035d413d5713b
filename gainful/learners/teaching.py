"""The words in which learning weights is asked for and told, and the house that a learner which trains works in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

from msgspec import ValidationError, convert
from msgspec.structs import replace

from gainful.core import Case, Policy, Rollout, TrainError, Value
from gainful.learners.lessons import Choosing, Counts
from gainful.train import Lesson, Parity, Processes, Recipe, Trained, Work

Method: TypeAlias = Literal["rejection", "preferences", "rewards", "distillation"]
Drawer: TypeAlias = Literal["trainer", "server"]


class Changes(Value, frozen=True):
    """What of the recipes is not as usual; ``None``: as usual.

    ``rank`` and ``batch`` hold for every training of a run, ``learning_rate`` and ``epochs`` for those by the method
    that was asked for, and not for the lessons with which preferences and rewards begin.
    """

    rank: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    epochs: float | None = None

    def __post_init__(self) -> None:
        for name in ("rank", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TrainError(f"the recipe's {name} is {value!r}; it must be a whole number from 1")
        for name in ("learning_rate", "epochs"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < math.inf:
                raise TrainError(f"the recipe's {name} is {value!r}; it must be a number above 0")

    def applied(self, recipe: Recipe, *, is_opening: bool = False) -> Recipe:
        """Return *recipe* with these changes; what an adapter is scaled by stays the same at any rank.

        >>> Changes(rank=8, learning_rate=1e-4).applied(Recipe(rank=16, alpha=32.0), is_opening=True).alpha
        16.0
        """
        if self.rank is not None:
            recipe = replace(recipe, rank=self.rank, alpha=recipe.alpha * self.rank / recipe.rank)
        if self.batch is not None:
            recipe = replace(recipe, batch=self.batch)
        if self.learning_rate is not None and not is_opening:
            recipe = replace(recipe, learning_rate=self.learning_rate)
        if self.epochs is not None and not is_opening:
            recipe = replace(recipe, epochs=self.epochs)
        return recipe


AS_USUAL = Changes()


def changes(words: str) -> Changes:
    """Return the changes that *words* name, ``rank=8,learning_rate=1e-4``; raises ``TrainError``.

    >>> changes("rank=8, epochs=1.5") == Changes(rank=8, epochs=1.5)
    True
    """
    try:
        named = {name.strip(): value.strip() for name, _, value in (part.partition("=") for part in words.split(","))}
        return convert(named, Changes, strict=False)
    except ValidationError as error:
        raise TrainError(
            f"{words!r} changes no recipe: {error}; give rank, batch, learning_rate or epochs, as in "
            "rank=8,learning_rate=1e-4"
        ) from None


class Teaching(Value, frozen=True):
    """How weights are learned: part of a run's settings, so of its name.

    ``methods`` are tried in this order, one proposal each, after ``rounds`` of sampling and training: the first brings
    little but form, and would often lose its race.  In each round ``cases`` of practice are answered a few times at
    ``temperature``, new ones first, and those of which nothing came right ``samples`` times where nothing new of their
    kind is left: a new case is likelier to bring a lesson, and where there is none it is the hard ones that many
    samples solve.  ``least`` lessons or pairs are needed to begin.  ``start``: whether a training on lessons, which are
    those of all rounds, goes on from the last adapter, in a third of the epochs at half the rate with new lessons three
    times, or begins from the base again.  ``changes`` says what of the recipes is not as usual.  Training ends after
    ``minutes`` with what it has, and does not begin where it needs more than ``memory_bytes`` (``None``: than there
    is); several ``processes`` may share it.  ``base`` names the weights of a model that a server serves: a folder, or a
    model on the hub.  ``draws`` says who answers practice at random: the trainer, which takes no calls, or the server,
    with a call a sample, which pays where the server has the accelerator.

    Two controls show what form alone is worth.  ``control``: what is proposed is trained once more in the same way, but
    with every reply given to another case of its kind, and compared on dev.  ``shuffled``: all rounds are so from the
    first, and what comes of it is proposed.
    """

    methods: tuple[Method, ...] = ("rejection",)
    prompt: Literal["short", "own"] = "short"
    rounds: int = 6
    cases: int = 500
    samples: int = 32
    temperature: float = 1.0
    least: int = 20
    start: Literal["last", "base"] = "last"
    choosing: Choosing = Choosing()
    changes: Changes = AS_USUAL
    minutes: float = 30.0
    memory_bytes: int | None = None
    processes: Processes | None = None
    base: str | None = None
    draws: Drawer = "trainer"
    control: bool = False
    shuffled: bool = False

    def __post_init__(self) -> None:
        if not self.minutes > 0.0:
            raise TrainError(f"a training of {self.minutes:g} minutes learns nothing; give it more than 0")


class Vetting(Value, frozen=True):
    """What an adapter showed before it was allowed to race.

    ``parity`` is how far trainer and server agree, of a policy that is bound by a schema without it; ``bound`` how far
    under it, where the trainer has no answers of its own and log-probabilities alone are compared (``None``: there is
    no schema).  ``changed`` is the share in [0, 1] of its prompts that the adapter answers otherwise than its base,
    both as they are served; ``base_difference`` is by how many nats a token what is served is apart from what the
    trainer makes of the base.  ``guard`` is the mean change of log-likelihood a token, in nats, of the base's
    replies to unrelated prompts, with its lower bound ``guard_low``.  Of everyday facts the base knows the share
    ``facts`` (``None``: not asked), by which ``facts_change`` is more with the adapter, by ``facts_low`` at worst.
    ``refused`` says why it may not race; empty where it may.
    """

    parity: Parity
    changed: float
    guard: float
    guard_low: float
    facts: float | None = None
    facts_change: float = 0.0
    facts_low: float = 0.0
    refused: str = ""
    bound: Parity | None = None
    base_difference: float | None = None


class OnDev(Value, frozen=True):
    """Of ``n`` dev cases, asked as in service, ``right`` passed the checks that learning may use."""

    right: int
    n: int


class Taught(Value, frozen=True, tag="taught"):
    """One attempt at training, whatever came of it.

    ``round`` counts from 1; the rounds of one course are told in the order in which they fell behind, whoever may race
    last.  ``trained`` is ``None`` where it did not begin, ``vetting`` where it was not among the best on dev, and
    ``dev`` where nothing was compared.  ``left_out`` practice cases nearly repeat one that is raced or held out.  A
    control has everything in common with the training of the adapter with digest ``control_of``, but that its replies
    belong to other cases; empty for all that is no control.
    """

    learner: str
    method: Method
    counts: Counts
    material: int
    trained: Trained | None = None
    vetting: Vetting | None = None
    refused: str = ""
    round: int = 1
    dev: OnDev | None = None
    left_out: int = 0
    control_of: str = ""


class Workshop(Protocol):
    """What a learner that trains needs of the house it works in."""

    @property
    def base(self) -> str:
        """What an adapter for the model calls its base."""
        ...

    async def sample(self, asked: Sequence[tuple[Policy, Case]], samples: range, temperature: float) -> list[Rollout]:
        """Answer each case at random under its policy, judged by the checks that learning may use.

        The samples of a case are numbered, and drawn independently of those of other numbers; *samples* says which are
        asked for.  The policies have the same adapter.
        """
        ...

    async def answer(self, policy: Policy, cases: Sequence[Case]) -> list[Rollout]:
        """Answer *cases* once each as *policy* does in service, judged likewise."""
        ...

    async def rehearsal(self) -> list[Lesson]:
        """Return unrelated prompts with the base's own replies, to be learned along so that they stay as they are."""
        ...

    async def train(self, work: Work, student: Policy) -> Trained:
        """Train; raises ``TrainError``.  *student* is asked in GRPO, by the checks that learning may use."""
        ...

    async def vet(self, policy: Policy, cases: Sequence[Case]) -> Vetting:
        """Compare trainer and server on *cases*, tuned and base, and guard unrelated prompts."""
        ...

    def tell(self, taught: Taught) -> None:
        """Keep what came of a training."""
        ...
