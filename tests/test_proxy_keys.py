"""Keys: what is stored of a secret, and how soon it works and no longer does."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gainful.core import ServeError, StoreError
from gainful.proxy.keys import LOOK_S, MOST_NAME_CHARACTERS, Keyring, make_key
from gainful.store import Key, open_store

SOON_S = 10 * LOOK_S  # on a machine that is busy with other things


@asynccontextmanager
async def keyring(path: Path) -> AsyncIterator[Keyring]:
    found = Keyring(functools.partial(open_store, path))
    await found.start()
    try:
        yield found
    finally:
        await found.close()


async def eventually(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not is_so():  # another thread makes it so
            await asyncio.sleep(0.02)


def test_a_secret_has_256_random_bits_and_the_key_only_its_digest() -> None:
    secret, key = make_key("web", requests_per_minute=60, own_data=True, at=5.0)
    other, _ = make_key("web")

    assert secret.startswith("gk-")
    assert len(secret) == len("gk-") + 43
    assert secret != other
    assert key == Key("web", hashlib.sha256(secret.encode()).hexdigest(), 5.0, False, 60, True)


@pytest.mark.parametrize("name", ["", " ", "a\nb", " web", "x" * (MOST_NAME_CHARACTERS + 1), "\x1b[31m"])
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    with pytest.raises(ServeError, match="a key cannot be called"):
        make_key(name)


def test_a_limit_that_lets_nothing_through_is_refused() -> None:
    with pytest.raises(ServeError, match="'web' may make 0 requests a minute"):
        make_key("web", requests_per_minute=0)


async def test_a_key_is_found_by_its_secret_and_by_nothing_else(tmp_path: Path) -> None:
    secret, key = make_key("web")
    with open_store(tmp_path / "store.db") as store:
        store.put_key(key)

    async with keyring(tmp_path / "store.db") as keys:
        assert keys.find(secret) == key
        for wrong in ("", "web", key.sha256, secret[:-1], secret + "=", "\udcff", "gk-" + "a" * 43):
            assert keys.find(wrong) is None


@pytest.mark.slow
async def test_a_key_works_soon_after_it_was_added_and_not_long_after_it_was_revoked(tmp_path: Path) -> None:
    secret, key = make_key("web")
    async with keyring(tmp_path / "store.db") as keys:
        with open_store(tmp_path / "store.db") as store:
            store.put_key(key)
            await eventually(lambda: keys.find(secret) is not None)
            store.revoke_key("web")
            await eventually(lambda: keys.find(secret) is None)


async def test_finding_a_key_does_not_ask_the_store(tmp_path: Path) -> None:
    secret, key = make_key("web")
    with open_store(tmp_path / "store.db") as store:
        store.put_key(key)

    async with keyring(tmp_path / "store.db") as keys:
        began_s = time.process_time()
        for _ in range(2_000):
            keys.find(secret)
            keys.find("gk-unknown")

        assert time.process_time() - began_s < 0.2  # 50 microseconds each; a question to SQLite takes longer


async def test_while_the_store_cannot_be_read_the_last_keys_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gainful.proxy.keys.LOOK_S", 0.02)
    secret, key = make_key("web")
    with open_store(tmp_path / "store.db") as store:
        store.put_key(key)

    async with keyring(tmp_path / "store.db") as keys:
        (tmp_path / "store.db").write_bytes(b"no database" * 1000)
        await eventually(lambda: bool(caplog.records))
        await asyncio.sleep(0.1)

        assert keys.find(secret) == key
    assert [record.message for record in caplog.records] == ["keys cannot be read, the last ones count"]


async def test_a_keyring_without_a_store_does_not_start(tmp_path: Path) -> None:
    keys = Keyring(functools.partial(open_store, tmp_path / "no folder" / "\x00"))
    with pytest.raises((StoreError, ValueError)):
        await keys.start()

    await keys.close()
