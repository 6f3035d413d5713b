"""The process that watches: rounds of all its watchers, again and again, or once until nothing is left to do.

Guarantees: what breaks one round, a full disk or a lost lease, is said, and the next round looks again; own tasks of
keys that come are watched as soon as they have asked, those of revoked keys are left; whoever ends it lets another
watcher begin at once.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gainful.core import StoreError, StreamingModel
from gainful.loop.session import beside, data_folder
from gainful.models import connect
from gainful.models.openai import Price
from gainful.store import full_place, open_store
from gainful.tasks import Task, load
from gainful.watch.budget import require_price
from gainful.watch.holder import this_process
from gainful.watch.own_tasks import own_tasks
from gainful.watch.watcher import Watcher, Workplace

AT_ONCE = 4  # calls of learning under way: callers come first, and wait for what a server does for us
ROUND_S = 2.0  # between two rounds: a bad champion is noticed within seconds

log = logging.getLogger("gainful.watch")


def watch(
    tasks: Sequence[str], model: str, store: Path | str, *, once: bool = False, price: Price | None = None
) -> None:
    """Watch *tasks* until SIGTERM or SIGINT; with *once*, do all that is due now and return.

    *price* is the model's.  Raises what loading and connecting raise, and ``TaskError`` where a task limits money and
    there is no price.
    """
    loaded = [load(task) for task in tasks]
    for task in loaded:
        require_price(task, is_known=price is not None)
    asyncio.run(_watch(loaded, model, full_place(store), once=once, price=price))


def learning_model(spec: str, price: Price | None = None) -> StreamingModel:
    """Return the model that *spec* names, to learn with: it is asked little at once."""
    return connect(spec, concurrency=AT_ONCE, price=price)


async def _watch(tasks: Sequence[Task], model: str, where: str, *, once: bool, price: Price | None) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    connected = learning_model(model, price)
    with open_store(where) as store:
        place = Workplace(
            store=store,
            model=connected,
            model_spec=model,
            receipts=beside(where) / "receipts",
            signing_key=data_folder() / "signing-key.pem",
            holder=this_process(),
        )
        watchers = {task.name: Watcher(task, place) for task in tasks}
        log.info("watching", extra={"tasks": [task.name for task in tasks]})
        try:
            await rounds(tasks, place, watchers, stopped, once=once)
        finally:
            for watcher in watchers.values():
                await watcher.leave()
            await connected.close()


async def with_own(watchers: dict[str, Watcher], tasks: Sequence[Task], place: Workplace) -> None:
    """Begin to watch the own tasks of keys that have come, and leave those of keys that were revoked."""
    wanted = {task.name: task for task in (*tasks, *own_tasks(place.store, tasks))}
    for name in watchers.keys() - wanted.keys():
        await watchers.pop(name).leave()
    for name, task in wanted.items():
        if name not in watchers:
            watchers[name] = Watcher(task, place)


async def rounds(
    tasks: Sequence[Task], place: Workplace, watchers: dict[str, Watcher], stopped: asyncio.Event, *, once: bool
) -> None:
    """Let all *watchers*, which come and go with the keys, take rounds until *stopped*.

    With *once*, until nothing is left to do.
    """
    while not stopped.is_set():
        try:
            await with_own(watchers, tasks, place)
        except StoreError as error:
            log.warning("the keys cannot be read, what is watched stays", extra={"reason": str(error)})
        for watcher in list(watchers.values()):
            try:
                await watcher.round()
            except StoreError as error:  # nothing was moved
                log.warning("a round was cut short", extra={"task": watcher.task.name, "reason": str(error)})
        works = [work for watcher in watchers.values() for work in watcher.under_way]
        is_behind = any(watcher.is_behind for watcher in watchers.values())
        if once and not works and not is_behind:
            return
        await _pause(stopped, works if once else [], 0.0 if once and is_behind else ROUND_S)


async def _pause(stopped: asyncio.Event, works: Sequence[asyncio.Task[Any]], most_s: float) -> None:
    """Wait until the watcher is told to stop, one of *works* has ended, or *most_s* seconds have passed."""
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait([stopping, *works], timeout=most_s, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
