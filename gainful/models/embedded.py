"""llama.cpp inside this process, batching concurrent calls; no server to start, nothing to configure."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from pathlib import Path
from typing import Any

import aiohttp

from gainful.core import JsonObject, ModelError, Reply
from gainful.models.constraint import constrained
from gainful.models.gguf import check_gguf, gguf_digest

TOKENS_PER_SLOT = 2048


class EmbeddedModel:
    """A GGUF file run by llama.cpp in this process."""

    def __init__(self, path: Path | str, *, slots: int = 8, threads: int | None = None) -> None:
        self._path = Path(path)
        check_gguf(self._path)
        self.name = self._path.stem
        self.concurrency = slots
        self._threads = threads or min(len(os.sched_getaffinity(0)), 4)
        self._key = secrets.token_hex(16)
        self._server: Any = None
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()

    @property
    def identity(self) -> JsonObject:
        """Engine, version and the digest of the file."""
        from importlib.metadata import version

        return {"engine": "xllamacpp", "version": version("xllamacpp"), "gguf_sha256": gguf_digest(self._path)}

    async def complete(self, body: JsonObject, *, sample: int = 0) -> Reply:
        """Answer one request."""
        async with self._opening:
            if self._server is None:
                self._server = await asyncio.to_thread(self._open)
            if self._session is None:
                self._session = aiohttp.ClientSession(
                    self._server.listening_address,
                    headers={"Authorization": f"Bearer {self._key}"},
                    timeout=aiohttp.ClientTimeout(total=None),
                    connector=aiohttp.TCPConnector(limit=self.concurrency),
                )
        started = time.perf_counter()
        async with self._session.post("/v1/chat/completions", json=constrained(body)) as response:
            answer = await response.json()
        if "choices" not in answer:
            raise ModelError(f"{self.name} refused the request: {answer.get('error', {}).get('message')!r}")
        return Reply(body=answer, elapsed_ms=(time.perf_counter() - started) * 1000)

    async def close(self) -> None:
        """Free the model; a later call loads it again."""
        if self._session is not None:
            await self._session.close()
        server, self._server, self._session = self._server, None, None
        await asyncio.to_thread(lambda: None)
        del server

    def _open(self) -> Any:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ.setdefault("GOMP_SPINCOUNT", "0")
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(self._path)
        params.n_parallel = self.concurrency
        params.n_ctx = self.concurrency * TOKENS_PER_SLOT
        for cpu in (params.cpuparams, params.cpuparams_batch):
            cpu.n_threads = self._threads
            cpu.poll = 0
        params.cache_ram_mib = 0
        params.verbosity = -1
        params.api_keys = [self._key]
        return xllamacpp.Server(params)
