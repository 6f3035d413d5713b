"""Who trains the weights of a run's model: the room ``train`` on its base, asked from the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from gainful.core import Adapter, JsonObject, Model, TrainError
from gainful.learners.teaching import Teaching
from gainful.models.adapters import find_adapter
from gainful.tasks.task import Task
from gainful.train import (
    Hear,
    Kept,
    Limits,
    Reading,
    Reward,
    Sampling,
    Stop,
    Trained,
    Work,
    check_family,
    fine_tune,
    missing,
    read_prompts,
    sample_replies,
)
from gainful.train.headers import parameters
from gainful.train.memory import check_memory, free_bytes, has_gpu, least_bytes

T = TypeVar("T")


class Trainer(Protocol):
    """Who trains, and reads prompts as what was trained reads them."""

    async def fine_tune(self, work: Work, watch: Hear, reward: Reward) -> Trained:
        """Train, saying how far it has come; raises ``TrainError``."""
        ...

    async def sample(
        self, adapter: Adapter | None, prompts: Sequence[Sequence[JsonObject]], how: Sampling, watch: Hear
    ) -> Sequence[Sequence[str]]:
        """Return replies to *prompts* at random, saying how many prompts are done; raises ``TrainError``."""
        ...

    async def read(
        self,
        adapter: Adapter | None,
        prompts: Sequence[Sequence[JsonObject]],
        served: Sequence[Reading],
        max_tokens: int,
        watch: Hear,
    ) -> Sequence[Reading]:
        """Answer *prompts* greedily in *max_tokens* (0: not at all), and say how likely the *served* replies are.

        *watch* hears how many prompts are done.  Raises ``TrainError``.
        """
        ...


class BaseTrainer:
    """Trains adapters for *base*: a GGUF file, a Hugging Face folder, or the name of a model on the hub.

    What is under way in another process ends at once when it is cancelled.
    """

    def __init__(self, base: Path | str, limits: Limits) -> None:
        self._base = base
        self._limits = limits
        self.kept = Kept()

    def check_memory(self, *, now: bool) -> None:
        """Raise ``TrainError`` where less is allowed, or *now* free on this machine, than the base alone takes."""
        weights = parameters(str(self._base))
        if weights is not None and self._limits.processes is None:  # several may share one out among their machines
            free = free_bytes() if now and not has_gpu() else None
            check_memory(least_bytes(weights), self._limits.memory_bytes, free)

    async def fine_tune(self, work: Work, watch: Hear, reward: Reward) -> Trained:
        """Train in another process; raises ``TrainError``."""

        def train(stop: Stop) -> Trained:
            self.kept.end()  # its memory is needed
            return fine_tune(work, self._base, self._limits, watch=watch, reward=reward, stop=stop)

        return await _until_cancelled(train)

    async def sample(
        self, adapter: Adapter | None, prompts: Sequence[Sequence[JsonObject]], how: Sampling, watch: Hear
    ) -> Sequence[Sequence[str]]:
        """Sample in another process; raises ``TrainError``."""

        def sample(stop: Stop) -> Sequence[Sequence[str]]:
            allowed = self._limits.memory_bytes
            return sample_replies(
                _folder(adapter),
                self._base,
                prompts,
                how,
                memory_bytes=allowed,
                watch=watch,
                stop=stop,
                kept=self.kept,
            )

        return await _until_cancelled(sample)

    async def read(
        self,
        adapter: Adapter | None,
        prompts: Sequence[Sequence[JsonObject]],
        served: Sequence[Reading],
        max_tokens: int,
        watch: Hear,
    ) -> Sequence[Reading]:
        """Read in another process; raises ``TrainError``."""

        def read(stop: Stop) -> Sequence[Reading]:
            return read_prompts(
                _folder(adapter),
                self._base,
                prompts,
                [one.greedy for one in served],
                max_tokens,
                cuts=[one.cut for one in served],
                memory_bytes=self._limits.memory_bytes,
                watch=watch,
                stop=stop,
                kept=self.kept,
            )

        return await _until_cancelled(read)


async def _until_cancelled(work: Callable[[Stop], T]) -> T:
    """Return what *work* does in a thread, which cannot be cancelled: its worker is ended then."""
    stop = Stop()
    try:
        return await asyncio.to_thread(work, stop)
    finally:
        stop.set()


def _folder(adapter: Adapter | None) -> Path | None:
    return None if adapter is None else find_adapter(adapter)


def base_name(model: Model) -> str:
    """Return what an adapter for *model* calls its base: the digest of its file, else the name it is served under."""
    identity = model.identity
    return str(identity.get("gguf_sha256") or identity.get("model") or model.name)


def trainer_for(task: Task, model: Model, teaching: Teaching | None) -> BaseTrainer | None:
    """Return who trains, ``None`` where nothing is to be trained.

    Raises ``TrainError`` where nothing can be learned here, before anything is spent; whether there is memory for it
    at this moment, ``BaseTrainer.check_memory`` says.
    """
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
    check_family(str(base))
    trainer = BaseTrainer(base, Limits(teaching.minutes, teaching.memory_bytes, teaching.processes))
    trainer.check_memory(now=False)
    return trainer
