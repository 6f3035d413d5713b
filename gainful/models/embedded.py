"""llama.cpp inside this process: a GGUF file answers, with nothing to start and nothing to configure.

Guarantees: concurrent calls are decoded together; a prompt's beginning that calls share is computed once
(``slots``); an answer asked for by JSON schema follows it, in compact form (``constraint``), or is refused; a
call that is cancelled stops being computed; no text of a request is read as a mark of the model's chat template
(``specials``); a thread that waits spins for a microsecond and then sleeps, so that another busy process takes its
share of the speed and no more.

The engine also listens on a loopback port, and that is how it is asked: closing a connection is the one way to
cancel a call, and a Python thread inside the engine's blocking call outlives the interpreter and crashes it.
A key that only this process knows keeps others on the machine out.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

import aiohttp

from gainful.core import Adapter, AdapterNotFound, JsonObject, ModelError, ModelNotFound, Reply, RequestRefused
from gainful.models.adapters import GGUF, find_adapter, taken_out
from gainful.models.constraint import constrained, grammar_holds, is_doubtful, probe
from gainful.models.engine import Engine, Line, Loaded, load, load_apart
from gainful.models.gguf import check_gguf, gguf_digest
from gainful.models.llama import Settings
from gainful.models.session import JSON, Response, read
from gainful.models.shelf import Shelf
from gainful.models.specials import Specials
from gainful.models.stream import payloads

CHAT = "/v1/chat/completions"
MOST_THREADS = 8  # memory, not arithmetic, bounds decoding beyond this
REMEMBERED = 256  # grammars that were put to the proof
ONCE = {**JSON, "Connection": "close"}  # the engine hangs up after a stream without saying so beforehand


class EmbeddedModel:
    """The GGUF file at *path*, answering up to ``slots`` calls together.

    ``context_tokens`` bounds prompt and answer of one call; memory grows with its product with ``slots`` (23
    kB a token for SmolLM2-135M).  ``threads`` defaults to the cores this process may use, at most 8.  The
    model is loaded at the first call, in about a second; ``close`` frees it, and a later call loads it again.
    A request with an adapter is answered by an engine of its own, loaded at its first call while others answer.
    Raises ``ModelNotFound`` for a file that is missing or no GGUF.
    """

    def __init__(
        self, path: Path | str, *, slots: int = 8, context_tokens: int = 2048, threads: int | None = None
    ) -> None:
        self._path = Path(path)
        check_gguf(self._path)
        self.name = self._path.stem
        self.concurrency = slots
        self._context_tokens = context_tokens
        self._threads = threads or min(_cores(), MOST_THREADS)
        self._key = secrets.token_hex(16)
        self._shelf = Shelf(self._engine)
        self._specials: Specials | None = None
        self._held: OrderedDict[str, bool] = OrderedDict()  # grammar → whether the engine holds to it, oldest first

    @property
    def file(self) -> Path:
        """The GGUF file."""
        return self._path

    @property
    def identity(self) -> JsonObject:
        """Engine, its version, and the SHA-256 of the file."""
        return {"engine": "xllamacpp", "version": version("xllamacpp"), "gguf_sha256": gguf_digest(self._path)}

    async def complete(self, body: JsonObject, *, sample: int = 0) -> Reply:
        """Answer one request.

        Raises ``RequestRefused`` for a request too long for ``context_tokens``, malformed, or with a schema
        that cannot be kept; ``ModelNotFound`` for a file that cannot be loaded; ``ModelError`` otherwise.
        """
        adapter, asked = self._asked(body)
        form = constrained(asked)
        try:
            async with self._line(adapter) as line:
                wanted = line.specials.part(form)
                async with line.slots.slot(wanted) as slot:
                    started = time.perf_counter()  # waiting for a slot is nobody's work
                    response = await line.session.post(CHAT, {**wanted, "id_slot": slot})
                    elapsed_ms = (time.perf_counter() - started) * 1000
                reply = Reply(body=self._read(response), elapsed_ms=elapsed_ms)
                if form is not asked and is_doubtful(asked, reply.body):
                    await self._prove(line, wanted["grammar"])
        except (aiohttp.ClientError, OSError) as error:
            raise self._broke_off(error) from error
        return reply

    async def stream(self, body: JsonObject) -> AsyncGenerator[bytes, None]:
        """Yield the payloads of the reply's events; see ``core.StreamingModel``.

        Raises what ``complete`` raises.  That the engine holds to a schema is proved before the first piece, once.
        """
        adapter, asked = self._asked(body)
        form = constrained(asked)
        async with self._line(adapter) as line:
            wanted = line.specials.part(form)
            if form is not asked:
                try:
                    await self._prove(line, wanted["grammar"])
                except (aiohttp.ClientError, OSError) as error:
                    raise self._broke_off(error) from error
            async with (
                line.slots.slot(wanted) as slot,
                await self._begin(line, {**wanted, "id_slot": slot, "stream": True}) as response,
                aclosing(payloads(response, self.name)) as events,
            ):
                async for payload in events:
                    yield payload

    async def close(self) -> None:
        """Free the model; calls that are under way are cancelled."""
        await self._shelf.close()

    @asynccontextmanager
    async def _line(self, adapter: Adapter | None) -> AsyncIterator[Line]:
        async with self._shelf.engine(adapter) as engine, engine.asked() as line:
            yield line

    def _asked(self, body: JsonObject) -> tuple[Adapter | None, JsonObject]:
        """Return the adapter of *body*, and what the engine is asked; raises ``RequestRefused``."""
        adapter, asked = taken_out(body)
        if asked.get("lora") is not None:
            raise RequestRefused("lora cannot be chosen by a request: a policy's adapter is added whole; leave it out")
        return adapter, asked

    def _read(self, response: Response) -> JsonObject:
        body = response.body
        if response.status == 200 and isinstance(body, dict) and body.get("choices"):
            return body
        raise self._failure(response)

    def _failure(self, response: Response) -> ModelError:
        status, said, words = response.status, response.said, response.words
        if status < 500:
            return RequestRefused(f"{self.name} refused the request: {words!r}", status=status, said=said)
        return ModelError(f"{self.name}: the embedded engine failed ({status}: {words!r})", status=status, said=said)

    async def _begin(self, line: Line, body: JsonObject) -> aiohttp.ClientResponse:
        """Return the reply where it is a stream, else raise what is wrong with it."""
        try:
            response = await line.session.send(CHAT, body, ONCE)
            if response.status == 200:
                return response
            async with response:
                raise self._failure(await read(response))
        except (aiohttp.ClientError, OSError) as error:
            raise self._broke_off(error) from error

    def _broke_off(self, error: aiohttp.ClientError | OSError) -> ModelError:
        return ModelError(f"{self.name}: the embedded engine broke off ({type(error).__name__}: {error})")

    async def _prove(self, line: Line, grammar: str) -> None:
        """Raise ``RequestRefused`` unless the engine holds to *grammar*: one that it cannot read it passes over."""
        if grammar not in self._held:
            self._held[grammar] = grammar_holds(self._read(await line.session.post(CHAT, probe(grammar))))
            while len(self._held) > REMEMBERED:
                self._held.popitem(last=False)
        if not self._held[grammar]:
            raise RequestRefused(f"{self.name} cannot keep to this JSON schema; leave out patterns and rare keywords")

    def _engine(self, adapter: Adapter | None) -> Engine:
        return Engine(partial(self._load, adapter), self.concurrency, self._key)

    def _load(self, adapter: Adapter | None) -> Loaded:
        """Bring the model into memory; with an adapter or beside another engine, into a process of its own."""
        weights = "" if adapter is None else str(self._weights(adapter))
        if self._specials is None:
            self._specials = Specials.of(self._path)
        folder = tempfile.TemporaryDirectory(prefix="gainful-slots-")
        settings = Settings(
            path=str(self._path),
            name=self.name,
            key=self._key,
            folder=folder.name,
            slots=self.concurrency,
            context_tokens=self._context_tokens,
            threads=self._threads,
            adapter=weights,
        )
        try:
            is_first = adapter is None and self._shelf.holds_one  # nobody is answered meanwhile, so nobody waits
            return (load if is_first else load_apart)(settings, folder, self._specials)
        except (ImportError, RuntimeError, OSError) as error:
            folder.cleanup()
            raise self._unloaded(adapter, error) from error

    def _weights(self, adapter: Adapter) -> Path:
        """Return the file that llama.cpp adds; raises ``AdapterNotFound``."""
        ours = gguf_digest(self._path)
        if adapter.base != ours:
            raise AdapterNotFound(
                f"{adapter.label} was trained on the model {adapter.base[:16]!r}, and {self.name} is {ours[:16]!r}; "
                "serve that model, or train an adapter for this one"
            )
        if not adapter.gguf:
            raise AdapterNotFound(
                f"{adapter.label} has no {GGUF}, which {self.name} needs; train it again for llama.cpp"
            )
        return find_adapter(adapter) / GGUF

    def _unloaded(self, adapter: Adapter | None, error: Exception) -> ModelNotFound:
        if isinstance(error, ImportError):
            return ModelNotFound(f"llama.cpp cannot be loaded ({error}); install xllamacpp and what it asks for")
        if adapter is not None:
            return AdapterNotFound(
                f"{adapter.label} cannot be loaded into {self.name} ({error}): it is damaged, made for another kind of "
                "model, or there is too little memory; train it again, or free some"
            )
        return ModelNotFound(
            f"{self._path} cannot be loaded: it is damaged, of a kind this engine does not know, or too large "
            "for memory; fetch it again or take another"
        )


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
