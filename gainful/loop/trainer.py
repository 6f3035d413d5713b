"""Who trains the weights of a run's model: the room ``train`` on its base, asked from the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from gainful.core import Adapter, JsonObject, Model, Stopped, TrainError
from gainful.learners.teaching import Teaching
from gainful.models.adapters import find_adapter
from gainful.tasks.task import Task
from gainful.train import (
    Limits,
    Progress,
    Reading,
    Sampling,
    Trained,
    Work,
    fine_tune,
    missing,
    read_prompts,
    sample_replies,
)

Reward: TypeAlias = Callable[[str, Sequence[str]], Sequence[float]]
"""What sampled replies to a case, named by its id, are worth: each in [0, 1]."""


class Trainer(Protocol):
    """Who trains, and reads prompts as what was trained reads them."""

    async def fine_tune(self, work: Work, watch: Callable[[Progress], None], reward: Reward) -> Trained:
        """Train, saying how far it has come; raises ``TrainError``."""
        ...

    async def sample(
        self, adapter: Adapter | None, prompts: Sequence[Sequence[JsonObject]], how: Sampling
    ) -> Sequence[Sequence[str]]:
        """Return replies to *prompts* at random."""
        ...

    async def read(
        self, adapter: Adapter | None, prompts: Sequence[Sequence[JsonObject]], replies: Sequence[str], max_tokens: int
    ) -> Sequence[Reading]:
        """Answer *prompts* greedily in *max_tokens* (0: not at all), and say how likely *replies* are."""
        ...


class BaseTrainer:
    """Trains adapters for *base*: a GGUF file, a Hugging Face folder, or the name of a model on the hub."""

    def __init__(self, base: Path | str, limits: Limits) -> None:
        self._base = base
        self._limits = limits

    async def fine_tune(self, work: Work, watch: Callable[[Progress], None], reward: Reward) -> Trained:
        """Train in another process; raises ``TrainError``."""
        left = threading.Event()

        def watching(progress: Progress) -> None:
            if left.is_set():
                raise Stopped("training was stopped; the same command goes on from its checkpoint")
            watch(progress)

        try:
            return await asyncio.to_thread(fine_tune, work, self._base, self._limits, watch=watching, reward=reward)
        finally:
            left.set()  # a thread cannot be cancelled: it stops at its next step

    async def sample(
        self, adapter: Adapter | None, prompts: Sequence[Sequence[JsonObject]], how: Sampling
    ) -> Sequence[Sequence[str]]:
        """Sample in another process; raises ``TrainError``."""
        return await asyncio.to_thread(sample_replies, _folder(adapter), self._base, prompts, how)

    async def read(
        self, adapter: Adapter | None, prompts: Sequence[Sequence[JsonObject]], replies: Sequence[str], max_tokens: int
    ) -> Sequence[Reading]:
        """Read in another process; raises ``TrainError``."""
        return await asyncio.to_thread(read_prompts, _folder(adapter), self._base, prompts, replies, max_tokens)


def _folder(adapter: Adapter | None) -> Path | None:
    return None if adapter is None else find_adapter(adapter)


def base_name(model: Model) -> str:
    """Return what an adapter for *model* calls its base: the digest of its file, else the name it is served under."""
    identity = model.identity
    return str(identity.get("gguf_sha256") or identity.get("model") or model.name)


def trainer_for(task: Task, model: Model, teaching: Teaching | None) -> Trainer | None:
    """Return who trains, ``None`` where nothing is to be trained; raises ``TrainError`` before anything is spent."""
    if teaching is None:
        return None
    if not any(check.trusted for check in task.checks):
        judged = ", ".join(check.name for check in task.checks)
        raise TrainError(
            f"task {task.name!r} has no trusted check to learn weights by (it has: {judged}): a model trained on what "
            "nobody verified learns its errors; add a check that compares, validates or executes"
        )
    base = teaching.base or getattr(model, "file", None)
    if base is None:
        raise TrainError(
            f"the weights of {model.name!r} are not on this machine; name a folder or a model on the hub, with "
            "--train-base or improve.train_base"
        )
    if lack := missing():
        raise TrainError(lack)
    return BaseTrainer(base, Limits(teaching.minutes, teaching.memory_bytes, teaching.processes))
