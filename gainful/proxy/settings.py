"""How a server is run: what the operator decides, for all tasks and all callers."""

from __future__ import annotations

from pathlib import Path

from gainful.answers.allowance import UNLIMITED, Limits
from gainful.core import ServeError, Value
from gainful.models.openai import Price
from gainful.proxy.redact import Storing
from gainful.store import Sync
from gainful.tasks.serving import Streaming


class Settings(Value, frozen=True):
    """Where to listen, how many processes answer, how much of everything is taken on.

    ``improve``: a watcher learns beside the workers.  ``limits`` cap what a task file and a caller allow.  ``stream``
    overrides the tasks'.  ``store_prompts``: store requests and replies in ``full``, as a ``hash``, or not
    (``none``).  ``sync="full"`` waits for the disk, so that replies survive a power cut too.  ``most_running``
    requests are answered at once by each worker, ``most_waiting`` more wait; the rest is turned away.
    ``upstream_s`` bounds one model call.  ``corrections_per_minute`` bounds what all requests together spend on
    corrections; ``price`` is the model's, without which money is unknown.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    improve: bool = False
    stream: Streaming | None = None
    limits: Limits = UNLIMITED
    store_prompts: Storing = "full"
    sync: Sync = "normal"
    require_keys: bool = False
    price: Price | None = None
    corrections_per_minute: int | None = None
    most_running: int = 512
    most_waiting: int = 512
    most_body_bytes: int = 8 << 20
    upstream_s: float = 120.0
    commit_s: float = 1.0  # how long a reply waits for its row before it goes out as failed-open
    keep_alive_s: float = 5.0  # between two comments on a held stream: proxies cut what is silent for 30 or 60 s
    shutdown_s: float = 30.0
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port < 1 << 16:
            raise ServeError(f"port {self.port} is none; give one from 1 to 65535, or 0 for any that is free")
        if self.workers < 1:
            raise ServeError(f"{self.workers} workers answer nothing; give 1 or more")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ServeError("TLS takes a certificate and its key; give both, or neither")
