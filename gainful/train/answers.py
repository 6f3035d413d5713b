"""What the trainer's side draws and reads, by a worker; what was drawn or read once is kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import msgspec

from gainful.core import JsonObject, TrainError, digest
from gainful.models.gguf import gguf_digest
from gainful.train.extra import missing
from gainful.train.folders import ANSWER, alone, answer_folder, sweep, write
from gainful.train.jobs import Hear, Progress, Reading, Sampling
from gainful.train.kept import Kept
from gainful.train.orders import Read, Readings, Sample, Sampled
from gainful.train.process import carry_out
from gainful.train.stop import Stop
from gainful.train.training import ignore

Answered = TypeVar("Answered", Readings, Sampled)


def read_prompts(
    adapter: Path | None,
    base: Path | str,
    prompts: Sequence[Sequence[JsonObject]],
    replies: Sequence[str] | None = None,
    max_tokens: int = 64,
    *,
    cuts: Sequence[Sequence[str]] | None = None,
    memory_bytes: int | None = None,
    watch: Hear = ignore,
    stop: Stop | None = None,
    kept: Kept | None = None,
) -> list[Reading]:
    """Return how the trainer's side answers *prompts* (messages each) greedily, and how likely it finds *replies*.

    *cuts* are the replies in tokens, as whoever gave them cut them; where one is not known, the trainer's own cut is
    read.  *adapter* is an adapter's folder, ``None`` for the base alone.  ``max_tokens`` 0 asks for no answers.
    *watch* hears how many prompts are done; a worker that is *kept* does it, where there is one, and is kept again.  It
    blocks until all are done, or until another thread sets *stop*.  Raises ``TrainError`` and ``Stopped``.
    """
    for given in (replies, cuts):
        if given is not None and len(given) != len(prompts):
            raise TrainError(f"{len(given)} replies for {len(prompts)} prompts; give one a prompt, or none at all")
    order = Read(
        base=str(base),
        prompts=tuple(map(tuple, prompts)),
        replies=None if replies is None else tuple(replies),
        cuts=None if cuts is None else tuple(map(tuple, cuts)),
        max_tokens=max_tokens,
        adapter=str(adapter or ""),
        memory_bytes=memory_bytes,
    )
    return list(_remembered(order, adapter, Readings, watch, stop or Stop(), kept).readings)


def sample_replies(
    adapter: Path | None,
    base: Path | str,
    prompts: Sequence[Sequence[JsonObject]],
    how: Sampling,
    *,
    memory_bytes: int | None = None,
    watch: Hear = ignore,
    stop: Stop | None = None,
    kept: Kept | None = None,
) -> list[tuple[str, ...]]:
    """Return ``how.samples`` replies to each of *prompts*, drawn on the trainer's side.

    The rest is as in ``read_prompts``.
    """
    order = Sample(
        base=str(base),
        prompts=tuple(map(tuple, prompts)),
        how=how,
        adapter=str(adapter or ""),
        memory_bytes=memory_bytes,
    )
    return list(_remembered(order, adapter, Sampled, watch, stop or Stop(), kept).replies)


def _remembered(
    order: Read | Sample, adapter: Path | None, kind: type[Answered], watch: Hear, stop: Stop, kept: Kept | None
) -> Answered:
    """Return the answer to *order*: from the cache, where places on this machine do not name it, else the worker's."""
    if lack := missing():
        raise TrainError(lack)
    sweep(time.time())
    which = gguf_digest(Path(order.base)) if Path(order.base).is_file() else order.base
    named = msgspec.structs.replace(order, base=which, adapter=adapter.name if adapter else "", memory_bytes=None)
    folder = answer_folder(digest(named))
    with alone(folder, stop):
        try:
            return msgspec.json.decode((folder / ANSWER).read_bytes(), type=kind)
        except (OSError, msgspec.DecodeError):
            pass  # it was not asked yet, or was cut off
        answer = None
        with closing(carry_out(order, folder, stop, kept=kept)) as heard:
            for said in heard:
                stop.check()
                if isinstance(said, Progress):
                    watch(said)
                if isinstance(said, kind):
                    answer = said
        assert answer is not None  # a worker that ends well has said so
        write(folder / ANSWER, msgspec.json.encode(answer))
        return answer
