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

import asyncio
import os
import secrets
import tempfile
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from gainful.core import JsonObject, ModelError, ModelNotFound, Reply, RequestRefused
from gainful.models.constraint import constrained, grammar_holds, is_doubtful, probe
from gainful.models.gguf import check_gguf, gguf_digest
from gainful.models.session import JSON, Response, Session, read
from gainful.models.slots import Slots
from gainful.models.specials import Specials
from gainful.models.stream import payloads

CHAT = "/v1/chat/completions"
MOST_THREADS = 8  # memory, not arithmetic, bounds decoding beyond this
CLOSING_S = 0.05  # connections that were closed are gone for the engine too
SPINS = "300"  # none costs 5 % of the speed when alone, ten times as many cost 15 % beside a busy process
REMEMBERED = 256  # grammars that were put to the proof
ONCE = {**JSON, "Connection": "close"}  # the engine hangs up after a stream without saying so beforehand
QUIET = -1  # llama.cpp's verbosity at which nothing reaches the user's terminal


class Loaded:
    """A model in memory, and the folder of its slots' save files."""

    def __init__(self, server: Any, folder: tempfile.TemporaryDirectory[str], specials: Specials) -> None:
        self.address: str = server.listening_address
        self.specials = specials
        self.folder = Path(folder.name)
        self._server = server
        self._folder = folder

    def free(self) -> None:
        """Stop the engine and delete the folder."""
        self._server = None
        self._folder.cleanup()


class Line(NamedTuple):
    """How the loaded engine is asked from one event loop."""

    session: Session
    slots: Slots
    specials: Specials


class EmbeddedModel:
    """The GGUF file at *path*, answering up to ``slots`` calls together.

    ``context_tokens`` bounds prompt and answer of one call; memory grows with its product with ``slots`` (23
    kB a token for SmolLM2-135M).  ``threads`` defaults to the cores this process may use, at most 8.  The
    model is loaded at the first call, in about a second; ``close`` frees it, and a later call loads it again.
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
        self._loaded: Loaded | None = None
        self._opening: asyncio.Task[Line] | None = None
        self._calls: set[asyncio.Task[Any]] = set()
        self._held: OrderedDict[str, bool] = OrderedDict()  # grammar → whether the engine holds to it, oldest first

    @property
    def identity(self) -> JsonObject:
        """Engine, its version, and the SHA-256 of the file."""
        return {"engine": "xllamacpp", "version": version("xllamacpp"), "gguf_sha256": gguf_digest(self._path)}

    async def complete(self, body: JsonObject, *, sample: int = 0) -> Reply:
        """Answer one request.

        Raises ``RequestRefused`` for a request too long for ``context_tokens``, malformed, or with a schema
        that cannot be kept; ``ModelNotFound`` for a file that cannot be loaded; ``ModelError`` otherwise.
        """
        form = constrained(body)
        line = await self._opened()
        wanted = line.specials.part(form)
        try:
            with self._call():
                async with line.slots.slot(wanted) as slot:
                    started = time.perf_counter()  # waiting for a slot is nobody's work
                    response = await line.session.post(CHAT, {**wanted, "id_slot": slot})
                    elapsed_ms = (time.perf_counter() - started) * 1000
                reply = Reply(body=self._read(response), elapsed_ms=elapsed_ms)
                if form is not body and is_doubtful(body, reply.body):
                    await self._prove(line, wanted["grammar"])
        except (aiohttp.ClientError, OSError) as error:
            raise self._broke_off(error) from error
        return reply

    async def stream(self, body: JsonObject) -> AsyncGenerator[bytes, None]:
        """Yield the payloads of the reply's events; see ``core.StreamingModel``.

        Raises what ``complete`` raises.  That the engine holds to a schema is proved before the first piece, once.
        """
        form = constrained(body)
        line = await self._opened()
        wanted = line.specials.part(form)
        if form is not body:
            try:
                await self._prove(line, wanted["grammar"])
            except (aiohttp.ClientError, OSError) as error:
                raise self._broke_off(error) from error
        with self._call():
            async with (
                line.slots.slot(wanted) as slot,
                await self._begin(line, {**wanted, "id_slot": slot, "stream": True}) as response,
                aclosing(payloads(response, self.name)) as events,
            ):
                async for payload in events:
                    yield payload

    async def close(self) -> None:
        """Free the model; calls that are under way are cancelled.

        The engine's end waits for its open connections and keeps Python's lock meanwhile.  So nothing may be asked from
        here on, or both wait for ever.
        """
        opening, self._opening = self._opening, None
        calls = {call for call in self._calls if call is not asyncio.current_task() and not call.done()}
        for call in calls:
            call.cancel()
        if calls:
            await asyncio.wait(calls)
        if opening is not None and opening.get_loop() is asyncio.get_running_loop():
            with suppress(ModelError):
                await (await opening).session.close()
            await asyncio.sleep(CLOSING_S)
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            await asyncio.to_thread(loaded.free)

    @contextmanager
    def _call(self) -> Iterator[None]:
        """Note which task asks, for ``close``."""
        task = asyncio.current_task()
        assert task is not None  # whoever awaits us runs in one
        self._calls.add(task)
        try:
            yield
        finally:
            self._calls.discard(task)

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

    async def _opened(self) -> Line:
        if self._opening is None or self._opening.get_loop() is not asyncio.get_running_loop():
            self._opening = asyncio.create_task(self._open())
        opening = self._opening
        try:
            return await asyncio.shield(opening)
        except ModelError:
            self._opening = None
            raise

    async def _open(self) -> Line:
        if self._loaded is None:
            self._loaded = await asyncio.to_thread(self._load)
        timeout = aiohttp.ClientTimeout(total=None)
        connections = 2 * self.concurrency  # a call that fills a slot, and the one before it still closing
        session = Session(self._loaded.address, self._key, connections=connections, timeout=timeout)
        return Line(session, Slots(self.concurrency, self._loaded.folder, session), self._loaded.specials)

    def _load(self) -> Loaded:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before the import: OpenMP reads both only once
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
        try:
            import xllamacpp
        except ImportError as error:
            raise ModelNotFound(
                f"llama.cpp cannot be loaded ({error}); install xllamacpp and what it asks for"
            ) from error
        specials = Specials.of(self._path)
        folder = tempfile.TemporaryDirectory(prefix="gainful-slots-")
        params = xllamacpp.CommonParams()
        params.model.path = str(self._path)
        params.model_alias = {self.name}  # otherwise every reply would name the path on this machine
        params.n_parallel = self.concurrency
        params.n_ctx = self.concurrency * self._context_tokens
        params.slot_save_path = f"{folder.name}/"
        params.cache_ram_mib = 0  # the cache in memory mixes adapters up and shares nothing that slots do not
        params.fit_params = False
        params.warmup = False
        params.ui = False
        params.verbosity = QUIET
        params.api_keys = [self._key]
        for cpu in (params.cpuparams, params.cpuparams_batch):
            cpu.n_threads = self._threads
            cpu.poll = 0  # the engine's own threads must not spin either
        try:
            return Loaded(xllamacpp.Server(params), folder, specials)
        except RuntimeError as error:
            folder.cleanup()
            raise ModelNotFound(
                f"{self._path} cannot be loaded: it is damaged, of a kind this engine does not know, or too large "
                "for memory; fetch it again or take another"
            ) from error


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
