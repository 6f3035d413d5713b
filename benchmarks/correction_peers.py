"""The same cases through optillm: self-consistency, best of n and cot_reflection, with the same model.

optillm runs as a server of its own, in its own environment; behind it, a loopback server passes its calls to the
embedded model and counts them.  optillm drops tools and response_format, so the policy's prompt goes into the messages
and nothing constrains the reply; its answer is read and judged as all others are.  ``one call`` is the same prompt
asked once, greedily and as unconstrained.  Each approach has its own defaults and 256 tokens a call, as cot_reflection
needs room and self-consistency drops what was cut off.  Calls are remembered in out/correction.db, each repeat of one
request as a sample of its own.

    python benchmarks/correction_peers.py [--setting bfcl|gym] [--cases 60]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from correction import SETTINGS, Result, Row, Setting, keep, remembered, row, run, show
from figures import RESULTS, machine
from peers import environment
from servers import OPTILLM, OPTILLM_NEEDS, free_port, running

from gainful.answers.extract import extract
from gainful.answers.prompt import request
from gainful.core import Answer, Case, JsonObject, ModelError, Usage, digest, message_text
from gainful.loop.calibrate import Bench
from gainful.store import MemoModel, SQLiteStore

APPROACHES = ("self_consistency", "bon", "cot_reflection")
MAX_TOKENS = 256
DROPPED = ("model", "stream")


@dataclass
class Upstream:
    """What stands behind optillm: answers with *model*, tells repeats of a request apart, and counts what is spent."""

    model: MemoModel
    spent: Usage = field(default_factory=Usage)
    _asked: Counter[str] = field(default_factory=Counter)

    async def chat(self, asked: web.Request) -> web.Response:
        body = {name: value for name, value in (await asked.json()).items() if name not in DROPPED}
        name = digest(body)
        self._asked[name] += 1
        try:
            reply = await self.model.complete(body, sample=self._asked[name] - 1)
        except ModelError as error:
            return web.json_response({"error": {"message": str(error), "type": "server_error"}}, status=400)
        self.spent += reply.usage
        return web.json_response({"id": name[:12], "object": "chat.completion", "created": 0, **reply.body})


@contextlib.asynccontextmanager
async def listening(upstream: Upstream) -> AsyncIterator[str]:
    """Yield the base URL at which *upstream* answers."""
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/v1/chat/completions", upstream.chat)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        await runner.cleanup()


@dataclass(frozen=True)
class Peer:
    """A setting asked without tools and constraints, at *base_url* or of the model itself."""

    setting: Setting
    bench: Bench

    def body(self, case: Case) -> JsonObject:
        ours = request(self.bench.policy, case, self.bench.task.kind)
        return {"messages": ours["messages"], "max_tokens": MAX_TOKENS}

    def judged(self, case: Case, message: JsonObject) -> float:
        value = extract(self.bench.task.kind, message, case, self.bench.policy.format)
        return self.bench.truth(case, Answer(text=message_text(message), value=value)) or 0.0

    async def once(self, case: Case) -> Result:
        reply = await self.bench.model.complete({**self.body(case), "temperature": 0})
        return Result(self.judged(case, reply.message), reply.usage)

    def through(self, session: aiohttp.ClientSession, base_url: str) -> Callable[[Case], Coroutine[Any, Any, Result]]:
        async def asked(case: Case) -> Result:
            body = {**self.body(case), "model": "embedded"}
            async with session.post(f"{base_url}/chat/completions", json=body) as response:
                if response.status != 200:
                    return Result(0.0, Usage(), "refused")
                reply = await response.json()
            return Result(self.judged(case, reply["choices"][0]["message"]), Usage())

        return asked


async def approach(name: str, peer: Peer, upstream: Upstream, cases: Sequence[Case]) -> list[Result]:
    """Answer *cases* through a server of optillm's; what it spent in all is in the first result."""
    python = environment("optillm", OPTILLM_NEEDS, alone=[f"optillm=={OPTILLM}"])
    port = free_port()
    with tempfile.TemporaryDirectory() as scratch:
        async with listening(upstream) as base_url, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout()) as session:
            command = [python.parent / "optillm", "--approach", name, "--model", "embedded", "--base-url", base_url]
            command += ["--host", "127.0.0.1", "--port", port, "--log", "error"]
            server = running(
                command,
                {"OPENAI_API_KEY": "upstream"},
                f"http://127.0.0.1:{port}/health",
                Path(scratch) / "optillm.log",
            )
            with server:
                asked = peer.through(session, f"http://127.0.0.1:{port}/v1")
                found = await run(peer.bench, name, map(asked, cases))
    return [Result(found[0].score, upstream.spent, found[0].done), *found[1:]]


async def measure(setting: Setting, model: MemoModel, cases: int, chosen: Sequence[str]) -> list[Row]:
    peer = Peer(setting, Bench(setting.task, setting.task.baseline, model))
    others = setting.others[:cases]
    print(f"{setting.name}: {len(others)} cases, optillm {OPTILLM}", flush=True)
    plain = await run(peer.bench, "one call", map(peer.once, others))
    rows = [row(setting.name, "one call", plain, plain)]
    show(rows[0])
    for name in chosen:
        found = await approach(name, peer, Upstream(model), others)
        rows.append(row(setting.name, name, plain, found))
        show(rows[-1])
    return rows


async def measure_all(names: Sequence[str], cases: int, chosen: Sequence[str]) -> None:
    for name in names:
        with SQLiteStore(RESULTS.parent / "correction.db") as store:
            async with remembered(store) as model:
                keep(f"correction_peers_{name}", await measure(SETTINGS[name](), model, cases, chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=sorted(SETTINGS), help="one of the two; both unless given")
    parser.add_argument("--cases", type=int, default=60, help="the first so many of the cases of correction.py")
    parser.add_argument("--approach", choices=APPROACHES, action="append", help="one of them; all unless given")
    options = parser.parse_args()
    print(f"correction, peers: {machine()}")
    names = [options.setting] if options.setting else list(SETTINGS)
    asyncio.run(measure_all(names, options.cases, options.approach or APPROACHES))


if __name__ == "__main__":
    main()
