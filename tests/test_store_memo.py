"""The memo of model calls: what makes two calls the same, and what is paid for once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gainful.core import JsonObject, Model, ModelError, Reply, digest
from gainful.models import ScriptedModel
from gainful.store import MemoModel, SQLiteStore, memo_key

BODY: JsonObject = {"messages": [{"role": "user", "content": "2 + 2?"}], "temperature": 0}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "store.db") as store:
        yield store


def counting() -> ScriptedModel:
    """A model whose every answer is new, so that an answer seen twice was asked for once."""
    return ScriptedModel([f"answer {number}" for number in range(99)], delay_s=0.001)


# --- keys


def test_a_key_is_the_digest_a_receipt_is_checked_with() -> None:
    assert memo_key({"name": "m"}, BODY, 3) == digest({"body": BODY, "model": {"name": "m"}, "sample": 3})


@pytest.mark.parametrize(
    "field",
    [
        "metadata",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "user",
    ],
)
def test_a_field_that_cannot_change_the_answer_is_not_in_the_key(field: str) -> None:
    assert memo_key({}, BODY | {field: "x"}) == memo_key({}, BODY)


def test_the_order_of_fields_is_not_in_the_key() -> None:
    assert memo_key({"a": 1, "b": 2}, dict(reversed(BODY.items()))) == memo_key({"b": 2, "a": 1}, BODY)


@pytest.mark.parametrize(
    ("identity", "body", "sample"),
    [
        ({"name": "other"}, BODY, 0),
        ({}, BODY, 1),
        ({}, BODY | {"temperature": 0.1}, 0),
        ({}, BODY | {"seed": 0}, 0),
        ({}, BODY | {"n": 2}, 0),
        ({}, BODY | {"logprobs": True}, 0),
        ({}, BODY | {"response_format": {"type": "json_object"}}, 0),
        ({}, BODY | {"anything new": None}, 0),
        ({}, {"messages": [{"role": "user", "content": "2 + 2? ", "user": "x"}], "temperature": 0}, 0),
    ],
)
def test_everything_else_is_in_the_key(identity: JsonObject, body: JsonObject, sample: int) -> None:
    assert memo_key(identity, body, sample) != memo_key({}, BODY, 0)


# --- calls


def test_a_memo_is_a_model_like_the_one_it_stands_for(store: SQLiteStore) -> None:
    model = ScriptedModel(["x"], name="m", concurrency=3)
    memo = MemoModel(model, store)

    assert isinstance(memo, Model)
    assert (memo.name, memo.identity, memo.concurrency) == ("m", model.identity, 3)


async def test_the_same_call_is_made_once_and_its_time_repeats(store: SQLiteStore) -> None:
    memo = MemoModel(counting(), store)
    first = await memo.complete(BODY)
    again = await memo.complete(BODY | {"user": "ann"})

    assert first.message["content"] == "answer 0"
    assert again == first
    assert first.usage.elapsed_ms == 1.0
    assert (memo.fresh_calls, memo.saved_calls) == (1, 1)


async def test_samples_of_one_request_are_calls_of_their_own(store: SQLiteStore) -> None:
    memo = MemoModel(counting(), store)
    replies = [await memo.complete(BODY, sample=sample) for sample in (0, 1, 0, 1)]

    assert [reply.message["content"] for reply in replies] == ["answer 0", "answer 1"] * 2


async def test_a_later_process_is_given_the_very_same_reply(tmp_path: Path) -> None:
    replies = []
    for _ in range(2):
        with SQLiteStore(tmp_path / "store.db") as store:
            memo = MemoModel(counting(), store)
            replies.append(await memo.complete(BODY))

    assert repr(replies[0]) == repr(replies[1])
    assert (memo.fresh_calls, memo.saved_calls) == (0, 1)


async def test_another_model_is_asked_itself(store: SQLiteStore) -> None:
    one = MemoModel(ScriptedModel(["one"], name="one"), store)
    two = MemoModel(ScriptedModel(["two"], name="two"), store)

    assert (await one.complete(BODY)).message["content"] == "one"
    assert (await two.complete(BODY)).message["content"] == "two"


async def test_a_reply_keeps_its_answer_and_costs_and_sheds_what_differs_from_call_to_call(store: SQLiteStore) -> None:
    kept: JsonObject = {
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function"}]},
                "logprobs": {"content": [{"token": "a", "logprob": -0.1}]},
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
        "model": "m",
        "system_fingerprint": "b1",
    }
    body = kept | {"id": "chatcmpl-7", "created": 1700000000, "timings": {"predicted_ms": 3.5}, "object": "x"}
    reply = await MemoModel(Priced(body), store).complete(BODY)

    assert reply == Reply(body=kept, elapsed_ms=2.5, cost_usd=1e-5, key=memo_key({"name": "priced"}, BODY))


class Priced:
    """A model that gives one reply, with its time and price."""

    name = "priced"
    concurrency = 1

    def __init__(self, body: JsonObject) -> None:
        self.identity: JsonObject = {"name": "priced"}
        self._body = body

    async def complete(self, body: JsonObject, *, sample: int = 0) -> Reply:
        return Reply(body=self._body, elapsed_ms=2.5, cost_usd=1e-5)

    async def close(self) -> None: ...


async def test_an_error_is_raised_and_never_stored(store: SQLiteStore) -> None:
    memo = MemoModel(ScriptedModel(["first", "second"], failing={0}), store)

    with pytest.raises(ModelError, match="call 0 was told to fail"):
        await memo.complete(BODY)
    assert memo.fresh_calls == 0
    assert (await memo.complete(BODY)).message["content"] == "second"


def reply_body(**choice: Any) -> JsonObject:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, **choice}]}


@pytest.mark.parametrize(
    "finish", [{"finish_reason": "stop"}, {"finish_reason": "length"}, {"finish_reason": None}, {}]
)
async def test_a_finished_reply_is_stored_whatever_the_server_calls_its_end(store: SQLiteStore, finish: Any) -> None:
    memo = MemoModel(Priced(reply_body(**finish)), store)
    await memo.complete(BODY)
    await memo.complete(BODY)

    assert (memo.fresh_calls, memo.saved_calls) == (1, 1)


@pytest.mark.parametrize("body", [reply_body(finish_reason="error"), {"choices": []}, {"choices": None}, {}])
async def test_a_reply_that_was_broken_off_is_an_error_and_not_stored(store: SQLiteStore, body: JsonObject) -> None:
    memo = MemoModel(Priced(body), store)

    with pytest.raises(ModelError, match="model 'priced' broke off its reply"):
        await memo.complete(BODY)
    assert store.memo_get(memo_key(memo.identity, BODY)) is None
    assert memo.fresh_calls == 0


async def test_half_a_character_at_the_end_becomes_a_replacement_character(store: SQLiteStore) -> None:
    memo = MemoModel(ScriptedModel(["whole \ud83d\ude00, half \ud83d"]), store)
    first = await memo.complete(BODY)

    assert first.message["content"] == "whole \U0001f600, half �"
    assert await memo.complete(BODY) == first


# --- calls made together


async def test_identical_calls_made_together_become_one(store: SQLiteStore) -> None:
    memo = MemoModel(counting(), store)
    replies = await asyncio.gather(*(memo.complete(BODY) for _ in range(5)), memo.complete(BODY, sample=1))

    assert {reply.message["content"] for reply in replies[:5]} == {"answer 0"}
    assert replies[5].message["content"] == "answer 1"
    assert (memo.fresh_calls, memo.saved_calls) == (2, 4)


async def test_calls_made_together_share_an_error_and_the_next_one_asks_again(store: SQLiteStore) -> None:
    model = ScriptedModel(["first", "second"], failing={0}, delay_s=0.001)
    memo = MemoModel(model, store)
    results = await asyncio.gather(*(memo.complete(BODY) for _ in range(3)), return_exceptions=True)

    assert [type(result) for result in results] == [ModelError] * 3
    assert memo.saved_calls == 0
    assert (await memo.complete(BODY)).message["content"] == "second"
    assert len(model.calls) == 2


async def test_when_the_one_who_asked_goes_away_another_asks(store: SQLiteStore) -> None:
    model = counting()
    memo = MemoModel(model, store)
    asking, waiting, also_waiting = (asyncio.create_task(memo.complete(BODY)) for _ in range(3))
    await asyncio.sleep(0)
    asking.cancel()

    assert (await waiting).message["content"] == "answer 1"
    assert (await also_waiting).message["content"] == "answer 1"
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert len(model.calls) == 2


async def test_when_one_who_waits_goes_away_the_call_goes_on(store: SQLiteStore) -> None:
    memo = MemoModel(counting(), store)
    asking, waiting = (asyncio.create_task(memo.complete(BODY)) for _ in range(2))
    await asyncio.sleep(0)
    waiting.cancel()

    assert (await asking).message["content"] == "answer 0"
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (memo.fresh_calls, memo.saved_calls) == (1, 0)


async def test_a_reply_that_another_process_stored_first_is_the_one_returned(tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "store.db") as here, SQLiteStore(tmp_path / "store.db") as there:
        slow = asyncio.create_task(MemoModel(ScriptedModel(["late"], delay_s=0.05), here).complete(BODY))
        await asyncio.sleep(0)
        quick = await MemoModel(ScriptedModel(["early"]), there).complete(BODY)
        late = await slow

    assert late == quick
    assert late.message["content"] == "early"


# --- size


@pytest.mark.slow
def test_memory_is_flat_in_the_number_of_stored_calls(tmp_path: Path) -> None:
    """A second process stores 100,000 calls and attempts; its memory stays where it was at 10,000."""
    code = """
        import resource, sys
        from gainful.core import Answer, Attempt, Policy, digest
        from gainful.store import SQLiteStore
        policy = Policy(instructions="Answer.")
        def attempt(number):
            return Attempt(case=digest(number), policy=policy.id, answer=Answer(text="answer " * 40))
        with SQLiteStore(sys.argv[1]) as store:
            store.put_policy(policy)
            for start, end in ((0, 10_000), (10_000, 100_000)):
                for number in range(start, end):
                    store.memo_put(digest(number), b"answer %d " % number * 30)
                store.put_attempts("task", map(attempt, range(start, end)))
                for number in range(start, end, 7):
                    assert store.memo_get(digest(number)) == b"answer %d " % number * 30
                print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # KiB
            print(store.attempt_count())
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "store.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    early, late, count = map(int, done.stdout.split())

    assert count == 100_000
    assert late - early < 4096
