"""The words in which training is asked for and told: what to learn from, how, within which limits, and what came of it.

Everything here is a frozen value with a digest.  A piece of work is named by the digest of its spec, and so are its
checkpoint and its result: a process that was killed is asked the same again and goes on where it was.  No torch here.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal, TypeAlias

from gainful.core import Adapter, JsonObject, TrainError, Value, digest


class Lesson(Value, frozen=True, tag="lesson"):
    """A request's messages and the reply to learn, word for word; ``case`` names the case it comes from.

    ``is_cut``: the reply goes on from there, so that it ends there is not learned.
    """

    messages: tuple[JsonObject, ...]
    reply: str
    case: str = ""
    is_cut: bool = False


class Preference(Value, frozen=True, tag="preference"):
    """A request's messages with a reply that was right and one that was wrong."""

    messages: tuple[JsonObject, ...]
    chosen: str
    rejected: str
    case: str = ""


class Question(Value, frozen=True, tag="question"):
    """A request's messages alone: the trainer samples replies and asks back what they are worth."""

    messages: tuple[JsonObject, ...]
    case: str
    max_tokens: int = 64


Material: TypeAlias = Lesson | Preference | Question


class Recipe(Value, frozen=True):
    """How to train: TRL's trainer of that name, over low-rank adapters on all linear layers.

    ``sft``: lessons; ``dpo``: preferences, with ``beta``; ``grpo``: questions, ``samples`` replies each at
    ``temperature``.  ``learning_rate`` falls to zero along a cosine after a tenth of the steps.  ``batch`` counts
    sequences a step.  ``patience``: epochs that the loss on a held-back tenth may go without falling before training
    stops with its best weights (lessons and preferences; 0: it never stops early).
    """

    method: Literal["sft", "dpo", "grpo"] = "sft"
    rank: int = 16
    alpha: float = 32.0
    epochs: float = 3.0
    learning_rate: float = 5e-4
    batch: int = 16
    beta: float = 0.1
    samples: int = 8
    temperature: float = 1.0
    patience: int = 1


class Work(Value, frozen=True, dict=True):
    """One training: from the base, or from adapter ``start``, on ``material``.

    ``base`` is what the adapter's ``base`` will say (the SHA-256 of a GGUF file, or a served name).
    """

    base: str
    material: tuple[Material, ...]
    recipe: Recipe = Recipe()
    start: Adapter | None = None
    seed: int = 0

    @cached_property
    def id(self) -> str:
        return digest(self)


class Sampling(Value, frozen=True):
    """How replies are drawn: ``samples`` a prompt at ``temperature`` (0: the likeliest), of at most ``max_tokens``."""

    samples: int
    temperature: float = 1.0
    max_tokens: int = 64
    seed: int = 0


class Launched(Value, frozen=True, tag="accelerate"):
    """Several processes on this machine, by ``accelerate launch``: its arguments, ``("--config_file", "fsdp.yaml")``.

    Among CPUs they are ``("--multi_gpu", "--num_processes", "2")``, whatever the name says.
    """

    arguments: tuple[str, ...]


class OnRay(Value, frozen=True, tag="ray"):
    """So many workers of Ray Train (extra ``ray``), on the cluster that ``RAY_ADDRESS`` names, else on this machine.

    Each has a GPU where the cluster has as many.  Where it is of several machines, ``XDG_CACHE_HOME`` and the base are
    to lie where all of them see them.
    """

    workers: int

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise TrainError(f"{self.workers} workers of Ray's cannot train anything; take 1 or more")


Processes: TypeAlias = Launched | OnRay


def processes(words: str) -> Processes:
    """Return what *words* ask for: ``ray:WORKERS``, or the arguments of ``accelerate launch``; raises ``TrainError``.

    >>> processes("--config_file fsdp.yaml"), processes("ray:4")
    (Launched(arguments=('--config_file', 'fsdp.yaml')), OnRay(workers=4))
    """
    try:
        if not words.startswith("ray:"):
            return Launched(tuple(shlex.split(words)))
        return OnRay(int(words.removeprefix("ray:")))
    except ValueError as error:
        raise TrainError(
            f"{words!r} starts no training: {error}; give ray:WORKERS, or arguments as for `accelerate launch`"
        ) from None


class Limits(Value, frozen=True):
    """``minutes`` of training, after which it stops with what it has; ``memory_bytes`` it may take.

    ``processes`` says where the processes come from that train together, each on its part of a batch; ``None``: one
    trains alone.
    """

    minutes: float = 30.0
    memory_bytes: int | None = None
    processes: Processes | None = None


class Progress(Value, frozen=True, tag="progress"):
    """A step of ``steps``, its loss (``None``: not known) and its mean reward (GRPO).

    Of sampling and reading, which have no steps: how many of how many prompts are done.
    """

    step: int
    steps: int
    loss: float | None = None
    reward: float | None = None
    tokens: int = 0


class Trained(Value, frozen=True, tag="trained"):
    """What came of a piece of work: the adapter (kept in the adapters' folder) and what it took.

    ``stopped`` says why it ended before its last step: ``early`` (the held-back loss rose), ``time``, ``nan`` (a step
    that was no number: the weights are the last with which loss and gradients were).
    """

    work: str
    adapter: Adapter
    steps: tuple[Progress, ...]
    seconds: float
    peak_memory_bytes: int
    tokens: int
    stopped: Literal["", "early", "time", "nan"] = ""


Hear: TypeAlias = Callable[[Progress], None]
"""Who is told how far something has come."""

Reward: TypeAlias = Callable[[str, Sequence[str]], Sequence[float]]
"""What replies to a case, named by its id, are worth: one number each, in [0, 1]."""


class Reading(Value, frozen=True, tag="reading"):
    """A prompt as the trainer reads and answers it: its greedy reply, and the log-likelihood of a given reply.

    ``logprobs`` are natural logarithms, one a token of the given reply as the trainer's tokenizer cuts it.  ``behind``
    says by how many nats a token of the given reply is less likely than the likeliest in its place, at most: 0.0 where
    the reply is the trainer's own, ``None`` where none was given.

    Of a server's reading ``logprobs`` are of its own greedy reply, and ``cut`` is that reply in tokens as it cut it:
    under a schema another way than anybody would cut the whole text.
    """

    greedy: str
    logprobs: tuple[float, ...] = ()
    behind: float | None = None
    cut: tuple[str, ...] = ()
