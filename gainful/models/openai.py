"""Any server that speaks the OpenAI chat-completions protocol: vLLM, SGLang, Ollama, llama.cpp, a vendor.

Guarantees: the request passes through untouched, the reply comes back untouched; what a busy or failing server
can cure by time is tried again with backoff, what it cannot is told in one sentence.  Counting calls against
a budget and remembering replies are left to others.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from gainful.core import JsonObject, ModelError, ModelNotFound, Reply, RequestRefused
from gainful.models.patience import Pace, Patience, retry_after_s
from gainful.models.session import Response, Session

TRANSIENT = frozenset({408, 409, 429})  # and every 5xx: time may cure these
CROWDED = frozenset({429, 503})  # the server says that it has too much to do
PATIENT = Patience()
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
    """A failed attempt that may go well later."""

    sentence: str
    asked_s: float | None = None
    crowded: bool = False


class OpenAIModel:
    """The model that a server at *base_url* (ending in ``/v1`` as a rule) serves under *name*.

    ``concurrency`` is the most calls at once; fewer run while the server turns calls away.  Without *price*
    the cost of a reply is unknown.  Use it in one event loop, and ``close`` it there.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        api_key: str | None = None,
        *,
        concurrency: int = 32,
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

    @property
    def identity(self) -> JsonObject:
        """Base URL, without credentials, and served name: what the weights are, only the server knows."""
        return {"engine": "openai", "base_url": self._where, "model": self.name}

    async def complete(self, body: JsonObject, *, sample: int = 0) -> Reply:
        """Answer one request, trying again where time may help.

        Raises ``RequestRefused`` where the server will not answer this request, ``ModelNotFound`` for an
        unknown model or address, ``ModelError`` for a wrong key and when all attempts failed.
        """
        tried = 0
        while True:
            async with self._pace.turn() as turn:
                outcome = await self._try({**body, "model": self.name})
                if isinstance(outcome, Reply):
                    turn.went_well = True
                    return outcome
                turn.went_well = False if outcome.crowded else None
            tried += 1
            wait_s = self._patience.wait_s(tried, outcome.asked_s)
            if wait_s is None:
                asked = "" if outcome.asked_s is None else f", which asks to wait {outcome.asked_s:g} s"
                raise ModelError(f"{outcome.sentence}{asked}; gave up after {tried} attempt(s), try again later")
            await asyncio.sleep(wait_s)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _try(self, body: JsonObject) -> Reply | Trouble:
        started = time.perf_counter()
        try:
            response = await self._session.post("/chat/completions", body)
        except TimeoutError:
            return Trouble(f"{self._where} did not answer within {self._patience.timeout_s:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return Trouble(f"{self._where} cannot be reached ({type(error).__name__}: {error})")
        if response.status == 200:
            return self._read(response, (time.perf_counter() - started) * 1000)
        if response.status in TRANSIENT or response.status >= 500:
            sentence = f"{self._where} answered {response.status}: {response.said!r}"
            return Trouble(sentence, retry_after_s(response.headers), response.status in CROWDED)
        raise await self._refusal(response)

    def _read(self, response: Response, elapsed_ms: float) -> Reply | Trouble:
        body = response.body
        if not isinstance(body, dict):
            return Trouble(f"{self._where} answered something that is no JSON object: {response.text[:80]!r}")
        choices = body.get("choices")
        if not (isinstance(choices, list) and choices and isinstance(_member(choices[0], "message"), dict)):
            return Trouble(f"{self._where} answered without a choice: {response.text[:200]!r}")
        usage = body.get("usage")
        cost_usd = self._price.cost_usd(usage) if self._price is not None and isinstance(usage, dict) else None
        return Reply(body=body, elapsed_ms=elapsed_ms, cost_usd=cost_usd)

    async def _refusal(self, response: Response) -> ModelError:
        status, said = response.status, response.said
        if status in (401, 403):
            return ModelError(f"{self._where} refused the key ({status}: {said!r}); set OPENAI_API_KEY to a valid one")
        code = _member(_member(response.body, "error"), "code")
        if status != 404 and code != "model_not_found":
            return RequestRefused(f"{self._where} refused the request ({status}): {said!r}")
        served = await self._served()
        if served is None:
            return ModelNotFound(f"{self._where} has no chat completions ({status}: {said!r}); check OPENAI_BASE_URL")
        shown = ", ".join(served[:SHOWN_MODELS]) + (", ..." if len(served) > SHOWN_MODELS else "")
        return ModelNotFound(f"{self._where} has no model {self.name!r}; it serves {shown or 'none'}")

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
