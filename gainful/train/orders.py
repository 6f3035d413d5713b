"""What parent and worker say to each other: an order in a file, then one JSON value a line over two pipes.

A worker that is kept is told the folder of its next order, a JSON string.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from gainful.core import JsonObject, Value
from gainful.train.jobs import Processes, Progress, Reading, Sampling, Work


class FineTune(Value, frozen=True, tag="fine-tune"):
    """Train; ``start`` is the folder of the adapter to begin from, ``seconds`` how long it may take in all.

    ``resume`` is the folder of the checkpoint to go on from, after ``spent`` seconds.
    """

    work: Work
    base: str
    seconds: float
    memory_bytes: int | None = None
    start: str = ""
    processes: Processes | None = None
    resume: str = ""
    spent: float = 0.0


class Read(Value, frozen=True, tag="read"):
    """Answer ``prompts`` greedily with at most ``max_tokens`` each, and say how likely ``replies`` are.

    ``cuts`` are the replies in tokens, as whoever gave them cut them.
    """

    base: str
    prompts: tuple[tuple[JsonObject, ...], ...]
    replies: tuple[str, ...] | None = None
    cuts: tuple[tuple[str, ...], ...] | None = None
    max_tokens: int = 64
    adapter: str = ""
    memory_bytes: int | None = None


class Sample(Value, frozen=True, tag="sample"):
    """Answer ``prompts`` at random, as ``how`` says."""

    base: str
    prompts: tuple[tuple[JsonObject, ...], ...]
    how: Sampling
    adapter: str = ""
    memory_bytes: int | None = None


Order: TypeAlias = FineTune | Read | Sample


class Ask(Value, frozen=True, tag="ask"):
    """The worker wants to know what these replies to a case are worth; ``Worth`` answers it."""

    case: str
    replies: tuple[str, ...]


class Worth(Value, frozen=True, tag="worth"):
    """One reward a reply, in the order asked."""

    rewards: tuple[float, ...]


class Fitted(Value, frozen=True, tag="fitted"):
    """Training has ended and left an adapter in the worker's folder; ``seconds`` in all, over every resumption."""

    steps: tuple[Progress, ...]
    seconds: float
    tokens: int
    stopped: Literal["", "early", "time", "nan"] = ""


class Readings(Value, frozen=True, tag="readings"):
    """One reading a prompt, in the order asked."""

    readings: tuple[Reading, ...]


class Sampled(Value, frozen=True, tag="sampled"):
    """All replies to each prompt, in the order asked."""

    replies: tuple[tuple[str, ...], ...]


class Ended(Value, frozen=True, tag="ended"):
    """The worker's last words: what it took in all."""

    peak_memory_bytes: int


class Failed(Value, frozen=True, tag="failed"):
    """It did not work; one sentence for the user."""

    sentence: str


Said: TypeAlias = Progress | Ask | Fitted | Readings | Sampled | Ended | Failed

folder_from = msgspec.json.Decoder(str).decode
order_from = msgspec.json.Decoder(Order).decode
said_from = msgspec.json.Decoder(Said).decode
worth_from = msgspec.json.Decoder(Worth).decode
