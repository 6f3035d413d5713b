"""Exchanges of ordinary size, for tests of what serving remembers."""

from __future__ import annotations

import random

from gainful.core import Exchange, Policy, Usage, Verdict

POLICY = Policy(instructions="Answer.")


def ordinary_exchange(rng: random.Random) -> Exchange:
    question, answer = ((" ".join(f"{rng.getrandbits(24):x}" for _ in range(43)))[:300] for _ in range(2))
    id = f"chatcmpl-{rng.randbytes(12).hex()}"
    choice = {"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 88, "completion_tokens": 70, "total_tokens": 158}
    return Exchange(
        id=id,
        at=1.79e9 + rng.random(),
        task="support",
        policy=POLICY.id,
        model="small-model",
        verdict="verified",
        key="web",
        request={"model": "gainful/support", "messages": [{"role": "user", "content": question}], "temperature": 0.2},
        reply={"id": id, "object": "chat.completion", "model": "small-model", "choices": [choice], "usage": usage},
        value=answer,
        verdicts=(Verdict("schema", True, 1.0), Verdict("grounding", False, 1.0)),
        p_wrong=rng.random(),
        usage=Usage(calls=1, prompt_tokens=88, completion_tokens=70, elapsed_ms=rng.random() * 500),
        added_ms=rng.random(),
    )
