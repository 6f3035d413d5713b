"""Any server that speaks the OpenAI chat-completions protocol: vLLM, SGLang, Ollama, llama.cpp, a vendor.

Guarantees: the request passes through untouched, the reply comes back untouched; what a busy or failing server
can cure by time is tried again with backoff, what it cannot is told in one sentence.  A streamed reply is tried
once.  Counting calls against a budget and remembering replies are left to others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from gainful.core import Adapter, AdapterNotFound, JsonObject, ModelError, ModelNotFound, Reply, RequestRefused
from gainful.models.adapters import taken_out
from gainful.models.dynamic import DynamicAdapters, adapter_name
from gainful.models.patience import Pace, Patience, may_pass, retry_after_s
from gainful.models.session import Response, Session, read
from gainful.models.stream import payloads

CHAT = "/chat/completions"
UNKNOWN = 404  # the server knows no model of that name
CROWDED = frozenset({429, 503})  # the server says that it has too much to do
PATIENT = Patience()
CONCURRENCY = 32  # calls at once: what a server of one's own takes well, and vendors allow
SHOWN_MODELS = 8  # names of served models in an error sentence: more than that is no help


@dataclass(frozen=True)
class Price:
    """What a server charges, in US dollars per million tokens."""

    prompt_usd: float
    completion_usd: float

    def cost_usd(self, usage: JsonObject) -> float:
        """Return the price of one reply's ``usage``."""
        prompt, completion = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
        return float(prompt * self.prompt_usd + completion * self.completion_usd) / 1e6


@dataclass(frozen=True)
class Trouble:
    """A failed attempt that may go well later, and what the server said, where it said anything."""

    sentence: str
    status: int | None = None
    said: JsonObject | None = None
    asked_s: float | None = None

    def error(self, ending: str) -> ModelError:
        """Return the error to raise when nothing more is tried."""
        asked = "" if self.asked_s is None else f", which asks to wait {self.asked_s:g} s"
        return ModelError(
            f"{self.sentence}{asked}{ending}", status=self.status, said=self.said, retry_after_s=self.asked_s
        )


class Sent(NamedTuple):
    """A reply yet to be read, and when it was asked for, by ``time.perf_counter``."""

    response: aiohttp.ClientResponse
    at_s: float


