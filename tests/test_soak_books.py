"""The accounting after a soak: books that hold pass, and each way of cheating is found."""

import json
from pathlib import Path

import msgspec
import pytest
from soak import Received, exchanges_of, faults_in_the_books, received

from gainful.core import Exchange, JsonObject, Usage
from gainful.store import open_store

COUNTED = {7: (50, 37), 8: (50, 38)}


def row(number: int, *, id: str = "", text: str = "", **changed: object) -> Exchange:
    """Return what the store should hold of the upstream's reply *number*."""
    reply: JsonObject = {"choices": [{"message": {"role": "assistant", "content": text or f"reply {number} the fox"}}]}
    prompt, completion = COUNTED[number]
    kept = Exchange(
        id=id or f"id-{number}",
        at=1.0,
        task="plain",
        policy="p" * 64,
        model="mock",
        verdict="verified",
        reply=reply,
        usage=Usage(calls=1, prompt_tokens=prompt, completion_tokens=completion),
    )
    return msgspec.structs.replace(kept, **changed)


CLIENTS = [Received(f"id-{number}", f"reply {number} the fox", COUNTED[number]) for number in COUNTED]
ROWS = [row(7), row(8)]


def test_books_that_hold_have_no_fault() -> None:
    assert faults_in_the_books(CLIENTS, ROWS, COUNTED) == {}


def test_a_row_without_a_client_is_no_fault() -> None:
    """Somebody left before the end: the row may be there."""
    assert faults_in_the_books(CLIENTS[:1], ROWS, COUNTED) == {}


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([row(7)], "received whole and not stored"),
        ([*ROWS, row(8, text="another")], "received once and stored more often"),
        ([row(7), row(8, text="reply 8 the ox")], "stored with another text"),
        ([row(7), row(8, usage=Usage(calls=1, prompt_tokens=50, completion_tokens=1))], "stored with another usage"),
        ([*ROWS, row(8, id="id-9")], "replies of the upstream stored twice"),
        (
            [*ROWS, row(8, id="id-9", text="reply 8 x", usage=Usage(calls=1, prompt_tokens=1))],
            "stored with another usage than the upstream counted",
        ),
    ],
)
def test_each_fault_is_found(rows: list[Exchange], fault: str) -> None:
    assert faults_in_the_books(CLIENTS, rows, COUNTED)[fault] == 1


def test_replies_and_streams_are_read_as_clients_received_them() -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 37}
    plain = {"id": "id-7", "choices": [{"message": {"content": "reply 7 the fox"}}], "usage": usage}
    deltas = [{"role": "assistant", "content": "reply 7"}, {"content": " the fox"}]
    chunks = [{"id": "id-7", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    events = [*map(json.dumps, [*chunks, {"id": "id-7", "choices": [], "usage": usage}]), "[DONE]"]
    streamed = ": waiting\n\n" + "".join(f"data: {event}\n\n" for event in events)
    broken = 'data: {"error": {"message": "upstream"}}\n\ndata: [DONE]\n\n'

    assert list(received([json.dumps(plain), streamed, broken])) == [CLIENTS[0], CLIENTS[0]]


def test_the_whole_store_is_read(tmp_path: Path) -> None:
    with open_store(tmp_path / "serve.db") as store:
        store.put_exchanges([row(7, id=str(number)) for number in range(2500)])

    assert sorted(int(exchange.id) for exchange in exchanges_of(tmp_path / "serve.db")) == list(range(2500))
