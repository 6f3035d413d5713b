"""The real model with adapters: random weights that llama.cpp really adds."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from adapters import kept, random_gguf
from test_models_embedded import FRUIT, schema, streamed, text_of

from gainful.core import Adapter, AdapterNotFound, JsonObject, ModelError, RequestRefused
from gainful.models import SMOLLM2, EmbeddedModel, wheel_file
from gainful.models.gguf import gguf_digest

BASE = gguf_digest(wheel_file(**SMOLLM2))
pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

BODY: JsonObject = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "max_tokens": 6,
    "temperature": 0,
}


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(autouse=True)
def _in_force(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAINFUL_ADAPTERS", str(folder / "kept"))


@pytest.fixture(scope="module")
def adapters(folder: Path) -> list[Adapter]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAINFUL_ADAPTERS", str(folder / "kept"))
        made = [random_gguf(folder / f"{seed}.gguf", seed) for seed in range(3)]
        return [kept(folder / f"made-{k}", BASE, b"%d" % k, gguf) for k, gguf in enumerate(made)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model() -> AsyncIterator[EmbeddedModel]:
    embedded = EmbeddedModel(wheel_file(**SMOLLM2))
    yield embedded
    await embedded.close()


def under(adapter: Adapter | None, body: JsonObject = BODY) -> JsonObject:
    return body if adapter is None else {**body, "adapter": msgspec.to_builtins(adapter)}


async def text(model: EmbeddedModel, adapter: Adapter | None) -> str:
    return str((await model.complete(under(adapter))).message["content"])


def processes(of: int | None = None) -> list[int]:
    """Return the engines that this process, or another, has started, by their ids."""
    children = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(of or os.getpid())], capture_output=True, text=True, check=False
    )
    return [int(line.split()[0]) for line in children.stdout.splitlines() if "llama.py" in line]


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_each_adapter_answers_in_its_own_words_alone_and_beside_others(
    model: EmbeddedModel, adapters: list[Adapter]
) -> None:
    arms = [None, *adapters[:2]]
    alone = [await text(model, arm) for arm in arms]
    together = await asyncio.gather(*(text(model, arm) for arm in arms * 2))

    assert len(set(alone)) == 3
    assert together == alone * 2


async def test_a_stream_says_what_a_whole_reply_says(model: EmbeddedModel, adapters: list[Adapter]) -> None:
    assert text_of(await streamed(model, under(adapters[0]))) == await text(model, adapters[0])


async def test_a_schema_is_kept_under_an_adapter(model: EmbeddedModel, adapters: list[Adapter]) -> None:
    reply = await model.complete({**under(adapters[0]), **schema(FRUIT), "max_tokens": 40})

    assert set(msgspec.json.decode(reply.message["content"])) == {"fruit", "ripe"}


async def test_more_adapters_than_fit_are_all_answered(model: EmbeddedModel, adapters: list[Adapter]) -> None:
    arms = [None, *adapters]
    alone = [await text(model, arm) for arm in arms]
    together = await asyncio.gather(*(text(model, arm) for arm in arms))

    assert together == alone
    assert len(processes()) <= 3


async def test_beside_an_adapter_the_model_alone_loads_in_a_process_too(adapters: list[Adapter]) -> None:
    """To load here would keep Python's lock while the adapter answers."""
    model, before = EmbeddedModel(wheel_file(**SMOLLM2)), len(processes())
    words = [await text(model, arm) for arm in (adapters[0], None)]
    started = len(processes()) - before
    await model.close()

    assert words[0] != words[1]
    assert started == 2
    assert len(processes()) == before


async def test_an_engine_that_died_is_loaded_again(model: EmbeddedModel, adapters: list[Adapter]) -> None:
    before = await text(model, adapters[0])
    endless = under(adapters[0], {**BODY, "max_tokens": 1900, "ignore_eos": True})
    call = asyncio.create_task(model.complete(endless))
    await asyncio.sleep(0.3)
    for pid in processes():
        os.kill(pid, signal.SIGKILL)

    with pytest.raises(ModelError, match="the embedded engine broke off"):
        await call
    assert await text(model, adapters[0]) == before


async def test_closed_streams_of_an_adapter_stop_being_computed(model: EmbeddedModel, adapters: list[Adapter]) -> None:
    endless = under(adapters[0], {**BODY, "max_tokens": 1900, "ignore_eos": True})
    async with aclosing(model.stream(endless)) as stream:
        await anext(stream)

    await asyncio.wait_for(text(model, adapters[0]), 30)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"base": "ef" * 32},
            "adapter .{8}, rank 2 was trained on the model 'efefefefefefefef', and SmolLM2.* is 'b179c952",
        ),
        ({"gguf": ""}, r"has no adapter.gguf, which SmolLM2.* needs"),
        ({"sha256": "ab" * 32}, "adapter abababab, rank 2: .* cannot be read"),
        ({"gguf": "cd" * 32}, "adapter.gguf has sha256 .* where cdcdcdcdcdcdcdcd was expected"),
    ],
)
async def test_an_adapter_that_cannot_be_added_is_told_and_the_model_goes_on(
    model: EmbeddedModel, adapters: list[Adapter], change: JsonObject, sentence: str
) -> None:
    for _ in range(2):
        with pytest.raises(AdapterNotFound, match=sentence):
            await text(model, msgspec.structs.replace(adapters[0], **change))

    assert await text(model, None)


async def test_weights_for_another_model_are_told_and_do_not_end_the_process(
    model: EmbeddedModel, folder: Path
) -> None:
    wider = kept(folder / "wider", BASE, b"w", random_gguf(folder / "wider.gguf", 0, width=768))
    cut = kept(folder / "cut", BASE, b"c", random_gguf(folder / "cut.gguf", 0)[:70_000])

    for broken in (wider, cut):
        with pytest.raises(AdapterNotFound, match=r"cannot be loaded into SmolLM2.*; train it again"):
            await text(model, broken)
    assert await text(model, None)


async def test_a_request_that_sets_a_scale_of_its_own_is_refused(model: EmbeddedModel, adapters: list[Adapter]) -> None:
    for adapter in (None, adapters[0]):
        with pytest.raises(RequestRefused, match="lora cannot be chosen by a request"):
            await model.complete({**under(adapter), "lora": [{"id": 0, "scale": 0.0}]})


async def test_an_engine_ends_with_the_process_that_started_it(adapters: list[Adapter]) -> None:
    code = f"""
import asyncio, os, signal
from gainful.models import EmbeddedModel
model = EmbeddedModel({str(wheel_file(**SMOLLM2))!r})
async def main():
    await model.complete({under(adapters[0])!r})
    print("answered", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert await parent.stdout.readline() == b"answered\n"
    (engine,) = processes(parent.pid)

    parent.kill()
    await parent.wait()

    async with asyncio.timeout(10):
        while is_alive(engine):
            await asyncio.sleep(0.05)
