"""Checks that callers wait for: whatever a check does, the server goes on and says which check it was."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from gainful import checks
from gainful.core import Answer, Case, Check, CheckError, JsonObject, ServeError, Verdict, judge
from gainful.proxy import judging_process
from gainful.proxy.judging import MOST_ANSWER_BYTES, Judging, is_bounded

pytestmark = pytest.mark.slow  # each starts a process

CASE = Case(messages=({"role": "user", "content": "Say yes."},))
YES = Answer(text="yes", value="yes")
LONG_S = 20.0  # for what must succeed, on a machine as slow as it likes to be

SOURCE = """
import os, sys, time

from gainful.core import Score

held = []

def polite(case, answer):
    print("to nobody")
    sys.stderr.write("to nobody")
    return Score(1.0 if answer.value == "yes" else 0.0, f"{case.text} {answer.value}", "group")

def process(case, answer):
    return Score(1.0, str(os.getpid()))

def fussy(case, answer):
    if answer.text == "raise":
        raise ValueError("what the check says")
    if answer.text == "hang":
        time.sleep(3600)
    if answer.text == "spin":
        while True:
            pass
    if answer.text == "eat":
        while True:
            held.append(bytearray(1 << 26))
    if answer.text == "leave":
        os._exit(3)
    if answer.text == "stop":
        raise SystemExit
    if answer.text == "words":
        return Score(1.0, 5)
    if answer.text == "many words":
        return Score(1.0, "x" * (1 << 21))
    if answer.text == "two":
        return 2.0
    return 1.0

def slow(case, answer):
    time.sleep(0.2)
    return 1.0
