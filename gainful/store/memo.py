"""A memo of model calls: what was paid for once is not paid for again.

``MemoModel`` stands in front of any model.  Guarantees: a finished reply is stored before it is returned, and
a reply from the store is the reply as it was first returned, its time and cost included, so sums repeat when a
run is resumed; identical calls made together become one; an error is never stored.
"""

from __future__ import annotations

import asyncio

import msgspec

from gainful.core import JsonObject, Model, ModelError, Reply, digest
from gainful.in_front import ModelInFront
from gainful.store.compact import encode
from gainful.store.store import Store

# Fields of a request that change who is told, billed or streamed to, and not one token of the answer.
SILENT = frozenset(
    {
        "metadata",  # labels for the vendor's log
        "prompt_cache_key",  # routes to a warm prompt cache
        "prompt_cache_retention",  # how long that cache is kept
        "safety_identifier",  # which end user to name in an abuse report
        "service_tier",  # queue and price; vendors state that the model is the same
        "store",  # whether the vendor keeps the conversation
        "stream",  # a streamed reply reaches us whole
        "stream_options",
        "user",  # the former name of safety_identifier
    }
)

# What a reply's body keeps.  ``id``, ``created`` and llama.cpp's ``timings`` differ from call to call and say
# nothing about the answer; without them a reply takes half the space.
KEPT = ("choices", "usage", "model", "system_fingerprint")

_decode = msgspec.json.Decoder(Reply).decode


def memo_key(identity: JsonObject, body: JsonObject, sample: int = 0) -> str:
    """Return the digest of all that can change the answer: the model, the request, the number of the sample.

    >>> memo_key({"name": "m"}, {"messages": [], "user": "ann"}) == memo_key({"name": "m"}, {"messages": []})
    True
    """
    audible = {name: value for name, value in body.items() if name not in SILENT}
    return digest({"body": audible, "model": identity, "sample": sample})


class MemoModel(ModelInFront):
    """A ``Model`` that asks *model* only what *store* does not know.

    ``fresh_calls`` counts the replies the model made, ``saved_calls`` those that took no call.
    """

    def __init__(self, model: Model, store: Store) -> None:
        super().__init__(model)
        self._store = store
        self._running: dict[str, asyncio.Future[Reply]] = {}
        self.fresh_calls = 0
        self.saved_calls = 0

    async def complete(self, body: JsonObject, *, sample: int = 0) -> Reply:
        """Return the stored reply, else the model's, its body reduced to ``KEPT``.

        Raises what the model raises, and ``ModelError`` for a reply that was broken off.
        """
        key = memo_key(self.identity, body, sample)
        while True:
            stored = self._store.memo_get(key)
            if stored is not None:
                self.saved_calls += 1
                return _named(key, stored)
            running = self._running.get(key)
            if running is None:
                return await self._ask(key, body, sample)
            await asyncio.wait([running])
            if not running.cancelled():  # else whoever asked went away: look again
                reply = running.result()
                self.saved_calls += 1
                return reply

    async def _ask(self, key: str, body: JsonObject, sample: int) -> Reply:
        running = self._running[key] = asyncio.get_running_loop().create_future()
        try:
            reply = self._keep(key, await self._model.complete(body, sample=sample))
        except asyncio.CancelledError:
            running.cancel()
            raise
        except BaseException as error:
            running.set_exception(error)
            running.exception()  # seen here: perhaps nobody else waits for it
            raise
        else:
            running.set_result(reply)
            return reply
        finally:
            del self._running[key]

    def _keep(self, key: str, reply: Reply) -> Reply:
        """Store *reply* and return what the store holds: a resumed run is given the very same."""
        if not _is_finished(reply.body):
            raise ModelError(f"model {self.name!r} broke off its reply, {str(reply.body)[:200]!r}; run it again")
        kept = msgspec.structs.replace(reply, body={name: reply.body[name] for name in KEPT if name in reply.body})
        encoded = encode(kept)
        self._store.memo_put(key, encoded)
        self.fresh_calls += 1
        return _named(key, self._store.memo_get(key) or encoded)  # another process may have been first


def _named(key: str, stored: bytes) -> Reply:
    """Return the reply *stored* under *key*, under its name."""
    return msgspec.structs.replace(_decode(stored), key=key)


def _is_finished(body: JsonObject) -> bool:
    """Whether every choice came to its end or to the token limit; a proxy says ``error`` where its upstream failed."""
    choices: list[JsonObject] = body.get("choices") or []
    return bool(choices) and all(choice.get("finish_reason") != "error" for choice in choices)
