"""Streamed replies of a real server that misbehaves as it is told."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from model_servers import BEGUN, ENDED, HELLO, Behaviour, ChatServer, chat, chunk, cut_off, hang, hang_up, status
from model_servers import streamed as sends
from model_servers import text as answers

from gainful.core import JsonObject, ModelError, ModelNotFound, RequestRefused, StreamingModel
from gainful.models import OpenAIModel, ScriptedModel
from gainful.models.patience import Patience

BODY: JsonObject = {"messages": [{"role": "user", "content": "hi"}]}
ONCE = Patience(attempts=1, timeout_s=5.0)


@asynccontextmanager
async def served(server: ChatServer, **settings: Any) -> AsyncIterator[OpenAIModel]:
    async with TestServer(server.app) as test_server:
        model = OpenAIModel("small", str(test_server.make_url("/v1")), "secret", **{"patience": ONCE, **settings})
        try:
            yield model
        finally:
            await model.close()


async def collect(model: StreamingModel, into: list[bytes], body: JsonObject = BODY) -> None:
    async with aclosing(model.stream(body)) as stream:
        async for payload in stream:
            into.append(payload)  # noqa: PERF401 - what came before an error counts


async def payloads(model: StreamingModel, body: JsonObject = BODY) -> list[bytes]:
    came: list[bytes] = []
    await collect(model, came, body)
    return came


async def fails(behaviour: Behaviour, **settings: Any) -> tuple[ModelError, int]:
    """Return the error that a stream ends in, and how many payloads came before it."""
    came: list[bytes] = []
    async with served(ChatServer(behaviour), **settings) as model:
        with pytest.raises(ModelError) as caught:
            await collect(model, came)
    return caught.value, len(came)


async def test_a_stream_is_asked_for_with_the_body_as_it_is_and_passed_on_as_it_comes() -> None:
    server = ChatServer()
    body = {**BODY, "n": 1, "stream_options": {"include_usage": True}, "vendor_field": [None, 1.0, "é"]}
    async with served(server) as model:
        came = await payloads(model, body)

    assert server.bodies == [{**body, "model": "small", "stream": True}]
    assert came == list(ENDED)


@pytest.mark.parametrize("piece", [1, 7, 64])
async def test_the_cuts_of_the_network_change_nothing(piece: int) -> None:
    async with served(ChatServer(sends(*HELLO, piece=piece))) as model:
        assert await payloads(model) == list(ENDED)


async def test_empty_events_are_left_out_and_what_follows_the_end_is_not_read() -> None:
    async with served(ChatServer(sends(b"", *HELLO, b"rubbish"))) as model:
        assert await payloads(model) == list(ENDED)


async def test_a_stream_without_its_last_word_is_whole_where_every_choice_ended() -> None:
    async with served(ChatServer(sends(*ENDED))) as model:
        assert await payloads(model) == list(ENDED)


@pytest.mark.parametrize(
    ("behaviour", "seen"),
    [
        (sends(), 0),
        (sends(*BEGUN), 3),
        (sends(*ENDED, chunk({"content": "two"}, index=1)), 6),
        (sends(*BEGUN, then=hang_up), 3),
        (cut_off, 0),
    ],
)
async def test_a_stream_that_breaks_off_is_an_error(behaviour: Behaviour, seen: int) -> None:
    error, came = await fails(behaviour)

    assert "broke off" in str(error)
    assert came == seen


@pytest.mark.parametrize("garbage", [b"<html>", b"[]", b"null", b'{"choices": [', b"\xff", b"[" * 5000])
async def test_an_event_that_is_no_object_is_an_error(garbage: bytes) -> None:
    error, came = await fails(sends(*BEGUN, garbage, *HELLO))

    assert "sent something in its stream that is no JSON object" in str(error)
    assert came == 3


async def test_log_probabilities_that_json_has_not_are_no_garbage() -> None:
    infinite = b'{"choices": [{"index": 0, "delta": {}, "logprobs": {"content": [{"logprob": -Infinity}]}}]}'
    async with served(ChatServer(sends(infinite, *HELLO))) as model:
        assert (await payloads(model))[0] == infinite


@pytest.mark.parametrize(
    ("said", "kind", "code"),
    [
        ({"error": {"message": "out of memory", "code": 503}}, ModelError, 503),
        ({"error": {"message": "out of memory", "code": "oom"}}, ModelError, None),
        ({"error": "out of memory"}, ModelError, None),
        ({"object": "error", "message": "out of memory", "code": 400}, RequestRefused, 400),
        ({"error": {"message": "out of memory", "code": 400}, "choices": []}, RequestRefused, 400),
    ],
)
async def test_an_error_in_the_stream_is_told_in_the_servers_words(
    said: JsonObject, kind: type[ModelError], code: int | None
) -> None:
    error, came = await fails(sends(*BEGUN, json.dumps(said).encode(), *HELLO))

    assert type(error) is kind
    assert "out of memory" in str(error)
    assert (error.said, error.status) == (said, code)
    assert came == 3


@pytest.mark.parametrize("code", [408, 429, 500, 503])
async def test_a_failure_is_told_at_once_with_what_the_server_said(code: int) -> None:
    error, came = await fails(status(code, "busy", headers={"Retry-After": "7"}), patience=Patience())

    assert f"answered {code}: 'busy', which asks to wait 7 s; try again later" in str(error)
    assert (error.status, error.said, error.retry_after_s) == (code, {"error": {"message": "busy"}}, 7.0)
    assert came == 0


@pytest.mark.parametrize(
    ("code", "kind"), [(400, RequestRefused), (422, RequestRefused), (401, ModelError), (404, ModelNotFound)]
)
async def test_a_refusal_is_told_as_when_nothing_is_streamed(code: int, kind: type[ModelError]) -> None:
    error, _ = await fails(status(code, "no"))
    async with served(ChatServer(status(code, "no"))) as model:
        with pytest.raises(kind) as caught:
            await model.complete(BODY)

    assert type(error) is type(caught.value) is kind
    assert (
        (error.status, error.said) == (caught.value.status, caught.value.said) == (code, {"error": {"message": "no"}})
    )


async def test_all_attempts_in_vain_end_with_what_the_server_said() -> None:
    quick = Patience(attempts=2, base_s=0.001, cap_s=0.001)
    behaviour = status(503, "busy", headers={"retry-after-ms": "1"})
    async with served(ChatServer(behaviour, behaviour), patience=quick) as model:
        with pytest.raises(ModelError) as caught:
            await model.complete(BODY)

    error = caught.value
    assert (error.status, error.said, error.retry_after_s) == (503, {"error": {"message": "busy"}}, 0.001)


async def plain(_: web.Request) -> web.Response:
    return web.json_response(chat("whole"))


async def test_a_server_that_does_not_stream_is_told_as_such() -> None:
    error, _ = await fails(plain)

    assert "answered without streaming" in str(error)
    assert error.said == chat("whole")


async def test_a_page_of_something_else_is_no_stream() -> None:
    error, _ = await fails(answers("<html>nothing here</html>"))

    assert "broke off" in str(error)


async def test_an_unreachable_server_is_named() -> None:
    model = OpenAIModel("small", f"http://127.0.0.1:{unused_port()}/v1", patience=ONCE)
    with pytest.raises(ModelError, match="cannot be reached"):
        await payloads(model)
    await model.close()


@pytest.mark.parametrize(
    ("behaviour", "words"), [(hang, "did not answer within"), (sends(*BEGUN, then=hang), "in time")]
)
async def test_a_server_that_hangs_is_left_after_the_timeout(behaviour: Behaviour, words: str) -> None:
    error, _ = await fails(behaviour, patience=Patience(attempts=1, timeout_s=0.2))

    assert words in str(error)


async def test_closing_a_stream_closes_its_connection() -> None:
    gone = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(b"data: " + BEGUN[1] + b"\n\n")
                await asyncio.sleep(0.001)
        finally:
            gone.set()

    async with served(ChatServer(endless)) as model:
        async with aclosing(model.stream(BODY)) as stream:
            await anext(stream)
        await asyncio.wait_for(gone.wait(), 5)


async def test_streams_share_the_limit_of_calls_at_once() -> None:
    server = ChatServer()
    async with served(server, concurrency=2) as model:
        await asyncio.gather(*(payloads(model) for _ in range(8)))

    assert server.most_running == 2


async def test_one_attempt_leaves_waiting_to_the_caller() -> None:
    """Else every refusal would halve the calls at once, and those that wait would pile up here."""
    all_at_once = asyncio.Barrier(8)

    async def meet(request: web.Request) -> web.StreamResponse:
        await all_at_once.wait()
        return await sends(*HELLO)(request)

    async with served(ChatServer(*[status(429)] * 3, *[meet] * 8), concurrency=8) as model:
        for _ in range(3):
            with pytest.raises(ModelError):
                await model.complete(BODY)

        assert await asyncio.gather(*(payloads(model) for _ in range(8))) == [list(ENDED)] * 8


class Hasty:
    """A server that lets go of each connection after one answer, without saying so beforehand."""

    def __init__(self) -> None:
        self.answered = 0
        self.connections: list[asyncio.Task[Any]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self.connections.append(connection)
        try:
            await self._serve(reader, writer)
        finally:
            writer.close()
            await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._read(reader)
        body = json.dumps(chat("hello")).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        self.answered += 1
        with suppress(asyncio.IncompleteReadError):  # after the last one
            await self._read(reader)  # the next request is here; nobody will answer it

    async def _read(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.partition(b":")[2]))


async def test_a_connection_that_was_let_go_while_idle_is_no_attempt() -> None:
    hasty = Hasty()
    server = await asyncio.start_server(hasty, "127.0.0.1", 0)
    async with server:
        model = OpenAIModel("m", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", patience=ONCE)
        for _ in range(3):
            await model.complete(BODY)
        await model.close()
        await asyncio.gather(*hasty.connections)

    assert hasty.answered == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}.__iter__()])
async def test_a_request_that_is_no_json_is_refused_before_it_is_sent(value: Any) -> None:
    server = ChatServer()
    async with served(server) as model:
        with pytest.raises(RequestRefused, match="the request is no JSON"):
            await model.complete({**BODY, "temperature": value, "stop": None})

    assert server.bodies == []


async def test_half_a_character_is_sent_as_it_is() -> None:
    server = ChatServer()
    body = {"messages": [{"role": "user", "content": "\ud800é"}], "stop": None, "seed": 2**70}
    async with served(server) as model:
        await model.complete(body)

    assert server.bodies == [{**body, "model": "small"}]


async def test_a_script_is_streamed_with_tool_calls_and_usage() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"text": "' + "a" * 100 + '"}'}}
    model = ScriptedModel([{"role": "assistant", "content": None, "tool_calls": [call, call]}])
    came = [
        json.loads(payload) for payload in await payloads(model, {**BODY, "stream_options": {"include_usage": True}})
    ]
    pieces = [c["choices"][0]["delta"].get("tool_calls", [{}])[0] for c in came if c["choices"]]
    arguments = ["".join(p["function"]["arguments"] for p in pieces if p.get("index") == index) for index in (0, 1)]

    assert arguments == [call["function"]["arguments"]] * 2
    assert came[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert came[-1]["usage"]["completion_tokens"] > 0
    assert all(chunk["usage"] is None for chunk in came[:-1])


async def test_a_script_fails_in_a_stream_where_it_was_told_to() -> None:
    with pytest.raises(ModelError, match="call 0 was told to fail"):
        await payloads(ScriptedModel(["a"], failing={0}))
