"""The real base: what torch trains on it is what llama.cpp serves."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from gainful.core import Adapter, JsonObject
from gainful.models import SMOLLM2, EmbeddedModel, wheel_file
from gainful.models.adapters import find_adapter
from gainful.models.gguf import gguf_digest
from gainful.train import Lesson, Limits, Reading, Recipe, Work, fine_tune, missing, parity, read_prompts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason="it needs the extra `train`"),
]

TOKENS = 12


def question(a: int, b: int) -> tuple[JsonObject, ...]:
    return ({"role": "user", "content": f"How much is {a} + {b}?"},)


async def served(file: Path, adapter: Adapter | None, prompts: Sequence[Sequence[JsonObject]]) -> list[Reading]:
    """Answer as the server does, and say how likely it finds each token but the reply's end."""
    model = EmbeddedModel(file, slots=4, context_tokens=512)
    try:
        bodies: list[JsonObject] = [
            {"messages": list(prompt), "max_tokens": TOKENS, "temperature": 0, "logprobs": True} for prompt in prompts
        ]
        asked = [body if adapter is None else {**body, "adapter": adapter} for body in bodies]
        replies = await asyncio.gather(*map(model.complete, asked))
    finally:
        await model.close()
    readings = []
    for reply in replies:
        tokens = [one for one in reply.body["choices"][0]["logprobs"]["content"] if one["token"]]
        logprobs, cut = (tuple(one[name] for one in tokens) for name in ("logprob", "token"))
        readings.append(Reading(greedy=reply.message["content"], logprobs=logprobs, cut=cut))
    return readings


def test_what_is_served_is_what_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six steps on sums in words of our own; then 40 other sums through llama.cpp, with the adapter and without."""
    monkeypatch.setenv("GAINFUL_ADAPTERS", str(tmp_path / "adapters"))
    file = wheel_file(**SMOLLM2)
    lessons = tuple(
        Lesson(messages=question(n % 7, n % 5), reply=f"It makes {n % 7 + n % 5}.", case=str(n)) for n in range(48)
    )
    work = Work(base=gguf_digest(file), material=lessons, recipe=Recipe(epochs=2.0, patience=0, learning_rate=2e-3))
    prompts = [question(n, 3 * n % 11) for n in range(40)]

    trained = fine_tune(work, file, Limits(minutes=10.0))
    tuned = asyncio.run(served(file, trained.adapter, prompts))
    plain = asyncio.run(served(file, None, prompts))
    folder = find_adapter(trained.adapter)
    of_tuned, of_plain = (
        parity(
            read_prompts(folder, file, prompts, [one.greedy for one in said], TOKENS, cuts=[one.cut for one in said]),
            said,
        )
        for said in (tuned, plain)
    )

    assert of_tuned.holds, of_tuned
    assert of_tuned.compared == len(prompts)
    assert of_tuned.tokens >= 80
    assert not of_plain.holds, of_plain  # a server that leaves the adapter away is found out
    assert sum(one.greedy.startswith("It makes") for one in tuned) > 36
    assert trained.adapter.gguf
    assert trained.peak_memory_bytes < 3_000_000_000
