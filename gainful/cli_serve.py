"""The command ``gainful serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gainful import proxy
from gainful.answers.allowance import Limits
from gainful.core import ServeError
from gainful.loop import session
from gainful.models.openai import Price
from gainful.proxy.redact import Storing
from gainful.proxy.settings import Settings
from gainful.store import Sync
from gainful.tasks.serving import Streaming

PriceOption = Annotated[
    str | None, typer.Option("--price", help="Dollars for a million tokens, prompt,completion: 0.15,0.60")
]


def serve(
    tasks: Annotated[list[str], typer.Argument(help="Tasks; each is served as the model gainful/NAME.")],
    model: Annotated[str, typer.Option(help="embedded, gguf:PATH, hf:REPO/FILE or openai:NAME.")] = "embedded",
    store: Annotated[
        str | None, typer.Option(help="A file or postgresql://... [default: in your data directory].")
    ] = None,
    host: Annotated[str, typer.Option(help="Beyond loopback keys are required.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.")] = 8080,
    workers: Annotated[int, typer.Option(help="Processes that answer.")] = 1,
    improve: Annotated[bool, typer.Option("--improve", help="Learn from what is served, beside it.")] = False,
    stream: Annotated[Streaming | None, typer.Option(help="How all tasks stream, instead of their own way.")] = None,
    deadline_ms: Annotated[float | None, typer.Option(min=1, help="The longest that a request may take.")] = None,
    max_calls: Annotated[int | None, typer.Option(min=1, help="Model calls that a request may take.")] = None,
    max_extra_tokens: Annotated[int | None, typer.Option(min=0, help="Tokens beyond a request's first call.")] = None,
    max_extra_usd: Annotated[float | None, typer.Option(min=0, help="Money beyond a request's first call.")] = None,
    corrections_per_minute: Annotated[int | None, typer.Option(min=0, help="Of all requests together.")] = None,
    price: PriceOption = None,
    store_prompts: Annotated[Storing, typer.Option(help="How requests and replies are stored.")] = "full",
    sync: Annotated[Sync, typer.Option(help="full: replies survive a power cut too.")] = "normal",
    require_keys: Annotated[bool, typer.Option("--require-keys", help="On loopback too.")] = False,
    tls_certificate: Annotated[Path | None, typer.Option(help="A PEM file; with --tls-key.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="A PEM file.")] = None,
) -> None:
    """Answer OpenAI clients: replies checked, corrected where that pays, and stored before they are sent."""
    extra_calls = None if max_calls is None else max_calls - 1
    settings = Settings(
        host=host,
        port=port,
        workers=workers,
        improve=improve,
        stream=stream,
        limits=Limits(deadline_ms, extra_calls, max_extra_tokens, max_extra_usd),
        store_prompts=store_prompts,
        sync=sync,
        require_keys=require_keys,
        price=price_of(price),
        corrections_per_minute=corrections_per_minute,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
    )
    proxy.serve(tasks, model, store or session.default_store(), settings)


def price_of(words: str | None) -> Price | None:
    """Return the price that the option says, ``None`` where it was not given; raises ``ServeError``."""
    if words is None:
        return None
    try:
        prompt_usd, completion_usd = (float(word) for word in words.split(","))
    except ValueError:
        raise ServeError(f"--price {words!r} is no price; give two numbers, as in 0.15,0.60") from None
    if not (0 <= prompt_usd < float("inf") and 0 <= completion_usd < float("inf")):
        raise ServeError(f"--price {words!r} is no price; give two numbers from 0 on")
    return Price(prompt_usd, completion_usd)
