"""The OpenAI-compatible proxy: the champion in front of the model, each reply checked and on disk before it is sent."""

from collections.abc import Sequence
from pathlib import Path

from gainful.core import ServeError, StreamingModel
from gainful.proxy.desk import Plan
from gainful.proxy.server import is_loopback, run
from gainful.proxy.settings import Settings
from gainful.store import open_store
from gainful.tasks import Task

__all__ = ["Settings", "serve"]

USUAL = Settings()


def serve(
    tasks: Task | str | Sequence[Task | str],
    model: StreamingModel | str = "embedded",
    store: Path | str = "gainful.db",
    settings: Settings = USUAL,
) -> None:
    """Serve *tasks* in front of *model* until SIGTERM or SIGINT, as ``gainful/NAME`` each.

    Tasks and model are objects or the words of the command line; several workers, and a watcher, take words alone.
    Raises ``ServeError`` where the server cannot start: a port in use, no key for a server that others can reach.
    """
    chosen = (tasks,) if isinstance(tasks, Task | str) else tuple(tasks)
    if not all(isinstance(spec, str) for spec in (*chosen, model)) and (settings.workers > 1 or settings.improve):
        raise ServeError("several processes cannot share objects; name task and model in words, or use one worker")
    if not is_loopback(settings.host):
        settings = _guarded(settings, store)
    run(Plan(chosen, model, str(store), settings))


def _guarded(settings: Settings, store: Path | str) -> Settings:
    """Return *settings* with keys required, for a server that other machines can reach."""
    with open_store(store) as opened:
        callers = opened.keys()
        if all(key.revoked for key in callers):
            raise ServeError(
                f"a server at {settings.host} can be reached from elsewhere and needs keys; "
                "make one with: gainful keys add NAME"
            )
    return Settings(**{name: getattr(settings, name) for name in Settings.__struct_fields__} | {"require_keys": True})
