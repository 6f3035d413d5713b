"""``gainful keys`` as an operator meets it: real processes and a real store."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gainful.store import open_store

pytestmark = pytest.mark.slow


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def gainful(*words: str, store: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "gainful.cli", "keys", *words, "--store", str(store)]
    environment = {**os.environ, "COLUMNS": "120"}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == code, ran.stderr
    return ran


def read(*words: str, store: Path) -> Any:
    return json.loads(gainful(*words, "--json", store=store).stdout)


def test_a_secret_is_shown_once_alone_on_standard_output_and_only_its_digest_is_stored(store: Path) -> None:
    ran = gainful("add", "web", "--requests-per-minute", "60", "--own-data", store=store)

    secret = ran.stdout.strip()
    assert secret.startswith("gk-")
    assert "not shown again" in ran.stderr
    with open_store(store) as opened:
        (key,) = opened.keys()
    assert key.sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert (key.name, key.requests_per_minute, key.own_data) == ("web", 60, True)
    assert secret.encode() not in b"".join(path.read_bytes() for path in store.parent.iterdir() if path.is_file())
    assert secret not in gainful("list", store=store).stdout


def test_scripts_read_keys_as_json(store: Path) -> None:
    added = read("add", "web", store=store)
    gainful("add", "batch", "--requests-per-minute", "5", store=store)
    revoked = read("revoke", "web", store=store)
    listed = read("list", store=store)

    assert added.pop("secret").startswith("gk-")
    assert revoked == {"name": "web", "revoked": True}
    assert listed[0] == {**added, "revoked": True}
    assert [key["name"] for key in listed] == ["web", "batch"]
    assert listed[1]["requests_per_minute"] == 5
    assert not any("sha256" in key or "secret" in key for key in listed)


def test_people_read_a_table(store: Path) -> None:
    empty = gainful("list", store=store).stdout
    gainful("add", "web[bold]", store=store)
    gainful("revoke", "web[bold]", store=store)
    table = gainful("list", store=store).stdout

    assert "There is no key yet" in empty
    assert "web[bold]" in table
    assert "any number" in table
    assert "revoked" in table


def test_a_key_may_have_tasks_of_its_own_and_not_keep_its_data_apart_as_well(store: Path) -> None:
    added = read("add", "clinic", "--own-task", store=store)
    refused = gainful("add", "bank", "--own-task", "--own-data", store=store, code=2)

    assert (added["own_task"], added["own_data"]) == (True, False)
    assert "own task" in gainful("list", store=store).stdout
    assert refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 1
    assert [key["name"] for key in read("list", store=store)] == ["clinic"]


def test_a_name_that_is_taken_or_unknown_gets_one_sentence(store: Path) -> None:
    gainful("add", "web", store=store)

    for words in (("add", "web"), ("revoke", "nobody"), ("add", "")):
        ran = gainful(*words, store=store, code=2)
        assert ran.stdout == ""
        assert len(ran.stderr.splitlines()) == 1
        assert "Traceback" not in ran.stderr
