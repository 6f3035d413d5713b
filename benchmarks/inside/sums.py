"""A small world whose truth is known: sums as tool calls, and a vendor that calls rightly only where it is constrained.

python sums.py PORT      answers on loopback as OpenAI's server does
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace

from aiohttp import web

from gainful.checks import Grounding, ToolCall
from gainful.core import Case, JsonObject, Policy
from gainful.core import ToolCall as ToolCallAnswer
from gainful.models import ScriptedModel
from gainful.tasks import divide, make_task
from gainful.tasks.improving import Improving

NUMBER = {"type": "integer"}
PARAMETERS = {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "required": ["a", "b"]}
TOOL = {"type": "function", "function": {"name": "add", "description": "Add two numbers.", "parameters": PARAMETERS}}


def case(number: int) -> Case:
    return Case(messages=({"role": "user", "content": f"Please add {number} and {number + 1000}."},), tools=(TOOL,))


def answer(body: JsonObject, sample: int) -> str:
    """Talk where that is possible, and call rightly in seven of ten cases where decoding is constrained."""
    asked = next(str(message["content"]) for message in body["messages"] if message["role"] == "user")
    if "response_format" not in body:
        return "The sum of the numbers is easily found."
    words = asked.removesuffix(".").split()
    a, b = int(words[2]), int(words[4])
    if hashlib.sha256(asked.encode()).digest()[0] >= 180:
        a, b = b, a
    arguments = {"a": a, "b": b}
    names = body["response_format"]["json_schema"]["schema"]["properties"]
    return json.dumps({"name": "add", "arguments": arguments} if "name" in names else arguments)


sums = replace(
    make_task(
        "sums",
        divide([case(-number) for number in range(1, 30)]),
        ToolCallAnswer(),
        [ToolCall(), Grounding()],
        [ToolCall()],
        Policy(instructions="Call the function."),
    ),
    improving=Improving(after_errors=20, shadow=0.5, ramp=(0.2, 0.5), holdback=0.1, probes=4, probe_hours=0.005),
)


async def chat(asked: web.Request) -> web.Response:
    body: JsonObject = await asked.json()
    reply = await ScriptedModel(answer).complete(body)
    return web.json_response({"id": f"sum-{hashlib.sha256(await asked.read()).hexdigest()[:20]}", **reply.body})


def main() -> None:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