class OpenAIModel:
    """The model that a server at *base_url* (ending in ``/v1`` as a rule) serves under *name*.

    ``concurrency`` is the most calls at once; fewer run while the server turns calls away, unless *patience* is for one
    attempt: then the caller is turned away too, and waits in our place.  Without *price* the cost of a reply is
    unknown.  A request with an adapter is answered by the name under which the server has loaded it (``dynamic``).  Use
    it in one event loop, and ``close`` it there.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        api_key: str | None = None,
        *,
        concurrency: int = CONCURRENCY,
        patience: Patience = PATIENT,
        price: Price | None = None,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ModelNotFound(f"base URL {base_url!r} is no HTTP address; give one such as http://localhost:8000/v1")
        self.name = name
        self.concurrency = concurrency
        self._where = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
        self._patience = patience
        self._price = price
        self._pace = Pace(concurrency)
        timeout = aiohttp.ClientTimeout(total=patience.timeout_s, connect=patience.connect_s)
        self._session = Session(base_url, api_key, connections=concurrency, timeout=timeout)
        self._adapters = DynamicAdapters(self._session, self._where, name)

    @property
    def identity(self) -> JsonObject:
        """Base URL, without credentials, and served name: what the weights are, only the server knows."""
        return {"engine": "openai", "base_url": self._where, "model": self.name}

    async def complete(self, body: JsonObject, *, sample: int = 0) -> Reply:
        """Answer one request, trying again where time may help.

        Raises ``RequestRefused`` where the server will not answer this request, ``ModelNotFound`` for an
        unknown model or address, ``ModelError`` for a wrong key and when all attempts failed.
        """
        adapter, asked = taken_out(body)
        tried = 0
        while True:
            async with self._pace.turn() as turn:
                outcome = await self._try(asked, adapter)
                if isinstance(outcome, Reply):
                    turn.went_well = True
                    return outcome
                if outcome.status in CROWDED and self._patience.attempts > 1:
                    turn.went_well = False
            tried += 1
            wait_s = self._patience.wait_s(tried, outcome.asked_s)
            if wait_s is None:
                raise outcome.error(f"; gave up after {tried} attempt(s), try again later")
            await asyncio.sleep(wait_s)

    async def stream(self, body: JsonObject) -> AsyncGenerator[bytes, None]:
        """Yield the payloads of the reply's events; see ``core.StreamingModel``.

        One attempt is made.  Raises what ``complete`` raises before the first payload, and ``ModelError`` for a stream
        that breaks off, holds something that is no JSON object, or an error.
        """
        adapter, asked = taken_out(body)
        async with (
            self._pace.turn() as turn,
            await self._begin(asked, adapter) as response,
            aclosing(payloads(response, self._where)) as events,
        ):
            turn.went_well = True
            async for payload in events:
                yield payload

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _try(self, body: JsonObject, adapter: Adapter | None) -> Reply | Trouble:
        try:
            sent = await self._send(body, adapter)
            if isinstance(sent, Trouble):
                return sent
            async with sent.response as unread:
                response = await read(unread)
        except (aiohttp.ClientError, OSError) as error:
            return self._unanswered(error)
        if response.status == 200:
            return self._read(response, (time.perf_counter() - sent.at_s) * 1000)
        return await self._trouble(response)

    async def _begin(self, body: JsonObject, adapter: Adapter | None) -> aiohttp.ClientResponse:
        """Return the reply where it is a stream, else raise what is wrong with it."""
        try:
            sent = await self._send({**body, "stream": True}, adapter)
            if isinstance(sent, Trouble):
                raise sent.error("; try again later")
            response = sent.response
            if response.status == 200 and response.content_type != "application/json":
                return response
            async with response:
                whole = await read(response)
        except (aiohttp.ClientError, OSError) as error:
            raise self._unanswered(error).error("; try again later") from error
        if whole.status != 200:
            raise (await self._trouble(whole)).error("; try again later")
        raise ModelError(f"{self._where} answered without streaming: {whole.text[:200]!r}", said=whole.said)

    async def _send(self, body: JsonObject, adapter: Adapter | None) -> Sent | Trouble:
        """Ask for *body* of the model, or of its adapter: where that is not known, it is loaded, once more at most."""
        if adapter is None:
            return await self._sent({**body, "model": self.name})
        for is_last in (False, True):
            waiting = await self._adapters.load(adapter)
            if waiting is not None:
                return await self._trouble(waiting)
            sent = await self._sent({**body, "model": adapter_name(adapter)})
            if sent.response.status != UNKNOWN or is_last:
                break
            sent.response.release()
            self._adapters.forget(adapter)  # the server was started anew, or has put it out
        if sent.response.status == UNKNOWN:
            async with sent.response as unread:
                response = await read(unread)
            raise AdapterNotFound(
                f"{self._where} has loaded {adapter.label} and does not answer with it ({response.words!r}); look into "
                "the server's log",
                status=response.status,
                said=response.said,
            )
        return sent

    async def _sent(self, body: JsonObject) -> Sent:
        started_s = time.perf_counter()
        return Sent(await self._session.send(CHAT, body), started_s)

    def _unanswered(self, error: aiohttp.ClientError | OSError) -> Trouble:
        if isinstance(error, TimeoutError):
            return Trouble(f"{self._where} did not answer within {self._patience.timeout_s:g} s")
        return Trouble(f"{self._where} cannot be reached ({type(error).__name__}: {error})")

    async def _trouble(self, response: Response) -> Trouble:
        """Return what is wrong where time may cure it, else raise it."""
        if not may_pass(response.status):
            raise await self._refusal(response)
        sentence = f"{self._where} answered {response.status}: {response.words!r}"
        return Trouble(sentence, response.status, response.said, retry_after_s(response.headers))

    def _read(self, response: Response, elapsed_ms: float) -> Reply | Trouble:
        body, said = response.body, response.said
        if not isinstance(body, dict):
            return Trouble(f"{self._where} answered something that is no JSON object: {response.text[:80]!r}")
        choices = body.get("choices")
        if not (isinstance(choices, list) and choices and isinstance(_member(choices[0], "message"), dict)):
            return Trouble(f"{self._where} answered without a choice: {response.text[:200]!r}", said=said)
        usage = body.get("usage")
        cost_usd = self._price.cost_usd(usage) if self._price is not None and isinstance(usage, dict) else None
        return Reply(body=body, elapsed_ms=elapsed_ms, cost_usd=cost_usd)

    async def _refusal(self, response: Response) -> ModelError:
        status, said, words = response.status, response.said, response.words
        if status in (401, 403):
            sentence = f"{self._where} refused the key ({status}: {words!r}); set OPENAI_API_KEY to a valid one"
            return ModelError(sentence, status=status, said=said)
        code = _member(_member(response.body, "error"), "code")
        if status != 404 and code != "model_not_found":
            sentence = f"{self._where} refused the request ({status}): {words!r}"
            return RequestRefused(sentence, status=status, said=said)
        served = await self._served()
        if served is None:
            sentence = f"{self._where} has no chat completions ({status}: {words!r}); check OPENAI_BASE_URL"
        else:
            shown = ", ".join(served[:SHOWN_MODELS]) + (", ..." if len(served) > SHOWN_MODELS else "")
            sentence = f"{self._where} has no model {self.name!r}; it serves {shown or 'none'}"
        return ModelNotFound(sentence, status=status, said=said)

    async def _served(self) -> list[str] | None:
        try:
            response = await self._session.get("/models")
        except (aiohttp.ClientError, OSError):
            return None
        models = _member(response.body, "data")
        if response.status != 200 or not isinstance(models, list):
            return None
        return sorted(str(_member(model, "id")) for model in models)


def _member(value: Any, name: str) -> Any:
    """Return a member of what may be no object."""
    return value.get(name) if isinstance(value, dict) else None
