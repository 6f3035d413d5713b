"""What the trainer's side makes of prompts: greedy answers, and the log-probability of given replies.

On a CPU it computes in float32, since bfloat16 makes ties of what differs by an eighth of a nat; on a GPU a large model
stays in bfloat16.  The adapter is added beside the base's weights, as the server does it, not merged into them.  Loaded
by the worker alone: this module imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from peft import PeftModel

from gainful.core import TrainError
from gainful.train.base import Reader, load_model
from gainful.train.device import check_room, element_bytes, shape_of
from gainful.train.jobs import Hear, Progress, Reading, Sampling
from gainful.train.memory import answering_bytes
from gainful.train.orders import Read, Readings
from gainful.train.sampling import answers
from gainful.train.tree import tree

READ_AT_ONCE = 2048  # tokens


class Likelihood(NamedTuple):
    """The log-probability of each token of a reply, and by how much it falls behind the likeliest in its place."""

    logprobs: list[float]
    behind: list[float]

    def falls_behind(self, max_tokens: int) -> float:
        """Return by how much any of its tokens does, at most; a reply may be cut at *max_tokens*."""
        return max(self.behind[: max_tokens or None])


def read(order: Read, source: str, reader: Reader, hear: Hear) -> Readings:
    """Return one reading a prompt of *order*.

    A reply whose every token is the likeliest is the greedy answer, which one pass over it shows; only the others'
    prompts are answered token by token.  Raises ``TrainError`` where a likelihood is no number.
    """
    is_exact = not torch.cuda.is_available()
    prompts = [reader.prompt(messages) for messages in order.prompts]
    given = order.replies or ()
    cuts = order.cuts or ((),) * len(given)
    replies = [reader.cut_reply(reply, cut) for reply, cut in zip(given, cuts, strict=True)]
    labels = min(READ_AT_ONCE, sum(map(len, replies)))
    nodes = READ_AT_ONCE + max(map(len, (*prompts, *replies)))
    check_room(answering_bytes(shape_of(source), element_bytes(exact=is_exact), nodes, labels), order.memory_bytes)
    model = load_model(source, exact=is_exact)
    if order.adapter:
        model = PeftModel.from_pretrained(model, order.adapter, autocast_adapter_dtype=False).to(model.dtype)
    model.eval()
    if torch.cuda.is_available():
        model.to("cuda")
    with torch.inference_mode():
        likelihoods = list(_likelihoods(model, prompts, replies, hear))
        if not all(math.isfinite(one) for likelihood in likelihoods for one in likelihood.logprobs):
            raise TrainError(
                f"by {order.adapter or order.base} a reply is as likely as no number says: its weights are spoilt; "
                "train again with a lower learning rate"
            )
        behind = [one.falls_behind(order.max_tokens) for one in likelihoods]
        known = {one: given[one] for one, gap in enumerate(behind) if not gap}
        asked = [one for one in range(len(prompts)) if one not in known] if order.max_tokens else []
        how = Sampling(samples=1, temperature=0.0, max_tokens=order.max_tokens)
        made = answers(model, reader, [prompts[one] for one in asked], how, hear) if asked else []
    greedy = known | {one: answer for one, (answer,) in zip(asked, made, strict=True)}
    readings = []
    for one in range(len(prompts)):
        mine = likelihoods[one].logprobs[:-1] if given else ()
        same = given and greedy.get(one) == given[one]
        gap = None if not given else 0.0 if same else behind[one]
        readings.append(Reading(greedy=greedy.get(one, ""), logprobs=tuple(mine), behind=gap))
    return Readings(readings=tuple(readings))


def _likelihoods(
    model: Any, prompts: Sequence[list[int]], replies: Sequence[list[int]], hear: Hear
) -> Iterator[Likelihood]:
    """Yield the likelihood of each reply, its end among the tokens, in order."""
    lengths = [len(prompts[one]) + len(reply) for one, reply in enumerate(replies)]
    for together in _batches(lengths):
        inputs = tree(((prompts[one], replies[one]) for one in together), model.dtype)
        inputs = {name: value.to(model.device) for name, value in inputs.items()}
        owners, labels, sources = inputs.pop("owners"), inputs.pop("labels"), inputs.pop("sources")
        logits = model(**inputs, logits_to_keep=sources, use_cache=False).logits[0].float()
        logprobs = logits.log_softmax(-1)
        chosen = logprobs.gather(-1, labels[:, None])[:, 0]
        behind = logprobs.amax(-1) - chosen
        for row in range(len(together)):
            mine = owners == row
            yield Likelihood(chosen[mine].tolist(), behind[mine].tolist())
        hear(Progress(together[-1] + 1, len(replies)))


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield indexes in order, so many together as stay under the tokens of one go."""
    together: list[int] = []
    total = 0
    for one, length in enumerate(lengths):
        if together and total + length > READ_AT_ONCE:
            yield together
            together, total = [], 0
        together.append(one)
        total += length
    if together:
        yield together
