"""Answer batches of requests with one of the contestants; a line of JSON in for each batch, one out.

python embedded_batches.py gainful|bare THREADS < batches
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from gainful.models import SMOLLM2, EmbeddedModel, wheel_file

AT_ONCE = 8
Answer = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


@contextmanager
def gainful(threads: int) -> Iterator[Answer]:
    """Our embedded model, as it comes, with *threads*."""
    model = EmbeddedModel(wheel_file(**SMOLLM2), slots=AT_ONCE, threads=threads)

    async def answer(bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        room = asyncio.Semaphore(AT_ONCE)

        async def one(body: dict[str, Any]) -> dict[str, Any]:
            async with room:
                return (await model.complete(body)).body

        return await asyncio.gather(*map(one, bodies))

    with asyncio.Runner() as runner:
        yield lambda bodies: runner.run(answer(bodies))
        runner.run(model.close())


@contextmanager
def bare(threads: int) -> Iterator[Answer]:
    """The library's own server, asked from as many threads as it has slots; its other settings are its defaults."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(wheel_file(**SMOLLM2))
    params.n_parallel, params.n_ctx, params.verbosity = AT_ONCE, AT_ONCE * 2048, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield lambda bodies: list(pool.map(server.handle_chat_completions, bodies))


def main() -> None:
    contestant, threads = sys.argv[1], int(sys.argv[2])
    with {"gainful": gainful, "bare": bare}[contestant](threads) as answer:
        for line in sys.stdin:
            bodies = json.loads(line)
            started = time.perf_counter()
            replies = answer(bodies)
            seconds = time.perf_counter() - started
            tokens = sum(reply["usage"]["completion_tokens"] for reply in replies)
            print(json.dumps({"tokens": tokens, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
