"""Models without a model: answers that are written down beforehand, or were given once before.

For the tests of whoever builds on Gainful, and for checking a receipt offline.  Guarantees: deterministic; no
network, no clock but the delay that was asked for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from gainful.core import JsonObject, ModelError, Reply, digest
from gainful.models.chunks import split

Script: TypeAlias = Callable[[JsonObject, int], str | JsonObject]
"""From a request's body and its sample number to a text, a message, or a whole reply body."""


class ScriptedModel:
    """Answers from a function of (body, sample), or from a list in the order of the calls.

    An answer is a text, a message (``{"role": ..., "content": ...}``) or a whole reply body (it has
    ``choices``).  ``failing`` holds the numbers of the calls, counted from 0, that raise ``ModelError`` in
    place of an answer.  ``delay_s`` is waited before each answer.  ``calls`` holds every body asked, in
    order.  Usage counts words split at white space.  Where ``logprobs`` are asked for, a text is one token of
    which the model is sure.

    >>> import asyncio
    >>> model = ScriptedModel(lambda body, sample: body["messages"][-1]["content"].upper())
    >>> asyncio.run(model.complete({"messages": [{"role": "user", "content": "hello"}]})).message["content"]
    'HELLO'
    """

    def __init__(
        self,
        script: Script | Sequence[str | JsonObject],
        *,
        name: str = "scripted",
        concurrency: int = 8,
        delay_s: float = 0.0,
        failing: Collection[int] = (),
    ) -> None:
        self.name = name
        self.concurrency = concurrency
        self.calls: list[JsonObject] = []
        self._script = script
        self._delay_s = delay_s
        self._failing = failing

    @property
    def identity(self) -> JsonObject:
        """Engine and name: give two scripts that answer differently two names."""
        return {"engine": "scripted", "name": self.name}

    async def complete(self, body: JsonObject, *, sample: int = 0) -> Reply:
        """Answer by the script; raises ``ModelError`` for a call told to fail and when the list is at its end."""
        call = len(self.calls)
        self.calls.append(body)
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        if call in self._failing:
            raise ModelError(f"scripted model {self.name!r}: call {call} was told to fail")
        if callable(self._script):
            answer = self._script(body, sample)
        elif call < len(self._script):
            answer = self._script[call]
        else:
            raise ModelError(f"scripted model {self.name!r} has {len(self._script)} answers and was asked for one more")
        return Reply(body=_reply_body(body, answer), elapsed_ms=self._delay_s * 1000)

    async def stream(self, body: JsonObject) -> AsyncGenerator[bytes, None]:
        """Yield the script's answer in pieces, ``usage`` at the end where ``stream_options`` asks for it."""
        reply = await self.complete(body)
        options = body.get("stream_options") or {}
        for chunk in split(reply.body, include_usage=bool(options.get("include_usage"))):
            yield msgspec.json.encode(chunk)

    async def close(self) -> None:
        """Do nothing: there is nothing to free."""


class ReplayModel:
    """Answers only what was answered before: ``calls`` maps a call's key to the reply body it got.

    The key is ``digest({"body": body, "model": identity, "sample": sample})``, with the *identity* of the
    model that gave the answers.
    """

    def __init__(self, calls: Mapping[str, JsonObject], identity: JsonObject, *, name: str = "replay") -> None:
        self.name = name
        self.identity = identity
        self.concurrency = 1
        self._calls = calls

    async def complete(self, body: JsonObject, *, sample: int = 0) -> Reply:
        """Return the stored reply; raises ``ModelError`` for a call that is not stored."""
        key = digest({"body": body, "model": self.identity, "sample": sample})
        try:
            return Reply(body=self._calls[key])
        except KeyError:
            raise ModelError(
                f"no stored reply for call {key[:16]} (sample {sample}); only calls that were recorded can be replayed"
            ) from None

    async def close(self) -> None:
        """Do nothing: there is nothing to free."""


def _reply_body(body: JsonObject, answer: str | JsonObject) -> JsonObject:
    if isinstance(answer, dict) and "choices" in answer:
        return answer
    message = answer if isinstance(answer, dict) else {"role": "assistant", "content": answer}
    prompt, completion = _words(body.get("messages", ())), _words([message])
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if "tool_calls" in message else "stop"}
    if body.get("logprobs") and message.get("content"):
        choice["logprobs"] = {"content": [{"token": message["content"], "logprob": 0.0}]}
    return {
        "object": "chat.completion",
        "model": "scripted",
        "choices": [choice],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    }


def _words(messages: Sequence[Mapping[str, Any]]) -> int:
    contents = [m.get("content") or m.get("tool_calls") or "" for m in messages]
    return sum(len((c if isinstance(c, str) else json.dumps(c)).split()) for c in contents)
