"""A champion with an adapter, as callers see it: real sockets, a real store, and a server that loads adapters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from adapters import folder_of, kept
from aiohttp.test_utils import TestServer
from model_servers import status
from serving import Proxy, serving
from test_models_dynamic import VLLM
from test_proxy_chat import USER, talk

from gainful.core import Adapter, Policy, ServeError
from gainful.models import OpenAIModel
from gainful.models.adapters import keep_adapter
from gainful.models.dynamic import adapter_name
from gainful.models.patience import Patience
from gainful.proxy.service import Watch
from gainful.store import open_store
from gainful.tasks.serving import Serving

pytestmark = pytest.mark.slow  # a server, or a run, each

ONCE = Patience(attempts=1)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAINFUL_ADAPTERS", str(tmp_path / "adapters"))


@pytest.fixture
def adapter(tmp_path: Path) -> Adapter:
    return kept(tmp_path / "made", "base")


@asynccontextmanager
async def front(
    tmp_path: Path, vllm: VLLM, adapter: Adapter | None, serve: Serving | None = None
) -> AsyncIterator[Proxy]:
    task = talk(serving=serve, baseline=Policy(adapter=adapter))
    async with TestServer(vllm.app) as server:
        model = OpenAIModel("base", str(server.make_url("/v1")), patience=ONCE)
        try:
            async with serving(task, model, tmp_path / "store.db") as proxy:
                yield proxy
        finally:
            await model.close()


async def answer(proxy: Proxy) -> tuple[str, str]:
    code, body, headers = await proxy.ask({"messages": [USER]})
    assert code == 200
    return body["choices"][0]["message"]["content"], headers["x-gainful-verdict"]


async def test_the_champions_adapter_answers_and_was_loaded_before_the_first_caller(
    tmp_path: Path, adapter: Adapter
) -> None:
    vllm = VLLM()
    async with front(tmp_path, vllm, adapter) as proxy:
        loaded = len(vllm.loads)

        assert loaded == 1
        assert await answer(proxy) == (adapter_name(adapter), "verified")
        assert len(vllm.loads) == 1


@pytest.mark.parametrize("mode", ["pass", "hold", "segment"])
async def test_a_stream_comes_from_the_adapter_in_every_mode(tmp_path: Path, adapter: Adapter, mode: Any) -> None:
    vllm = VLLM()
    async with front(tmp_path, vllm, adapter, Serving(stream=mode)) as proxy:
        said = await proxy.streamed({"messages": [USER]})

    assert said.rstrip().endswith("[DONE]")
    assert {body["model"] for body in vllm.bodies} == {adapter_name(adapter)}
    assert not any("adapter" in body for body in vllm.bodies)


async def test_a_server_does_not_start_with_a_champion_whose_adapter_is_missing(tmp_path: Path) -> None:
    with pytest.raises(
        ServeError, match=r"^task 'talk': the champion cannot be served: adapter abababab, rank 2: .*"
    ) as at:
        async with front(tmp_path, VLLM(), Adapter("ab" * 32, "base", rank=2, alpha=4.0)):
            pass

    assert "copy the folder" in str(at.value)
    assert "(gainful rollback)" in str(at.value)
    assert len(str(at.value).splitlines()) == 1


@pytest.mark.parametrize("mode", ["whole", "streamed"])
async def test_an_adapter_that_is_lost_while_serving_leaves_the_models_plain_answer(
    tmp_path: Path, adapter: Adapter, mode: str
) -> None:
    vllm = VLLM()
    async with front(tmp_path, vllm, adapter) as proxy:
        vllm.known = {"base"}
        vllm.troubles = [status(500, "LoRA is not enabled")] * 20
        for _ in range(8):  # more than the failures that would open the breaker
            if mode == "streamed":
                assert "x-gainful-verdict failed-open" in await proxy.streamed({"messages": [USER]})
            else:
                assert await answer(proxy) == ("base", "failed-open")
        stored = proxy.stored()

    assert {(row.verdict, row.verdicts) for row in stored} == {("failed-open", ())}


async def test_a_new_champion_waits_until_its_adapter_is_here(
    tmp_path: Path, adapter: Adapter, caplog: pytest.LogCaptureFixture
) -> None:
    made = folder_of(tmp_path / "later", b"later")
    place = keep_adapter(made)
    late = msgspec.structs.replace(adapter, sha256=place.name)
    place.rename(tmp_path / "away")
    vllm = VLLM()
    async with front(tmp_path, vllm, adapter) as proxy:
        watch = Watch(list(proxy.desk.services.values()), proxy.desk.opened)
        with open_store(proxy.place) as store:
            store.set_champion("talk", Policy(adapter=late), "by hand")
        await watch.look()
        await watch.look()
        before = await answer(proxy)
        (tmp_path / "away").rename(place)
        await watch.look()
        loaded = vllm.loads[-1]["lora_name"]
        after = await answer(proxy)
        await watch.close()

    assert before == (adapter_name(adapter), "verified")
    assert [loaded, after] == [adapter_name(late), (adapter_name(late), "verified")]
    lines = [record for record in caplog.records if record.msg == "a policy lacks its adapter"]
    assert all("cannot be read" in record.__dict__["reason"] for record in lines)
    assert 1 <= len(lines) <= 2  # once by our watch, and by the server's own where it looked meanwhile


@pytest.mark.parametrize("name", ["adapter", "lora"])
async def test_a_caller_does_not_choose_weights(tmp_path: Path, adapter: Adapter, name: str) -> None:
    async with front(tmp_path, VLLM(), None) as proxy:
        code, said, _ = await proxy.ask({"messages": [USER], name: msgspec.to_builtins(adapter)})

    assert (code, said["error"]["param"]) == (400, name)
