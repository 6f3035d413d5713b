"""The measure of fidelity itself: what arrives unchanged passes, every kind of change is found."""

from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import ClientSession, web
from fidelity import RecordingUpstream, assembled, chunks, differences, findings, parsed
from fidelity_corpus import SHAPES, Shape

BY_NAME = {shape.name: shape for shape in SHAPES}


@pytest.mark.parametrize("streamed", [False, True])
async def test_every_shape_is_faithful_without_a_proxy(streamed: bool) -> None:
    async with RecordingUpstream() as upstream:
        found = await findings(upstream, upstream.base_url, "mock", SHAPES, streamed=streamed)

    assert [finding for finding in found if not finding.is_faithful] == []


def test_the_corpus_has_sixty_shapes_of_different_names_and_requests() -> None:
    assert len(BY_NAME) == len(SHAPES) >= 60


def flattened(body: dict[str, Any]) -> None:
    for message in body["messages"]:
        if isinstance(message["content"], list):
            message["content"] = " ".join(part.get("text", "") for part in message["content"])


def without_seed(body: dict[str, Any]) -> None:
    body.pop("seed", None)


def with_null(body: dict[str, Any]) -> None:
    body["logprobs"] = None


@pytest.mark.parametrize(
    ("change", "shape", "where", "is_harmless"),
    [
        (flattened, "image in the request", "request.messages[0].content", False),
        (without_seed, "large seed", "request.seed", False),
        (with_null, "one turn", "request.logprobs", True),
        (lambda body: None, "more digits than a double has", "request.vendor[0]", False),
        (lambda body: None, "numbers of every form", "request.temperature", True),
        (lambda body: body.update(seed=42.0), "temperature zero", "request.seed", True),
    ],
)
async def test_a_proxy_that_changes_requests_is_found_out(
    change: Callable[[dict[str, Any]], None], shape: str, where: str, is_harmless: bool
) -> None:
    async with RecordingUpstream() as upstream:
        found = await through(upstream, change, lambda reply: None, BY_NAME[shape])

    assert found.request[0].where == where
    assert found.is_lossless is is_harmless


async def test_a_proxy_that_changes_replies_is_found_out() -> None:
    def cheaper(reply: dict[str, Any]) -> None:
        reply["usage"]["prompt_tokens"] = 1

    async with RecordingUpstream() as upstream:
        found = await through(upstream, lambda body: None, cheaper, BY_NAME["one turn"])

    assert [difference.where for difference in found.reply] == ["reply.usage.prompt_tokens"]


async def test_a_refused_shape_is_unfaithful() -> None:
    async with RecordingUpstream() as upstream:
        found = await findings(upstream, upstream.base_url + "/nowhere", "mock", SHAPES[:1], streamed=True)

    assert found[0].request[0].arrived == "0 times"
    assert "404" in found[0].reply[0].arrived


@pytest.mark.parametrize("shape", ["two calls at once", "log-probabilities", "several choices", "reasoning"])
def test_no_event_of_a_stream_can_be_lost_unnoticed(shape: str) -> None:
    stream = chunks(parsed(BY_NAME[shape].reply))
    whole = assembled(stream)

    for lost in range(len(stream)):
        assert list(differences(whole, assembled(stream[:lost] + stream[lost + 1 :]), "reply"))


async def through(
    upstream: RecordingUpstream,
    change: Callable[[dict[str, Any]], None],
    change_back: Callable[[dict[str, Any]], None],
    shape: Shape,
) -> Any:
    """Send *shape* through a proxy that parses, changes and writes again both ways."""

    async def relay(request: web.Request) -> web.Response:
        body = await request.json()
        change(body)
        async with (
            ClientSession() as session,
            session.post(f"{upstream.base_url}/chat/completions", json=body) as answer,
        ):
            reply = await answer.json()
        change_back(reply)
        return web.json_response(reply)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", relay)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        return (await findings(upstream, base_url, "mock", [shape], streamed=False))[0]
    finally:
        await runner.cleanup()
