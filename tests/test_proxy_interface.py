"""The published OpenAPI document against the server that publishes it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
from serving import serving
from test_proxy_chat import echo, talk

from gainful.models import ScriptedModel


async def test_the_document_has_every_route_and_no_other(tmp_path: Path) -> None:
    """The dashboard's are its page's own, and nobody else's."""
    async with serving(talk(), ScriptedModel(echo), tmp_path / "s") as proxy:
        async with proxy.http.get(f"{proxy.url}/openapi.json") as response:
            document = await response.json()
        routes = {(r.method.lower(), r.resource.canonical) for r in proxy.app.router.routes() if r.resource}

    told = {(method, path) for path, methods in document["paths"].items() for method in methods}
    served = {(method, path) for method, path in routes if method != "head" and not path.startswith("/dashboard")}
    assert told == served
    assert document["components"]["schemas"]["ChatRequest"]["properties"]["model"]["enum"] == ["gainful/talk"]


@pytest.mark.slow
async def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    """Examples at the edges of the document and random ones: statuses, shapes and headers are those it tells of."""
    async with serving(talk(), ScriptedModel(echo), tmp_path / "s") as proxy:
        async with proxy.http.get(f"{proxy.url}/openapi.json") as response:
            document = await response.json()
        chat = document["paths"]["/v1/chat/completions"]["post"]
        del chat["parameters"][0]  # a deadline of a millisecond is a 504, and truly so
        (tmp_path / "openapi.json").write_text(json.dumps(document))
        command = ["run", str(tmp_path / "openapi.json"), "--url", proxy.url, "--max-examples", "100", "--seed", "1"]
        tool = Path(sys.executable).with_name("schemathesis")
        process = await asyncio.create_subprocess_exec(
            tool,
            *command,
            "--no-color",
            "--generation-database=none",
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()

    assert process.returncode == 0, said.decode()
