"""Who may call: secrets are shown once, kept as digests, and looked up without asking the store.

Guarantees: the store, and whoever reads it, learns no secret.  A secret has 256 random bits, so that its plain SHA-256
can be neither guessed nor looked up: the slow hashes that passwords need would cost each request a tenth of a second
and protect nothing.  Looking a key up compares digests, whose timing tells nothing about a secret.  A key that is added
or revoked is known, or no longer, within about ``LOOK_S``; while the store cannot be read, those last read count.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from gainful.core import GainfulError, ServeError
from gainful.store import Key, Store

LOOK_S = 1.0  # between two looks at the store
PREFIX = "gk-"  # so that scanners for leaked secrets can know one
SECRET_BYTES = 32
MOST_NAME_CHARACTERS = 100

log = logging.getLogger("gainful.proxy")


def make_key(
    name: str,
    *,
    requests_per_minute: int | None = None,
    own_data: bool = False,
    own_task: bool = False,
    at: float | None = None,
) -> tuple[str, Key]:
    """Return a new secret, to be shown once, and the key to store for it; *at* is its Unix time in seconds, now.

    Raises ``ServeError`` for a name that log lines and tables cannot show, a limit below one, and a key that is both
    learned from for itself and not learned from at all.
    """
    if not (name.isprintable() and name.strip() == name and 0 < len(name) <= MOST_NAME_CHARACTERS):
        raise ServeError(
            f"a key cannot be called {name[:MOST_NAME_CHARACTERS]!r}; give 1 to {MOST_NAME_CHARACTERS} characters that "
            "can be seen, no blanks at the ends"
        )
    if requests_per_minute is not None and requests_per_minute < 1:
        raise ServeError(f"key {name!r} may make {requests_per_minute} requests a minute; give 1 or more, or revoke it")
    if own_data and own_task:
        raise ServeError(
            f"key {name!r} cannot have both --own-data, with which nothing is learned from its words, and --own-task, "
            "with which what they teach serves it alone; give one of the two"
        )
    secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    created_at = time.time() if at is None else at
    return secret, Key(name, _sha256(secret), created_at, False, requests_per_minute, own_data, own_task)


class Keyring:
    """The keys as one worker knows them; *opened* makes the store, in the thread that reads it."""

    def __init__(self, opened: Callable[[], Store]) -> None:
        self._opened = opened
        self._keys: dict[str, Key] = {}
        self._store: Store | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gainful-keys")
        self._looking: asyncio.Task[None] | None = None

    def find(self, secret: str) -> Key | None:
        """Return the key of *secret*, ``None`` where there is none or it was revoked."""
        return self._keys.get(_sha256(secret))

    async def start(self) -> None:
        """Read the keys, and again every ``LOOK_S``; raises ``StoreError`` where the store cannot be read now."""
        await self._look()
        self._looking = asyncio.create_task(self._keep_looking())

    async def close(self) -> None:
        """Stop looking, and close the store."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    async def _look(self) -> None:
        self._keys = await asyncio.get_running_loop().run_in_executor(self._thread, self._read)

    async def _keep_looking(self) -> None:
        was_well = True
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self._look()
                was_well = True
            except GainfulError as error:
                if was_well:  # one line, however long it lasts
                    log.error("keys cannot be read, the last ones count", extra={"kind": type(error).__name__})
                was_well = False

    def _read(self) -> dict[str, Key]:
        if self._store is None:
            self._store = self._opened()
        keys = self._store.keys()
        return {key.sha256: key for key in keys if not key.revoked}

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()  # headers may hold any bytes
