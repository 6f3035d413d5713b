"""Several processes that train one adapter together, each on its part of every batch.

Guarantees: what decides how training goes on is known to all of them alike, so that none waits for one that has left;
whoever asks the parent asks once for all.  Where there is one process, all of it costs nothing.  Loaded by the worker
alone: this module imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor

T = TypeVar("T")


def processes() -> int:
    """Return how many processes train together, as their launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def processes_here() -> int:
    """Return how many of them share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def gathered(mine: T) -> list[T]:
    """Return what each process calls *mine*, in the order of their ranks; all of them have to ask, and wait here."""
    if not torch.distributed.is_initialized():
        return [mine]
    said: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(said, mine)
    return said


def worth(ask: Callable[[str, tuple[str, ...]], Sequence[float]], mine: Sequence[tuple[str, str]]) -> list[float]:
    """Return what my pairs of case and reply are worth; the first process asks, for all, one case's replies at once."""
    everyone = gathered(mine)
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    rewards: list[float] = []
    if rank == 0:
        pairs = [pair for pairs in everyone for pair in pairs]
        for case, group in groupby(pairs, key=itemgetter(0)):
            rewards += ask(case, tuple(reply for _, reply in group))
    rewards = gathered(rewards)[0]
    before = sum(map(len, everyone[:rank]))
    return rewards[before : before + len(mine)]


def is_finite(gradient: Any) -> bool:
    """Return whether all numbers of a gradient are finite, of a sharded one the part that lies here."""
    return bool((gradient.to_local() if isinstance(gradient, DTensor) else gradient).isfinite().all())


def whole_weights(model: Any) -> dict[str, Any]:
    """Return the weights of *model* that are trained, whole and in main memory, however FSDP has dealt them out.

    All processes have to ask; only the first is sure to get them.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    return dict(get_model_state_dict(model, options=options))
