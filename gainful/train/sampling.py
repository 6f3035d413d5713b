"""Many replies to many prompts, fast: each beginning is read once, and its samples go on from there together.

Many replies are one sequence, of which each token sees what it follows and nothing else: the beginning that its prompt
shares with others, its own prompt, its own reply.  So there is no padding, nothing is remembered twice, and a reply
that has ended takes no part.  On a CPU this makes several times as many tokens a second as the server that serves the
model, because nobody waits for one of them, and each core answers prompts of its own: two that share every product of
matrices make 1.2 times as many as one, two that do not 1.8 times.  Loaded by the worker alone: this module imports
torch.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from peft import PeftModel

from gainful.train.base import Reader, load_model
from gainful.train.device import check_room, element_bytes, has_room, shape_of
from gainful.train.jobs import Hear, Progress, Sampling
from gainful.train.memory import answering_bytes
from gainful.train.orders import Sample, Sampled

REPLIES_AT_ONCE = 128  # under way: twice as many are hardly faster
REPLIED_AT_ONCE = 2048  # tokens that their replies may come to together: each is looked at by all
PROMPTS_AT_ONCE = 512  # tokens of prompts read in one go, for the same reason
FEW_LEFT, TIMES_AS_LONG = 1 / 8, 2  # the last replies are cut off when they are so few, and so much longer than others
SHORTEST_STEM = 16  # tokens that prompts share, from which it pays to read them once


def sample(order: Sample, source: str, reader: Reader, hear: Hear) -> Sampled:
    """Return ``how.samples`` replies a prompt of *order*; the same order gives the same replies on the same machine.

    The adapter is merged into the base, which rounds it to the base's precision and is three times as fast: what is
    sampled only has to be worth checking.
    """
    prompts = [reader.prompt(one) for one in order.prompts]
    nodes, shape = max(map(len, prompts)) + PROMPTS_AT_ONCE + REPLIED_AT_ONCE, shape_of(source)

    def needed(hands: int) -> int:
        return answering_bytes(shape, element_bytes(), nodes, REPLIES_AT_ONCE, hands)

    hands = 1 if torch.cuda.is_available() else torch.get_num_threads()
    while hands > 1 and not has_room(needed(hands), order.memory_bytes):
        hands -= 1
    check_room(needed(hands), order.memory_bytes)
    torch.set_num_threads(torch.get_num_threads() // hands)
    model = load_model(source)
    if order.adapter:
        model = PeftModel.from_pretrained(model, order.adapter).merge_and_unload()
    model.eval()
    if torch.cuda.is_available():
        model.to("cuda")
    return Sampled(replies=tuple(answers(model, reader, prompts, order.how, hear, hands)))


class Stem(NamedTuple):
    """The beginning that all prompts of a family share, and what the model remembers of it: it is read once."""

    length: int
    cache: Any


class Together(NamedTuple):
    """Prompts that are answered together, whose beginnings are the stem's, and a seed of their own."""

    stem: Stem | None
    prompts: list[list[int]]
    seed: int


def answers(
    model: Any, reader: Reader, prompts: Sequence[list[int]], how: Sampling, hear: Hear, hands: int = 1
) -> list[tuple[str, ...]]:
    """Return ``how.samples`` replies to each of *prompts*; the likeliest token each time where the temperature is 0.

    So many *hands* work at once, each on prompts of its own; the replies do not depend on how many.
    """
    work: list[Together] = []
    draw = random.Random(how.seed)
    for alike in _families(prompts):
        with torch.inference_mode():
            stem = _stem(model, alike)
        work += [Together(stem, some, draw.getrandbits(63)) for some in _groups(alike, stem.length if stem else 0, how)]

    def answered(one: Together) -> list[list[int]]:
        with torch.inference_mode():  # of this thread
            return _replies(model, reader.end, one, how)

    replies: list[tuple[str, ...]] = []
    with ThreadPoolExecutor(hands) as pool:
        for made in pool.map(answered, work):
            replies += [
                tuple(map(reader.text, made[start : start + how.samples])) for start in range(0, len(made), how.samples)
            ]
            hear(Progress(len(replies), len(prompts)))
    return replies


