"""What a caller is told whose bytes are no HTTP: raw sockets against a worker's own connections."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from serving import Proxy, serving
from test_proxy_chat import echo, talk

from gainful.core import JsonObject
from gainful.models import ScriptedModel

SECRET = "sesame-4711"
CHAT = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET}\r\n"


async def told(proxy: Proxy, sent: str) -> tuple[str, str, JsonObject]:
    """Send bytes as they are; return status line and content type, and the body of the reply; it must be the last."""
    place = urlsplit(proxy.url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    writer.write(sent.encode("latin-1"))
    async with asyncio.timeout(5):
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    lines = head.split("\r\n")
    kind = next(line.partition(": ")[2] for line in lines if line.lower().startswith("content-type:"))
    return lines[0], kind, json.loads(body)


@pytest.mark.parametrize(
    "sent",
    [
        f"{SECRET} is no request line\r\n\r\n",
        f"GET /{SECRET} HTTP/9.9.9\r\n\r\n",
        f"{CHAT}X-Odd: a\rb{SECRET}\r\n\r\n",
        f"{CHAT}{SECRET} without a colon\r\n\r\n",
        f"{CHAT}Content-Length: {SECRET}\r\n\r\n",
        f"{CHAT}X-Long: {SECRET * 2000}\r\n\r\n",
    ],
)
async def test_malformed_http_is_refused_like_all_else(
    tmp_path: Path, sent: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of what was sent comes back, and nothing of it is logged."""
    async with serving(talk(), ScriptedModel(echo), tmp_path / "s") as proxy:
        status, kind, body = await told(proxy, sent)

    assert status.split()[1] == "400"
    assert kind.startswith("application/json")
    assert body["error"]["type"] == "invalid_request_error"
    assert "well-formed" in body["error"]["message"]
    assert SECRET not in json.dumps(body)
    assert not caplog.records


async def test_malformed_http_behind_a_good_request_is_refused_too(tmp_path: Path) -> None:
    good = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    async with serving(talk(), ScriptedModel(echo), tmp_path / "s") as proxy:
        place = urlsplit(proxy.url)
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        writer.write(good.encode())
        assert (await reader.readline()).split()[1] == b"200"
        writer.write(b"nonsense\r\n\r\n")
        async with asyncio.timeout(5):
            rest = await reader.read()
        writer.close()

    assert b'"status":"ok"' in rest
    assert b" 400 " in rest
    assert rest.endswith(b'"param":null,"code":null}}')


async def test_a_packing_that_is_not_installed_is_refused_like_all_else(tmp_path: Path) -> None:
    async with serving(talk(), ScriptedModel(echo), tmp_path / "s") as proxy:
        status, kind, body = await told(proxy, f"{CHAT}Content-Encoding: br\r\nContent-Length: 4\r\n\r\nabcd")

    assert status.split()[1].startswith("4")
    assert kind.startswith("application/json")
    assert body["error"]["type"] == "invalid_request_error"


async def test_an_expectation_that_cannot_be_met_is_not_quoted_back(tmp_path: Path) -> None:
    sent = f"{CHAT}Expect: {SECRET}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    async with serving(talk(), ScriptedModel(echo), tmp_path / "s") as proxy:
        status, kind, body = await told(proxy, sent)

    assert status.split()[1] == "417"
    assert kind.startswith("application/json")
    assert "Expect" in body["error"]["message"]
    assert SECRET not in json.dumps(body)
