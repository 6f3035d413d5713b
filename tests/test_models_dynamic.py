"""Adapters on a server that answers as vLLM's documentation says (its page on LoRA, and the errors of its server)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from adapters import kept
from aiohttp import web
from aiohttp.test_utils import TestServer
from model_servers import HELLO as PIECES
from model_servers import chat, hang_up, status, streamed

from gainful.core import Adapter, AdapterNotFound, JsonObject, ModelError
from gainful.models import OpenAIModel
from gainful.models.dynamic import adapter_name
from gainful.models.patience import Patience

BODY: JsonObject = {"messages": [{"role": "user", "content": "hi"}]}
QUICK = Patience(attempts=3, base_s=0.001, cap_s=0.002, timeout_s=5.0)


class VLLM:
    """Serves ``base`` and the adapters that it was told to load; ``troubles`` come first, one a request to load."""

    def __init__(self, *troubles: Any, with_route: bool = True) -> None:
        self.known = {"base"}
        self.loads: list[JsonObject] = []
        self.bodies: list[JsonObject] = []
        self.troubles = list(troubles)
        self.app = web.Application()
        self.app.router.add_post("/v1/chat/completions", self._complete)
        if with_route:
            self.app.router.add_post("/v1/load_lora_adapter", self._load)

    async def _load(self, request: web.Request) -> web.StreamResponse:
        wanted = await request.json()
        self.loads.append(wanted)
        await asyncio.sleep(0.01)
        if self.troubles:
            response: web.StreamResponse = await self.troubles.pop(0)(request)
            return response
        name = wanted["lora_name"]
        if name in self.known:
            said = f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, ..."
            return await status(400, said, type="InvalidUserInput")(request)
        self.known.add(name)
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        if body["model"] not in self.known:
            return await status(404, f"The model `{body['model']}` does not exist.", type="NotFoundError")(request)
        return await streamed(*PIECES)(request) if body.get("stream") else web.json_response(chat(body["model"]))


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAINFUL_ADAPTERS", str(tmp_path / "adapters"))


@pytest.fixture
def adapter(tmp_path: Path) -> Adapter:
    return kept(tmp_path / "made", "base")


@asynccontextmanager
async def served(vllm: VLLM) -> AsyncIterator[OpenAIModel]:
    async with TestServer(vllm.app) as server:
        model = OpenAIModel("base", str(server.make_url("/v1")), patience=QUICK)
        try:
            yield model
        finally:
            await model.close()


def under(adapter: Adapter) -> JsonObject:
    return {**BODY, "adapter": msgspec.to_builtins(adapter)}


async def said(model: OpenAIModel, body: JsonObject) -> str:
    return str((await model.complete(body)).message["content"])


async def test_an_adapter_is_loaded_once_and_asked_by_its_name(adapter: Adapter, tmp_path: Path) -> None:
    vllm, name = VLLM(), adapter_name(adapter)
    async with served(vllm) as model:
        answers = await asyncio.gather(*(said(model, body) for body in [under(adapter), BODY] * 4))

    assert answers == [name, "base"] * 4
    assert vllm.loads == [{"lora_name": name, "lora_path": str(tmp_path / "adapters" / adapter.sha256)}]
    assert all(body == {**BODY, "model": body["model"]} for body in vllm.bodies)


async def test_an_adapter_that_is_loaded_already_is_asked_as_it_is(adapter: Adapter) -> None:
    vllm = VLLM()
    vllm.known.add(adapter_name(adapter))
    async with served(vllm) as model:
        assert await said(model, under(adapter)) == adapter_name(adapter)


async def test_a_server_that_was_started_anew_gets_the_adapter_again(adapter: Adapter) -> None:
    vllm = VLLM()
    async with served(vllm) as model:
        await said(model, under(adapter))
        vllm.known = {"base"}
        answers = await asyncio.gather(*(said(model, under(adapter)) for _ in range(8)))

    assert answers == [adapter_name(adapter)] * 8


async def test_a_stream_comes_from_the_adapter_too(adapter: Adapter) -> None:
    vllm = VLLM()
    async with served(vllm) as model, aclosing(model.stream(under(adapter))) as payloads:
        pieces = [payload async for payload in payloads]

    assert pieces == list(PIECES[:-1])
    assert vllm.bodies == [{**BODY, "model": adapter_name(adapter), "stream": True}]


@pytest.mark.parametrize("trouble", [status(503), status(429), hang_up])
async def test_loading_is_tried_again_where_time_can_cure(adapter: Adapter, trouble: Any) -> None:
    vllm = VLLM(trouble, trouble)
    async with served(vllm) as model:
        assert await said(model, under(adapter)) == adapter_name(adapter)

    assert len(vllm.loads) == 3


async def test_a_server_without_the_route_is_told_how_to_be_started(adapter: Adapter) -> None:
    async with served(VLLM(with_route=False)) as model:
        with pytest.raises(AdapterNotFound, match="--max-lora-rank 2 and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"):
            await model.complete(under(adapter))
        assert await said(model, BODY) == "base"


@pytest.mark.parametrize(
    "trouble",
    [
        status(500, "LoRA rank 64 is greater than max_lora_rank 16.", type="InternalServerError"),
        status(404, "Loading lora failed: No adapter found for /adapters/ab", type="NotFoundError"),
        status(400, "no", type="BadRequestError"),
    ],
)
async def test_a_server_that_will_not_load_it_is_quoted_and_not_asked_again(adapter: Adapter, trouble: Any) -> None:
    vllm = VLLM(trouble)
    async with served(vllm) as model:
        with pytest.raises(AdapterNotFound, match=r"did not load adapter .* under the same path"):
            await model.complete(under(adapter))

    assert len(vllm.loads) == 1


async def test_a_wrong_key_is_told_as_such(adapter: Adapter) -> None:
    async with served(VLLM(status(401, "no"))) as model:
        with pytest.raises(ModelError, match="refused the key"):
            await model.complete(under(adapter))


async def test_another_base_and_missing_files_never_reach_the_server(adapter: Adapter) -> None:
    vllm = VLLM()
    async with served(vllm) as model:
        with pytest.raises(AdapterNotFound, match=r"was trained on the model 'other', and http.* is asked for 'base'"):
            await model.complete(under(msgspec.structs.replace(adapter, base="other")))
        with pytest.raises(AdapterNotFound, match="cannot be read"):
            await model.complete(under(msgspec.structs.replace(adapter, sha256="ab" * 32)))

    assert vllm.loads == vllm.bodies == []


async def test_a_server_that_loads_and_then_knows_nothing_of_it_is_not_asked_for_ever(adapter: Adapter) -> None:
    vllm = VLLM(*[lambda _: said_nothing()] * 9)
    async with served(vllm) as model:
        with pytest.raises(AdapterNotFound, match=r"has loaded adapter .* and does not answer with it"):
            await model.complete(under(adapter))

    assert len(vllm.loads) == len(vllm.bodies) == 2


async def said_nothing() -> web.Response:
    return web.Response(text="Success")