"""


def functions(folder: Path, *names: str) -> tuple[Check, ...]:
    (folder / "judges.py").write_text(SOURCE)
    return tuple(checks.Function(f"judges.py:{name}", folder=folder) for name in names)


@asynccontextmanager
async def judged(*found: Check) -> AsyncIterator[Judging]:
    judging = Judging(found)
    try:
        await judging.start()
        yield judging
    finally:
        await judging.close()


async def test_the_verdicts_are_those_of_the_checks_in_their_order(tmp_path: Path) -> None:
    (polite,) = functions(tmp_path, "polite")
    found = (polite, checks.Exact(), checks.Regex("y.*"), checks.Agreement(), polite)

    async with judged(*found) as judging:
        verdicts = await judging.judge(CASE, YES, LONG_S)

    assert verdicts == judge(found, CASE, YES)
    assert verdicts[0] == Verdict("polite", True, 1.0, "Say yes. yes", "group")


async def test_values_reach_the_process_as_they_are(tmp_path: Path) -> None:
    """Integers beyond 64 bits, characters beyond 16 bits, nesting."""
    (polite,) = functions(tmp_path, "polite")
    answer = Answer(text="𝄞 \u2028 \x00", value={"a": [2**70, 1.5, None, "𝄞"]}, samples=(1, "1"))

    async with judged(polite) as judging:
        (verdict,) = await judging.judge(CASE, answer, LONG_S)

    assert (verdict,) == judge([polite], CASE, answer)


@pytest.mark.parametrize("text", ["raise", "words", "many words", "two", "stop"])
async def test_a_check_that_breaks_is_named_and_its_process_lives_on(tmp_path: Path, text: str) -> None:
    async with judged(*functions(tmp_path, "fussy", "process")) as judging:
        before = await judging.judge(CASE, YES, LONG_S)
        with pytest.raises(CheckError, match="fussy") as raised:
            await judging.judge(CASE, Answer(text=text), LONG_S)
        after = await judging.judge(CASE, YES, LONG_S)

    assert before == after
    assert raised.value.check == "fussy"


@pytest.mark.parametrize(
    "text", [pytest.param(text, marks=pytest.mark.slow) for text in ("hang", "spin", "eat")] + ["leave"]
)
async def test_a_check_that_takes_its_process_with_it_is_named_and_a_new_process_judges(
    tmp_path: Path, text: str
) -> None:
    async with judged(*functions(tmp_path, "process", "fussy")) as judging:
        before = await judging.judge(CASE, YES, LONG_S)
        with pytest.raises(CheckError, match="fussy") as raised:
            await judging.judge(CASE, Answer(text=text), 1.0 if text in ("hang", "spin") else LONG_S)
        after = await judging.judge(CASE, YES, LONG_S)

    assert before[0].feedback != after[0].feedback
    assert raised.value.check == "fussy"
    with pytest.raises(ProcessLookupError):
        os.kill(int(before[0].feedback), 0)


async def test_a_pattern_that_backtracks_for_ever_is_ended_while_the_loop_goes_on() -> None:
    hopeless = Answer(text="a" * 40 + "b")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    async with judged(checks.Regex("(a+)+$")) as judging:
        ticking = asyncio.create_task(tick())
        started = time.monotonic()
        with pytest.raises(CheckError, match=r"'regex' took longer than 0\.5 s"):
            await judging.judge(CASE, hopeless, 0.5)
        took_s = time.monotonic() - started
        ticking.cancel()

    assert ticks > 10
    assert took_s < 5.0


@pytest.mark.slow
async def test_a_process_without_its_server_ends_with_its_time(tmp_path: Path) -> None:
    """The kernel ends it: a pattern that backtracks leaves Python itself no turn."""
    async with judged(*functions(tmp_path, "process"), checks.Regex("(a+)+$")) as judging:
        pid = int((await judging.judge(CASE, YES, LONG_S))[0].feedback)
        process = judging._process._process
        judging._process._process = None  # the server forgets it, as if it had been killed
        assert process is not None
        hanging = asyncio.create_task(judging._process._ask(process, _request("a" * 40 + "b", 0.2), float("inf")))
        await asyncio.wait_for(process.wait(), LONG_S)
        with pytest.raises(CheckError):
            await hanging

    assert process.pid == pid
    assert process.returncode == -signal.SIGALRM


def _request(text: str, timeout_s: float) -> judging_process.Judgement:
    raw = msgspec.Raw(msgspec.json.encode(CASE)), msgspec.Raw(msgspec.json.encode(Answer(text=text)))
    return judging_process.Judgement(*raw, [1], timeout_s)


async def test_many_answers_at_once_are_all_judged_in_turn(tmp_path: Path) -> None:
    async with judged(*functions(tmp_path, "polite")) as judging:
        answers = [Answer(text=str(n), value=n) for n in range(judging_process.MOST_WAITING)]
        verdicts = await asyncio.gather(*(judging.judge(CASE, answer, LONG_S) for answer in answers))

    assert [verdict.feedback for (verdict,) in verdicts] == [f"Say yes. {answer.value}" for answer in answers]


async def test_when_too_many_wait_the_next_is_told_at_once(tmp_path: Path) -> None:
    async with judged(*functions(tmp_path, "slow")) as judging:
        many = [asyncio.create_task(judging.judge(CASE, YES, 0.1)) for _ in range(judging_process.MOST_WAITING + 1)]
        await asyncio.sleep(0.01)
        started = time.monotonic()
        with pytest.raises(CheckError, match="'slow' was not run: 16 answers are waiting"):
            await judging.judge(CASE, YES, LONG_S)
        took_s = time.monotonic() - started
        results = await asyncio.gather(*many, return_exceptions=True)

    assert took_s < 0.1
    assert all(isinstance(result, CheckError) for result in results)


async def test_waiting_for_others_counts_towards_the_time_limit(tmp_path: Path) -> None:
    async with judged(*functions(tmp_path, "slow")) as judging:
        first = asyncio.create_task(judging.judge(CASE, YES, LONG_S))
        await asyncio.sleep(0.05)
        with pytest.raises(CheckError, match=r"'slow' was not run within 0\.05 s"):
            await judging.judge(CASE, YES, 0.05)

        assert (await first)[0].score == 1.0


async def test_a_caller_who_leaves_does_not_mix_up_the_answers(tmp_path: Path) -> None:
    async with judged(*functions(tmp_path, "slow", "polite", "process")) as judging:
        before = await judging.judge(CASE, Answer(text="", value="first"), LONG_S)
        leaving = asyncio.create_task(judging.judge(CASE, Answer(text="", value="left"), LONG_S))
        await asyncio.sleep(0.05)
        leaving.cancel()
        after = await judging.judge(CASE, Answer(text="", value="second"), LONG_S)

    assert after[1].feedback == "Say yes. second"
    assert before[2] == after[2]


@pytest.mark.slow
async def test_a_process_that_breaks_again_and_again_is_started_ever_later(tmp_path: Path) -> None:
    async with judged(*functions(tmp_path, "fussy")) as judging:
        for _ in range(2):
            with pytest.raises(CheckError, match="ended the process"):
                await judging.judge(CASE, Answer(text="leave"), LONG_S)
        with pytest.raises(CheckError, match=r"broke 2 times in a row; it starts again in 0\.[0-5] s"):
            await judging.judge(CASE, YES, LONG_S)
        await asyncio.sleep(judging_process.FIRST_PAUSE_S)
        (verdict,) = await judging.judge(CASE, YES, LONG_S)

    assert verdict.score == 1.0


async def test_a_process_that_died_while_nothing_was_asked_is_replaced_unnoticed(tmp_path: Path) -> None:
    async with judged(*functions(tmp_path, "process")) as judging:
        (before,) = await judging.judge(CASE, YES, LONG_S)
        os.kill(int(before.feedback), signal.SIGKILL)
        await asyncio.sleep(0.2)
        (after,) = await judging.judge(CASE, YES, LONG_S)

    assert before != after


async def test_a_check_whose_file_has_changed_is_refused_at_the_start(tmp_path: Path) -> None:
    (polite,) = functions(tmp_path, "polite")
    (tmp_path / "judges.py").write_text(SOURCE + "\n# changed\n")
    judging = Judging((polite,))

    with pytest.raises(CheckError, match="check out the version"):
        await judging.start()

    await judging.close()


async def test_a_closed_judging_says_so(tmp_path: Path) -> None:
    async with judged(*functions(tmp_path, "polite")) as judging:
        pass

    with pytest.raises(CheckError, match="closed"):
        await judging.judge(CASE, YES, LONG_S)


async def test_checks_of_bounded_time_need_no_process() -> None:
    judging = Judging((checks.Exact(), checks.Grounding(), checks.ToolCall()))
    verdicts = await judging.judge(CASE, YES, 0.0)  # no time for a process at all
    await judging.close()

    assert [verdict.score for verdict in verdicts] == [None, None, 0.0]


async def test_a_long_answer_goes_to_the_process_whatever_the_check() -> None:
    long = Answer(text="", value="x" * MOST_ANSWER_BYTES)

    async with judged(checks.Choice(("yes", "no"))) as judging:
        with pytest.raises(CheckError, match="'choice' took longer"):
            await judging.judge(CASE, long, 0.0)
        (verdict,) = await judging.judge(CASE, long, LONG_S)

    assert verdict.score == 0.0


async def test_a_judgement_before_the_start_starts_the_process(tmp_path: Path) -> None:
    judging = Judging(functions(tmp_path, "polite"))
    with pytest.raises(CheckError, match="starting"):
        await judging.judge(CASE, YES, 0.001)
    (verdict,) = await judging.judge(CASE, YES, LONG_S)
    await judging.close()

    assert verdict.score == 1.0


@pytest.mark.parametrize(
    ("schema", "bounded"),
    [
        ({"type": "object", "properties": {"a": {"enum": [1, 2]}}}, True),
        ({"properties": {"a": {"anyOf": [{"pattern": "a+"}]}}}, False),
        ({"anyOf": [{"$ref": "#"}]}, False),
        ({"uniqueItems": True}, False),
    ],
)
def test_a_schema_whose_time_is_not_bounded_is_told_from_others(schema: JsonObject, bounded: bool) -> None:
    assert is_bounded(checks.JsonSchema(schema)) is bounded


@dataclass(frozen=True)
class Homemade:
    """A check that no spec can build again."""

    name: str = "homemade"
    trusted: bool = True
    needs_target: bool = False
    spec: JsonObject = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        object.__setattr__(self, "spec", {"kind": "homemade"})

    def __call__(self, case: Case, answer: Answer) -> float:
        return 1.0


def test_a_process_that_judges_loads_neither_server_nor_loop() -> None:
    heavy = {"aiohttp", "rich", "gainful.proxy", "gainful.loop"}
    code = f"import sys, gainful.checks.child; print({heavy} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "set()"


def test_a_check_that_no_other_process_could_build_is_refused_by_name() -> None:
    with pytest.raises(ServeError, match=r"'homemade' is a Homemade, which cannot be served.*FILE\.py:NAME"):
        Judging((Homemade(),))


async def test_an_answer_that_json_cannot_carry_is_an_error_of_judging() -> None:
    async with judged(checks.Exact()) as judging:
        with pytest.raises(CheckError, match="JSON cannot carry the Answer"):
            await judging.judge(CASE, Answer(text="", value=object()), LONG_S)


async def test_a_function_named_by_its_module_is_found_there_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "judges_module.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)

    async with judged(checks.Function("judges_module:polite")) as judging:
        (verdict,) = await judging.judge(CASE, YES, LONG_S)

    assert verdict.score == 1.0
