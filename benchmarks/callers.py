"""Who asks in ``closed_loop.py``, and what they say of the replies: tool calls of BFCL, a bank's mail of Banking77.

A caller of BFCL says nothing of a reply: trusted checks judge it.  One of the bank knows the right topic afterwards, as
a clerk does who got a message that was not for him, and tells it for a share of the replies, seconds later.
"""

from __future__ import annotations

import asyncio
import csv
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import aiohttp

from gainful.core import Case, JsonObject
from gainful.tasks import bfcl

TOPICS = (  # of Banking77's 77: clearly different ones with many messages each
    "activate_my_card",
    "card_arrival",
    "cancel_transfer",
    "request_refund",
    "cash_withdrawal_charge",
    "country_support",
)
EXAMPLES = 5  # messages a topic for the task file; all others are traffic
TOLD_AFTER_S = (1.0, 20.0)  # a caller's word comes so long after the reply, at random

BANKING = """
name = "banking"
cases = "banking.jsonl"
instructions = "You sort the mail of a bank. Topics: {topics}. Say which topic the message has."
max_tokens = 24

[answer]
kind = "choice"
labels = {labels}

[[checks]]
kind = "choice"

[improve]
after_errors = 20
ramp = [0.05, 0.2, 0.5]  # half of the callers say nothing: ten scores in a stage of 1 % would take 2,000 requests
holdback = 0.05
trust_feedback = true
feedback_s = 60
probes = 40
probe_hours = 0.2
"""


class Question(NamedTuple):
    """What is asked, and the right answer where callers know it."""

    body: JsonObject
    label: str | None = None


@dataclass
class Callers:
    """Those of one task: they ask *questions* at *rate* a second, and tell *told_share* of the right answers.

    ``held_back`` is the share that stays on the former champion when a bad one is forced in: where half of the callers
    say nothing and the former one is right in a third of its replies, 5 % would take thousands of requests.
    """

    task: str
    questions: Iterator[Question]
    rate: float
    told_share: float = 0.0
    held_back: float = 0.05
    asked: int = 0
    told: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    waited_s: list[float] = field(default_factory=list)

    async def ask(self, url: str, stopped: asyncio.Event) -> None:
        """Ask until *stopped*, and wait for the last reply."""
        draw = random.Random(self.task)
        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(url, timeout=timeout) as session, asyncio.TaskGroup() as asking:
            while not stopped.is_set():
                tells = draw.random() < self.told_share
                after_s = draw.uniform(*TOLD_AFTER_S) if tells else None
                asking.create_task(self._one(session, next(self.questions), after_s))
                await asyncio.sleep(draw.expovariate(self.rate))

    async def _one(self, session: aiohttp.ClientSession, question: Question, told_after_s: float | None) -> None:
        self.asked += 1
        began_s = time.monotonic()
        try:
            async with session.post("/v1/chat/completions", json=question.body) as response:
                reply = await response.json()
                self.seen[str(response.status)] += 1
                name = response.headers.get("x-gainful-id", "")
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.seen[type(error).__name__] += 1
            return
        finally:
            self.waited_s.append(time.monotonic() - began_s)
        if told_after_s is not None and question.label is not None and "choices" in reply:
            await asyncio.sleep(told_after_s)
            await self._tell(session, name, reply, question.label)

    async def _tell(self, session: aiohttp.ClientSession, name: str, reply: JsonObject, label: str) -> None:
        said = reply["choices"][0]["message"].get("content") or ""
        is_right = [topic for topic in TOPICS if topic in said] == [label]
        told = {"id": name, "score": float(is_right), "target": label}
        try:
            async with session.post("/v1/feedback", json=told) as response:
                self.seen[f"feedback {response.status}"] += 1
                self.told += response.status == 200
        except (aiohttp.ClientError, TimeoutError) as error:
            self.seen[f"feedback {type(error).__name__}"] += 1


def tool_calls(task: str, draw: random.Random) -> Iterator[Question]:
    """Yield BFCL's questions for ever, with other numbers each time they come round again."""
    cases = [case for category in bfcl.CATEGORIES for case in bfcl._cases(category)]
    while True:
        draw.shuffle(cases)
        yield from (Question(_body(task, case, draw)) for case in cases)


def _body(task: str, case: Case, draw: random.Random) -> JsonObject:
    turns = [{**turn, "content": varied(turn["content"], draw)} for turn in case.messages]
    return {"model": f"gainful/{task}", "messages": turns, "tools": list(case.tools)}


def varied(text: str, draw: random.Random) -> str:
    """Return *text* with other small numbers."""
    return re.sub(r"\b\d{1,3}\b", lambda found: str(max(1, int(found[0]) + draw.randint(-9, 9))), text)


def bank_mail(source: Path, folder: Path, draw: random.Random) -> tuple[Path, Iterator[Question]]:
    """Write the task ``banking`` into *folder*, and return its file and the messages of *source*, for ever.

    *source* is a CSV file ``text,category``, such as Banking77's ``train.csv``.  Raises ``SystemExit`` where a topic
    has too few messages.
    """
    with source.open(encoding="utf-8", newline="") as file:
        rows = [(row["text"].strip(), row["category"]) for row in csv.DictReader(file) if row["category"] in TOPICS]
    draw.shuffle(rows)
    examples: list[tuple[str, str]] = []
    for topic in TOPICS:
        of_it = [row for row in rows if row[1] == topic]
        if len(of_it) < 10 * EXAMPLES:
            raise SystemExit(f"{source} has {len(of_it)} messages of {topic}; give Banking77's train.csv")
        examples += of_it[:EXAMPLES]
    lines = [
        json.dumps({"id": f"mail-{n}", "input": text, "target": topic}) for n, (text, topic) in enumerate(examples)
    ]
    (folder / "banking.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "banking.toml").write_text(BANKING.format(topics=", ".join(TOPICS), labels=json.dumps(list(TOPICS))))
    return folder / "banking.toml", _for_ever([row for row in rows if row not in examples], draw)


def _for_ever(rows: list[tuple[str, str]], draw: random.Random) -> Iterator[Question]:
    while True:
        draw.shuffle(rows)
        for text, topic in rows:
            yield Question({"model": "gainful/banking", "messages": [{"role": "user", "content": text}]}, topic)