def _families(prompts: Sequence[list[int]]) -> Iterator[list[list[int]]]:
    """Yield the prompts in their order, those together that share a beginning, as under one set of examples.

    A prompt that would leave less than three quarters of what a family shares begins another one.
    """
    family: list[list[int]] = []
    length = 0
    for prompt in prompts:
        shared = _shared(family[0], prompt) if family else 0
        if len(family) > 1 and 4 * shared < 3 * length:
            yield family
            family = []
        length = shared if len(family) == 1 else min(length, shared)
        family.append(prompt)
    if family:
        yield family


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _groups(prompts: Sequence[list[int]], begun: int, how: Sampling) -> Iterator[list[list[int]]]:
    """Yield the prompts in their order, as many at once as are to be answered together."""
    most = max(1, min(REPLIES_AT_ONCE, REPLIED_AT_ONCE // how.max_tokens) // how.samples)
    group: list[list[int]] = []
    tokens = 0
    for prompt in prompts:
        tokens += len(prompt) - begun
        if group and (len(group) == most or tokens > PROMPTS_AT_ONCE):
            yield group
            group, tokens = [], len(prompt) - begun
        group.append(prompt)
    if group:
        yield group


def _stem(model: Any, prompts: Sequence[list[int]]) -> Stem | None:
    """Return what all of several prompts begin with, ``None`` where that is short; each keeps a token of its own."""
    if len(prompts) < 2:
        return None
    # in order of their tokens: what the first and the last share, all share
    length = min(_shared(min(prompts), max(prompts)), min(map(len, prompts)) - 1)
    if length < SHORTEST_STEM:
        return None
    ids = torch.tensor([prompts[0][:length]], device=model.device)
    return Stem(length, model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values)


def _replies(model: Any, end: int, work: Together, how: Sampling) -> list[list[int]]:
    """Return the tokens of all replies, a prompt's together; those that ramble on alone are cut off."""
    stem, prompts, seed = work
    random = torch.Generator(model.device).manual_seed(seed)
    begun = stem.length if stem else 0
    cache = copy.deepcopy(stem.cache) if stem else None
    lengths = torch.tensor([len(prompt) - begun for prompt in prompts], device=model.device)
    owner = torch.arange(len(prompts), device=model.device).repeat_interleave(lengths)
    own = (owner[:, None] == owner).tril()
    seen = torch.cat([own.new_ones((len(owner), begun)), own], 1)
    ids = torch.tensor([token for prompt in prompts for token in prompt[begun:]], device=model.device)
    last = lengths.cumsum(0) - 1
    logits, cache = _read(model, ids, begun + own.sum(1) - 1, seen, cache, last)
    logits, seen = logits.repeat_interleave(how.samples, 0), seen[last].repeat_interleave(how.samples, 0)
    place = (begun + lengths - 1).repeat_interleave(how.samples)
    made: list[list[int]] = [[] for _ in range(len(logits))]
    rows = torch.arange(len(logits), device=model.device)
    most = how.max_tokens
    for length in range(1, how.max_tokens + 1):
        token = _next(logits.float(), how.temperature, random)
        for row, one in zip(rows.tolist(), token.tolist(), strict=True):
            made[row].append(one)
        goes_on = token != end
        rows, token, place = rows[goes_on], token[goes_on], place[goes_on] + 1
        if len(rows) <= FEW_LEFT * len(made):
            most = min(most, TIMES_AS_LONG * length)
        if length >= most or not len(rows):
            break
        seen = torch.cat([seen[goes_on], torch.eye(len(rows), dtype=torch.bool, device=model.device)], 1)
        logits, cache = _read(model, token, place, seen, cache)
    return made


def _read(model: Any, ids: Any, places: Any, seen: Any, cache: Any, keep: Any = 0) -> tuple[Any, Any]:
    """Let *model* read tokens, each of which sees what its row of *seen* says; return logits (of *keep*) and cache."""
    mask = torch.zeros(seen.shape, dtype=model.dtype, device=model.device).masked_fill(~seen, float("-inf"))
    read = model(
        input_ids=ids[None],
        position_ids=places[None],
        attention_mask=mask[None, None],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=keep,
    )
    return read.logits[0], read.past_key_values


def _next(logits: Any, temperature: float, random: torch.Generator) -> Any:
    if not temperature:
        return logits.argmax(-1)
    # one random number a reply: one for each word of the vocabulary takes a third as long as reading does
    upto = (logits / temperature).softmax(-1).cumsum_(-1)
    drawn = torch.rand((len(upto), 1), generator=random, device=upto.device) * upto[:, -1:]
    return torch.searchsorted(upto, drawn, right=True)[:, 0].clamp_(max=upto.shape[1] - 1)
